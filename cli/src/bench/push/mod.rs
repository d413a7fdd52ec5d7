//! Push over RabbitMQ: what one coordinator does with it, and in the same run what the same RabbitMQ does when a plain client
//! publishes and consumes messages that look the same, and nothing else.
//!
//! Everything in RabbitMQ is under a prefix of its own, chosen by chance, and is deleted at the end, also when the run is
//! interrupted.

mod broker;
mod ceiling;
mod cycles;
mod dispatch;
mod latency;
mod line;
mod meter;
mod peer;

use anyhow::Context;
use serde::Serialize;

pub use broker::Broker;
use line::Line;
pub use meter::Figure;
use peer::Peer;

use super::report::Percentiles;
use super::talk::Talk;
use super::target::{Data, Targets};
use super::{Options, fleet};

/// Of each of what is compared.
const ROUNDS: usize = 3;
/// Most messages that a coordinator lets be out for consumers that do not say how much room they have.
pub const OUTSTANDING_MAX: u32 = 100_000;

/// What push does.
#[derive(Debug, Clone, Serialize)]
pub struct Push {
    /// Messages of a plain client: published and confirmed, consumed, acknowledged.
    pub ceiling: Figure,
    /// Tasks that were due already, pushed to a consumer that only acknowledges.
    pub dispatch: Figure,
    /// Full cycles: enqueue over HTTP, pushed, retry, pushed again, done.
    pub cycles: Figure,
    /// Tasks pushed to messages of the ceiling, a second.
    pub dispatch_to_ceiling: f64,
    /// Full cycles to messages of the ceiling, a second. A cycle is two messages and two outcomes.
    pub cycles_to_ceiling: f64,
    /// From the moment at which a task was due until a consumer had it, at a steady 200 due tasks a second.
    pub latency_ms: Percentiles,
    /// Rounds of the first three; the figures are medians.
    pub rounds: usize,
    /// Tasks of a round, and as many messages of the ceiling.
    pub tasks: usize,
    /// Bytes of a message's body.
    pub message_bytes: usize,
    /// Messages that may be out at once, in the ceiling and in cycles.
    pub outstanding: usize,
}

/// Starts a coordinator that pushes, measures, stops it. What it declared stays: see [`Broker::clean`].
pub(super) async fn measure(
    broker: &Broker,
    data: Data<'_>,
    options: &Options,
    talk: &Talk<'_>,
) -> anyhow::Result<Push> {
    talk.step("push: starting a coordinator");
    let tasks = fitting(super::cycles::tasks(options), options.batch);
    let options = Options { tasks, ..options.clone() };
    let targets = Targets::start_pushing(data, options.threads, broker).await?;
    let peer = Peer::connect(broker.address()).await?;
    let measured = Bench { broker, peer: &peer, targets: &targets, options: &options }.run(talk).await;
    targets.stop().await;
    measured
}

/// Of that many tasks, so many whole batches that none waits for room: when only dispatch is measured, all are out at once.
fn fitting(tasks: usize, batch: usize) -> usize {
    // One less than there is room for: a task goes ahead of them.
    tasks.min((OUTSTANDING_MAX as usize - 1) / batch * batch)
}

/// Who takes part.
struct Bench<'a> {
    broker: &'a Broker,
    peer: &'a Peer,
    targets: &'a Targets,
    options: &'a Options,
}

impl Bench<'_> {
    async fn run(&self, talk: &Talk<'_>) -> anyhow::Result<Push> {
        let (mut ceilings, mut dispatches, mut cycles) = (Vec::new(), Vec::new(), Vec::new());
        let mut message_bytes = 0;
        for round in 0..ROUNDS {
            let of = format!("round {} of {ROUNDS}", round + 1);
            let line = self.open(&broker::dispatch(round)).await?;
            message_bytes = line.sample.body.len();

            talk.step(&format!("push, {of}: a plain client"));
            let queue = self.broker.ceiling();
            let ceiling = ceiling::measure(self.peer, &queue, &line.sample, self.options);
            ceilings.push(self.bounded(ceiling).await.context("a plain client")?);

            talk.step(&format!("push, {of}: dispatch"));
            dispatches.push(self.bounded(dispatch::measure(self, line)).await.context("dispatch")?);

            talk.step(&format!("push, {of}: full cycles"));
            let line = self.open(&broker::cycles(round)).await?;
            cycles.push(self.bounded(cycles::measure(self, line)).await.context("full cycles")?);
        }
        talk.step("push: latency at 200 due tasks a second");
        let line = self.open(broker::LATENCY).await?;
        let latency = self.bounded(latency::measure(self, line)).await.context("latency")?;

        let (ceiling, dispatch, cycles) =
            (Figure::of(&ceilings), Figure::of(&dispatches), Figure::of(&cycles));
        Ok(Push {
            dispatch_to_ceiling: dispatch.per_s / ceiling.per_s,
            cycles_to_ceiling: cycles.per_s / ceiling.per_s,
            ceiling,
            dispatch,
            cycles,
            latency_ms: Percentiles::of(&latency),
            rounds: ROUNDS,
            tasks: self.tasks(),
            message_bytes,
            outstanding: self.options.outstanding,
        })
    }

    async fn open(&self, queue: &str) -> anyhow::Result<Line> {
        let opening = Line::open(self.broker, self.peer, &self.targets.clients()[0], queue, self.options);
        self.bounded(opening).await.with_context(|| format!("the first task of `{queue}`"))
    }

    /// What hangs is given up.
    async fn bounded<T>(&self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        fleet::in_time(self.tasks(), work).await
    }

    fn tasks(&self) -> usize {
        self.options.tasks
    }
}

#[cfg(test)]
mod tests {
    use super::fitting;

    #[test]
    fn all_tasks_of_dispatch_find_room_at_once() {
        assert_eq!((fitting(250, 250), fitting(99_000, 1_000)), (250, 99_000));
        assert_eq!((fitting(1_000_000, 1_000), fitting(1_000_000, 1)), (99_000, 99_999));
    }
}
