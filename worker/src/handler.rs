//! What a handler is: the code that does a task's work.

use std::time::Duration;

use async_trait::async_trait;
use redrive_shared::task::Lease;
use redrive_shared::wire::Outcome;

use crate::context::TaskContext;

/// Does the work of one task. Embed it with [`crate::run`]; [`crate::handlers`] has two that need no Rust.
///
/// A task may be delivered more than once, to this worker or another: make the effect idempotent with the task's id, and
/// fence it with the lease's epoch. A panic is caught, and counts as a failed attempt. What is done in steps is not done again by
/// the next attempt:
///
/// ```
/// use redrive_shared::{task::Lease, wire::Outcome};
/// use redrive_worker::{Handler, TaskContext};
///
/// struct Report;
///
/// impl Report {
///     async fn write(&self, ctx: &TaskContext) -> Result<String, Outcome> {
///         ctx.plan(&["fetch", "summarise"])?;
///         let page: String = ctx.step("fetch", || async { Ok::<_, Outcome>("a page".to_owned()) }).await?;
///         ctx.step("summarise", || async move { Ok(page.to_uppercase()) }).await
///     }
/// }
///
/// #[async_trait::async_trait]
/// impl Handler for Report {
///     async fn run(&self, _task: &Lease, ctx: &TaskContext) -> Outcome {
///         match self.write(ctx).await {
///             Ok(summary) => Outcome::done(serde_json::value::to_raw_value(&summary).ok()),
///             Err(outcome) => outcome,
///         }
///     }
/// }
/// ```
///
/// The shortest one:
///
/// ```
/// use redrive_shared::{task::Lease, wire::Outcome};
/// use redrive_worker::{Handler, TaskContext};
///
/// struct Shout;
///
/// #[async_trait::async_trait]
/// impl Handler for Shout {
///     async fn run(&self, task: &Lease, _ctx: &TaskContext) -> Outcome {
///         let text = task.payload.get().to_uppercase();
///         Outcome::done(serde_json::value::RawValue::from_string(text).ok())
///     }
/// }
/// ```
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Runs the task to its end and says how it ended.
    ///
    /// When `ctx` is cancelled, return soon: after [`CANCEL_GRACE`], or at the end of the lease if that comes first, this
    /// future is dropped.
    async fn run(&self, task: &Lease, ctx: &TaskContext) -> Outcome;

    /// Whether nothing of its work goes on once [`Handler::run`] has returned, also where it was told to stop.
    ///
    /// Then the attempt's locks are given back at once. Otherwise those of one that was told to stop end by themselves, and rest:
    /// a thread or a server that it had called may be writing what they guard still. Those that `run` itself gives back are not
    /// concerned.
    fn ends_its_work(&self) -> bool {
        false
    }
}

/// How long a handler may go on after it was cancelled before its future is dropped; less when its lease
/// ends before.
pub const CANCEL_GRACE: Duration = Duration::from_secs(4);
