//! Full cycles by push: enqueue over HTTP, pushed, retry, pushed again, done, all at once, until the store has every task as
//! succeeded. Outcomes go to the coordinator over RabbitMQ, as those of a consumer that speaks nothing else.

use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinSet;

use super::Bench;
use super::line::Line;
use super::meter::{Meter, Round};
use crate::bench::cycles::produce;
use crate::bench::fleet::finish;

/// Between two looks whether the last outcomes are in the store.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

pub(super) async fn measure(bench: &Bench<'_>, line: Line) -> anyhow::Result<Round> {
    let (tasks, clients) = (bench.tasks(), bench.targets.clients());
    let queue = line.queue.clone();
    // The one that went ahead as well.
    let succeeded = i64::try_from(tasks)?.saturating_add(1);
    let meter = Meter::start(Some(bench.targets));
    let mut callers = JoinSet::new();
    produce(&mut callers, clients, &queue, None, bench.options)?;
    callers.spawn(async move { line.settle(true, tasks, |_| {}).await.context("consuming") });
    finish(callers, tasks).await?;
    while clients[0].queue(&queue).await?.counts.succeeded < succeeded {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(meter.stop(tasks))
}
