"""A consumer of somebody's queue `orders`, which knows nothing of Redrive: it rejects a message the first two times that
it sees it, then takes it, prints what it was, and ends. Arguments: the address of RabbitMQ."""

import sys

import pika

SEEN = {}


def main():
    connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=10)

    def on_order(channel, method, properties, body):
        SEEN[properties.message_id] = SEEN.get(properties.message_id, 0) + 1
        if SEEN[properties.message_id] <= 2:
            channel.basic_reject(method.delivery_tag, requeue=False)
            return
        channel.basic_ack(method.delivery_tag)
        print(properties.message_id, properties.content_type, body.decode(), flush=True)
        channel.stop_consuming()

    channel.basic_consume("orders", on_order)
    print("ready", flush=True)
    channel.start_consuming()
    connection.close()


if __name__ == "__main__":
    main()
