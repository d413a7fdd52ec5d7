#!/usr/bin/env python3
"""A worker in Python that speaks AMQP and nothing else: takes tasks that Redrive pushes, and says how they ended.

    pip install pika
    redrive coordinator --amqp amqp://127.0.0.1 --push letters=10 --create-queues
    AMQP_URL=amqp://127.0.0.1 python3 docs/examples/amqp_worker.py letters

docs/rabbitmq.md has the whole contract.
"""

import json
import os
import sys

import pika


def handle(task):
    """The work. What it raises is what failed."""
    payload = task["payload"]
    if payload.get("fail_until_attempt", 0) > task["attempt"]:
        raise ConnectionError("connection reset by peer")
    return {"sent_to": payload["to"]}


def main():
    queue = sys.argv[1]
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
    channel = connection.channel()
    # So that an outcome that RabbitMQ does not have raises an error here, and the task comes again.
    channel.confirm_delivery()
    # What is prefetched waits while its lease runs: no more of it than is soon begun.
    channel.basic_qos(prefetch_count=1)

    def on_task(channel, method, properties, body):
        task = json.loads(body)
        try:
            outcome = {"done": {"result": handle(task)}}
        except Exception as error:  # Redrive classifies it, and decides whether and when to try again.
            outcome = {"retry": {"failure": {"exception": f"{type(error).__name__}: {error}"}}}
        settlement = {
            "id": task["id"],
            "epoch": task["epoch"],
            "nonce": task["nonce"],
            "outcome": outcome,
        }
        channel.basic_publish(
            exchange="",
            routing_key=properties.reply_to,
            body=json.dumps(settlement),
            properties=pika.BasicProperties(
                content_type="application/json",
                type="redrive.settlement.v1",
                delivery_mode=pika.DeliveryMode.Persistent,
            ),
            mandatory=True,
        )
        # After the outcome is safe: a worker that dies before gets the task again.
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume(f"redrive.q.{queue}", on_task)
    print("ready", flush=True)
    channel.start_consuming()


if __name__ == "__main__":
    main()
