//! The ceiling: what this RabbitMQ does when a plain client publishes messages and consumes them again, and nothing else.
//!
//! They have the bytes and properties of a message that a coordinator has just pushed, go to a queue of the same kind,
//! mandatory and confirmed, and are acknowledged as many at a time as have arrived. There is no task, no store, no lease and
//! no outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::meter::{Meter, Round};
use super::peer::{Message, Peer, acknowledge, publish};
use crate::bench::Options;
use crate::bench::fleet::finish;

pub(super) async fn measure(
    peer: &Peer,
    queue: &str,
    sample: &Message,
    options: &Options,
) -> anyhow::Result<Round> {
    peer.declare(queue).await?;
    let mut arrivals = peer.consume(queue).await?;
    let (tasks, outstanding) = (options.tasks, options.outstanding);
    let size = options.batch.min(outstanding);
    // Of those that are out, the consumer gives back what it has acknowledged.
    let (room, next) = (Arc::new(Semaphore::new(outstanding)), Arc::new(AtomicUsize::new(0)));
    let meter = Meter::start(None);
    let mut callers: JoinSet<anyhow::Result<()>> = JoinSet::new();
    // While one batch waits for its confirmations, there is room for others.
    for _ in 0..outstanding / size {
        let (channel, queue, sample) = (peer.publisher(), queue.to_owned(), sample.clone());
        let (room, next) = (Arc::clone(&room), Arc::clone(&next));
        callers.spawn(async move {
            loop {
                let count = size.min(tasks.saturating_sub(next.fetch_add(size, Ordering::Relaxed)));
                if count == 0 {
                    return Ok(());
                }
                room.acquire_many(u32::try_from(count)?).await?.forget();
                publish(&channel, &queue, &sample, count).await.context("publishing")?;
            }
        });
    }
    callers.spawn(async move {
        let mut arrived = 0;
        while arrived < tasks {
            let batch = arrivals.next().await?;
            acknowledge(&batch).await?;
            arrived += batch.len();
            room.add_permits(batch.len());
        }
        arrivals.close().await
    });
    finish(callers, tasks).await?;
    Ok(meter.stop(tasks))
}
