//! What an attempt takes in and gives out, where that is too large for the store: the payload before the handler, the result after.

use std::time::Duration;

use redrive_shared::cost::Cost;
use redrive_shared::limits::RESULT_MAX_BYTES;
use redrive_shared::task::Lease;
use redrive_shared::wire::Outcome;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::Worker;
use super::held::Key;
use super::normalise::bad_output;
use crate::context::TaskContext;
use crate::handler::Handler;

/// How long nothing of a payload may come. Then the task is handed back: others may reach it, and the attempt's time is not the
/// coordinator's to spend.
const PAYLOAD_SILENCE: Duration = Duration::from_secs(30);

/// Runs the handler with the whole payload.
pub(super) async fn run(handler: &dyn Handler, lease: &Lease, ctx: &TaskContext) -> Outcome {
    let Some(blob) = &lease.payload_ref else { return handler.run(lease, ctx).await };
    match ctx.fetch_unless_silent("the payload", blob, PAYLOAD_SILENCE).await {
        Ok(payload) => handler.run(&Lease { payload, ..lease.clone() }, ctx).await,
        Err(error) => {
            tracing::error!(task = %lease.id, %error, "a payload cannot be had");
            error.into()
        }
    }
}

/// Keeps a result that is too large to lie beside the task. The work is done and paid for: neither the handler's time-out nor
/// storage that is away for a while ends it, only the end of the lease (`None`: nobody is to be told), or that of the worker. It
/// keeps its slot: so no more results wait in memory than there are slots.
pub(super) async fn keep(worker: &Worker, ctx: &TaskContext, key: Key, outcome: Outcome) -> Option<Outcome> {
    let (json, cost_usd) = match outcome {
        Outcome::Done { result: Some(json), result_ref: None, cost_usd }
            if json.get().len() > RESULT_MAX_BYTES =>
        {
            (json, cost_usd)
        }
        outcome => return Some(outcome),
    };
    tokio::select! {
        biased;
        kept = keep_result(ctx, json, cost_usd) => Some(kept).filter(|_| !is_over(ctx)),
        () = lease_ends(worker, key) => None,
        () = worker.grace_is_over.cancelled() => Some(Outcome::release().costing(cost_usd)),
    }
}

async fn keep_result(ctx: &TaskContext, json: Box<RawValue>, cost_usd: Cost) -> Outcome {
    match ctx.keep("the result", json).await {
        Ok(blob) => Outcome::Done { result: None, result_ref: Some(blob), cost_usd },
        Err(error) => Outcome::retry(bad_output(error.to_string())).costing(cost_usd),
    }
}

/// Whether the task is not this attempt's any more.
fn is_over(ctx: &TaskContext) -> bool {
    ctx.reason().is_some_and(|reason| reason.is_final())
}

/// Returns when the lease is over.
async fn lease_ends(worker: &Worker, key: Key) {
    // It is extended meanwhile, while the coordinator is there.
    while let Some(ends) = worker.held.ends(key).filter(|ends| *ends > Instant::now()) {
        tokio::time::sleep_until(ends).await;
    }
}
