//! The handler's run, with what is too large for the store on both sides of it.

use std::time::Duration;

use redrive_shared::limits::RESULT_MAX_BYTES;
use redrive_shared::task::Lease;
use redrive_shared::wire::Outcome;

use super::normalise::{bad_output, too_deep};
use crate::context::{ContextError, TaskContext};
use crate::handler::Handler;

/// How long a payload that cannot be had is waited for. Then the task is handed back: others may reach it, and the attempt's
/// time is not the coordinator's to spend.
const PAYLOAD_PATIENCE: Duration = Duration::from_secs(30);

/// Runs the handler with the whole payload, and keeps a result that is too large to lie beside the task.
pub(super) async fn run(handler: &dyn Handler, lease: &Lease, ctx: &TaskContext) -> Outcome {
    let outcome = match &lease.payload_ref {
        None => handler.run(lease, ctx).await,
        Some(blob) => {
            let fetched = tokio::time::timeout(PAYLOAD_PATIENCE, ctx.fetch("the payload", blob));
            match fetched.await {
                Ok(Ok(payload)) => handler.run(&Lease { payload, ..lease.clone() }, ctx).await,
                Ok(Err(error)) => {
                    tracing::error!(task = %lease.id, %error, "a payload cannot be had");
                    return error.into();
                }
                Err(_) => {
                    tracing::warn!(task = %lease.id, "a payload could not be had in time: the task is handed back");
                    return Outcome::release();
                }
            }
        }
    };
    keep_large_result(ctx, outcome).await
}

async fn keep_large_result(ctx: &TaskContext, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Done { result: Some(json), result_ref: None, cost_usd }
            if json.get().len() > RESULT_MAX_BYTES && too_deep(json.get()).is_none() =>
        {
            match ctx.keep("the result", json).await {
                Ok(blob) => Outcome::Done { result: None, result_ref: Some(blob), cost_usd },
                Err(error @ (ContextError::Stopped(_) | ContextError::Unavailable(_))) => {
                    Outcome::from(error).costing(cost_usd)
                }
                Err(error) => Outcome::retry(bad_output(error.to_string())).costing(cost_usd),
            }
        }
        outcome => outcome,
    }
}
