//! Dispatch: how fast a coordinator gets tasks out that are due, to a consumer that does nothing but acknowledge.

use anyhow::ensure;
use tokio::task::JoinSet;

use super::Bench;
use super::line::Line;
use super::meter::{Meter, Round};
use super::peer::acknowledge;
use crate::bench::cycles::produce;
use crate::bench::fleet::finish;

/// From the moment at which the queue, which was paused until all were enqueued, is asked to go on, to the last delivery:
/// nothing was leased or published ahead of time.
pub(super) async fn measure(bench: &Bench<'_>, line: Line) -> anyhow::Result<Round> {
    let (tasks, clients) = (bench.tasks(), bench.targets.clients());
    let Line { queue, mut arrivals, .. } = line;
    clients[0].pause(&queue).await?;
    let mut producers = JoinSet::new();
    produce(&mut producers, clients, &queue, None, bench.options)?;
    finish(producers, tasks).await?;
    let meter = Meter::start(Some(bench.targets));
    clients[0].resume(&queue).await?;
    // A task of its own, as the plain client's consumer is.
    let mut consumer = JoinSet::new();
    consumer.spawn(async move {
        let mut arrived = 0;
        while arrived < tasks {
            let batch = arrivals.next().await?;
            acknowledge(&batch).await?;
            arrived += batch.len();
        }
        ensure!(arrived == tasks, "{arrived} messages came of {tasks} tasks");
        arrivals.close().await
    });
    finish(consumer, tasks).await?;
    Ok(meter.stop(tasks))
}
