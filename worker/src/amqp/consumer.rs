//! Reads one queue, while somebody wants what is in it: a message that lies with a busy worker is one that an idle one cannot
//! have.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use redrive_link::amqp::SessionError;
use redrive_shared::id::Name;
use tokio::sync::watch;

use super::Consuming;
use super::inbox::{Claims, Inbox};
use super::reach::Reach;

/// A worker that has not asked for more for so long is busy.
const FULL_AFTER: Duration = Duration::from_millis(50);
/// Until a queue that cannot be read is tried again. Others are read meanwhile.
const AGAIN: Duration = Duration::from_secs(2);

/// Passes a queue's messages on until the connection ends.
pub(super) async fn run(
    connection: &Connection,
    consuming: &Consuming,
    queue: &Name,
    inbox: &Inbox,
    reach: &Reach,
) -> Result<(), SessionError> {
    let name = consuming.names.pushed(queue);
    loop {
        match consume(connection, consuming.prefetch, &name, inbox, || reach.reads(queue)).await {
            // The queue is not there yet, or not any more.
            Err(SessionError::Cancelled(_)) => tracing::warn!(%queue, "RabbitMQ has taken the consumer away"),
            Err(SessionError::Lapin(error)) if error.is_amqp_soft_error() => {
                tracing::warn!(%error, %queue, "work cannot be taken from RabbitMQ; is that queue pushed?");
            }
            other => return other,
        }
        reach.loses(queue);
        tokio::time::sleep(AGAIN).await;
    }
}

async fn consume(
    connection: &Connection,
    prefetch: u16,
    queue: &str,
    inbox: &Inbox,
    reads: impl Fn(),
) -> Result<(), SessionError> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let mut claims = inbox.claims();
    loop {
        // The sender lives as long as the inbox.
        let _ = claims.wait_for(|claims| claims.waiting > 0).await;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let mut consumer = channel.basic_consume(queue.into(), "".into(), options, arguments).await?;
        reads();
        tracing::debug!(queue, "work is taken from RabbitMQ");
        loop {
            tokio::select! {
                delivery = consumer.next() => match delivery {
                    Some(delivery) => inbox.put(delivery?),
                    None => return Err(SessionError::Cancelled(queue.to_owned())),
                },
                () = full(&mut claims) => break,
            }
        }
        put_back(&channel, consumer, queue, inbox).await?;
    }
}

/// Waits until no claim was there for a while.
async fn full(claims: &mut watch::Receiver<Claims>) {
    loop {
        let Ok(last) = claims.wait_for(|claims| claims.waiting == 0).await.map(|claims| claims.begun) else {
            return;
        };
        let asked = claims.wait_for(|claims| claims.begun != last);
        if tokio::time::timeout(FULL_AFTER, asked).await.is_err() {
            return;
        }
    }
}

/// Stops reading, and gives back what nobody has taken.
async fn put_back(
    channel: &Channel,
    mut consumer: Consumer,
    queue: &str,
    inbox: &Inbox,
) -> Result<(), SessionError> {
    channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await?;
    let mut back: Vec<Delivery> = inbox.take_back(queue);
    // What was on its way when it stopped. After that the stream ends.
    while let Some(delivery) = consumer.next().await {
        back.push(delivery?);
    }
    for delivery in back {
        delivery.acker.nack(BasicNackOptions { requeue: true, multiple: false }).await?;
    }
    Ok(())
}
