//! A queue that is pushed, and the benchmark as its consumer.

use anyhow::{Context, ensure};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use lapin::message::Delivery;
use lapin::{BasicProperties, Channel};
use redrive_link::amqp::message;
use redrive_shared::id::Name;
use redrive_shared::retry::RetryPolicy;
use redrive_shared::wire::QueueCreate;
use redrive_worker::client::Client;

use super::broker::Broker;
use super::peer::{Arrivals, Message, Peer, acknowledge, publish};
use crate::bench::Options;
use crate::bench::fleet::{Held, Outcomes, at_once, batch, enqueue, payload};

/// Longer than any round: leases end when they are settled.
const LEASE_MS: u64 = 10 * 60 * 1_000;
/// Batches of outcomes that wait for RabbitMQ's confirmation at once.
const UNCONFIRMED_MAX: usize = 8;
/// `delivery_mode` of messages that outlive a restart of RabbitMQ.
const PERSISTENT: u8 = 2;

/// What is consumed.
pub(super) struct Line {
    pub queue: Name,
    /// A message as the coordinator pushes it.
    pub sample: Message,
    /// Where outcomes go.
    outcomes: String,
    publishing: Channel,
    pub arrivals: Arrivals,
}

impl Line {
    /// Makes the queue, begins to consume, and has one task pushed and done: from then on the coordinator knows that somebody
    /// has room, for which it looks once a second.
    pub async fn open(
        broker: &Broker,
        peer: &Peer,
        client: &Client,
        queue: &str,
        options: &Options,
    ) -> anyhow::Result<Self> {
        let queue = Name::new(queue)?;
        let policy = RetryPolicy { lease_ms: LEASE_MS, ..at_once() };
        client.put_queue(&queue, &QueueCreate::from(policy)).await?;
        let mut arrivals = peer.consume(&broker.pushed(&queue)).await?;
        enqueue(client, &batch(&queue, &payload(options.payload_bytes)?, 1, |_| 0)).await?;
        let mut first = arrivals.next().await?;
        ensure!(first.len() == 1, "one task was enqueued, and {} messages came", first.len());
        let first = first.remove(0);
        let outcomes = first.properties.reply_to().as_ref().context("no reply_to in a message")?.to_string();
        let said = said(&Outcomes::new(false)?, &[read(&first)?])?;
        let publishing = peer.publisher();
        publish(&publishing, &outcomes, &said, 1).await?;
        acknowledge(std::slice::from_ref(&first)).await?;
        let sample = Message { properties: first.properties.clone(), body: first.data };
        Ok(Self { queue, sample, outcomes, publishing, arrivals })
    }

    /// Settles what arrives, until so many tasks are done. What has arrived together is settled by one message, and
    /// acknowledged when RabbitMQ has that. `arrived` sees the leases at once.
    pub async fn settle(
        self,
        first_fails: bool,
        tasks: usize,
        mut arrived: impl FnMut(&[Held]) + Send,
    ) -> anyhow::Result<()> {
        let Self { outcomes: queue, publishing, mut arrivals, .. } = self;
        let outcomes = Outcomes::new(first_fails)?;
        // In order: an acknowledgement is for all that came before it.
        let mut settling = FuturesOrdered::new();
        let mut done = 0;
        while done < tasks {
            tokio::select! {
                batch = arrivals.next(), if settling.len() < UNCONFIRMED_MAX => {
                    let batch = batch?;
                    let leases: Vec<Held> = batch.iter().map(read).collect::<anyhow::Result<_>>()?;
                    arrived(&leases);
                    let (said, successes) = (said(&outcomes, &leases)?, outcomes.successes(&leases));
                    let (publishing, queue) = (&publishing, &queue);
                    settling.push_back(async move {
                        publish(publishing, queue, &said, 1).await.context("settling")?;
                        anyhow::Ok((batch, successes))
                    });
                }
                Some(settled) = settling.next() => {
                    let (batch, successes) = settled?;
                    acknowledge(&batch).await?;
                    done += successes;
                }
            }
        }
        arrivals.close().await
    }
}

fn read(delivery: &Delivery) -> anyhow::Result<Held> {
    serde_json::from_slice(&delivery.data).context("a lease in a message")
}

/// What is said of leases, all in one message.
fn said(outcomes: &Outcomes, leases: &[Held]) -> anyhow::Result<Message> {
    let properties = BasicProperties::default()
        .with_content_type(message::JSON.into())
        .with_type(message::SETTLEMENT.into())
        .with_delivery_mode(PERSISTENT);
    Ok(Message { properties, body: serde_json::to_vec(&outcomes.of(leases))? })
}
