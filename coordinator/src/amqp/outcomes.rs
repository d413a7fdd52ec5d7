//! Outcomes: what became of tasks, said by whoever consumed them.

use lapin::Channel;
use redrive_link::amqp::SessionError;
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::limits::BATCH_MAX_ITEMS;
use redrive_shared::wire::{SettleRequest, SettleResult, Settlement};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio_util::sync::CancellationToken;

use super::Amqp;
use super::inbox::{Again, Inbox, check_size, passes};
use crate::json::{parse, parse_item};

/// What tells several settlements from one.
#[derive(Deserialize)]
struct Shape {
    settlements: Option<IgnoredAny>,
}

/// Reads outcomes until the session ends.
pub(super) async fn run(amqp: &Amqp, channel: Channel, over: &CancellationToken) -> Result<(), SessionError> {
    let mut inbox = Inbox::open(&channel, amqp.names.outcomes()).await?;
    loop {
        let Some(batch) = inbox.next(over).await? else { return Ok(()) };
        let mut refused = Vec::new();
        let mut settlements = Vec::with_capacity(batch.len());
        for delivery in &batch {
            match read(&delivery.data) {
                Ok(read) => settlements.extend(read.into_iter().map(|settlement| (delivery, settlement))),
                Err(problem) => refused.push((delivery, problem)),
            }
        }
        let (from, settlements): (Vec<_>, Vec<_>) = settlements.into_iter().unzip();
        for (delivery, result) in from.into_iter().zip(settle(amqp, settlements, over).await?) {
            refused.extend(told(result).map(|problem| (delivery, problem)));
        }
        inbox.finish(&batch, refused, &amqp.publisher, &amqp.names.rejected()).await?;
    }
}

fn read(body: &[u8]) -> Result<Vec<Settlement>, Problem> {
    check_size(body)?;
    if serde_json::from_slice::<Shape>(body).is_ok_and(|shape| shape.settlements.is_some()) {
        return parse::<SettleRequest>(body).map(|request| request.settlements);
    }
    parse_item::<Settlement>(body).map(|settlement| vec![settlement])
}

/// Settles, however long the store takes to be there again. One answer a settlement, in order.
pub(super) async fn settle(
    amqp: &Amqp,
    settlements: Vec<Settlement>,
    over: &CancellationToken,
) -> Result<Vec<SettleResult>, SessionError> {
    let mut results = Vec::with_capacity(settlements.len());
    for settlements in settlements.chunks(BATCH_MAX_ITEMS) {
        results.extend(settle_chunk(amqp, settlements, over).await?);
    }
    Ok(results)
}

async fn settle_chunk(
    amqp: &Amqp,
    settlements: &[Settlement],
    over: &CancellationToken,
) -> Result<Vec<SettleResult>, SessionError> {
    let mut again = Again::default();
    loop {
        // What is said twice counts once: so all of it may be said again, where only some could not be taken.
        match amqp.engine.settle(SettleRequest { settlements: settlements.to_vec() }).await {
            Ok(reply) => {
                match reply.results.iter().filter_map(|one| one.error.as_ref()).find(|one| passes(one)) {
                    Some(problem) => again.wait(problem, "outcomes from RabbitMQ", over).await?,
                    None => return Ok(reply.results),
                }
            }
            Err(problem) => again.wait(&problem, "outcomes from RabbitMQ", over).await?,
        }
    }
}

/// Counts an outcome; returns what was wrong with it, if that is not to be expected where messages come twice.
fn told(result: SettleResult) -> Option<Problem> {
    let (outcome, wrong) = match result.error {
        None if result.repeated => ("repeated", None),
        None => ("settled", None),
        // A lease that is over, or a task that is forgotten.
        Some(problem) if matches!(problem.code, ErrorCode::StaleEpoch | ErrorCode::UnknownTask) => {
            tracing::debug!(task = %result.id, %problem, "an outcome came too late");
            ("stale", None)
        }
        Some(problem) => ("refused", Some(problem)),
    };
    metrics::counter!("redrive_amqp_outcomes_total", "result" => outcome).increment(1);
    wrong
}

#[cfg(test)]
mod tests {
    use super::read;

    const ONE: &str = r#"{"id":"a","epoch":1,"nonce":"0000000000000001","outcome":{"done":{}}}"#;

    #[test]
    fn one_or_many() {
        assert_eq!(read(ONE.as_bytes()).unwrap().len(), 1);
        let many = format!(r#"{{"settlements":[{ONE},{ONE}]}}"#);
        assert_eq!(read(many.as_bytes()).unwrap().len(), 2);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = ONE.replace("\"done\"", "\"dome\"");
        assert!(read(wrong.as_bytes()).unwrap_err().to_string().contains("dome"));
        assert!(read(b"not json").is_err() && read(b"").is_err() && read(b"[]").is_err());
    }
}
