//! Claims for what is published: held on to while earlier batches are confirmed, since a claim that is given up hands back
//! what it got.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redrive_shared::id::Name;
use redrive_shared::limits::WAIT_MAX_MS;
use redrive_shared::task::Lease;
use redrive_shared::wire::ClaimRequest;

use super::Amqp;

/// Batches that wait for their confirmation while the next is claimed.
const UNCONFIRMED_MAX: usize = 3;
/// After the store failed.
const AGAIN: Duration = Duration::from_millis(500);

/// Batches that are being published.
pub(super) type Unconfirmed<F> = FuturesUnordered<F>;

/// Waits until a batch may be published. What could not be is handed back meanwhile.
pub(super) async fn until_ready<F: Future<Output = ()>>(amqp: &Amqp, unconfirmed: &mut Unconfirmed<F>) {
    while unconfirmed.len() >= UNCONFIRMED_MAX || (!unconfirmed.is_empty() && !amqp.publisher.is_ready()) {
        unconfirmed.next().await;
    }
    amqp.publisher.ready().await;
}

/// Leases of a queue, up to `max`, when some are due; none when there is a reason to ask anew, `until` among them.
pub(super) async fn next<F: Future<Output = ()>>(
    amqp: &Amqp,
    queue: &Name,
    max: usize,
    lease_ms: Option<u64>,
    unconfirmed: &mut Unconfirmed<F>,
    until: impl Future<Output = ()>,
) -> Vec<Lease> {
    let request = ClaimRequest {
        agent: amqp.agent.clone(),
        boot_id: Some(amqp.boot_id.clone()),
        request_id: None,
        queues: vec![queue.clone()],
        max: u32::try_from(max).unwrap_or(u32::MAX),
        wait_ms: WAIT_MAX_MS,
        lease_ms,
        avoid: Vec::new(),
    };
    let (mut claim, mut until) = (pin!(amqp.engine.claim(request)), pin!(until));
    loop {
        tokio::select! {
            claimed = &mut claim => match claimed {
                Ok(reply) => return reply.leases,
                Err(problem) => {
                    tracing::warn!(%problem, %queue, "nothing can be claimed for RabbitMQ");
                    tokio::time::sleep(AGAIN).await;
                    return Vec::new();
                }
            },
            Some(()) = unconfirmed.next() => {}
            () = &mut until => return Vec::new(),
            () = amqp.publisher.not_ready() => return Vec::new(),
        }
    }
}
