//! Claims for what is published: held on to while earlier batches are confirmed, since a claim that is given up hands back
//! what it got.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use redrive_shared::id::Name;
use redrive_shared::limits::WAIT_MAX_MS;
use redrive_shared::task::Lease;
use redrive_shared::wire::ClaimRequest;
use tokio_util::sync::CancellationToken;

use super::Amqp;

/// Batches that wait for their confirmation while the next is claimed.
const UNCONFIRMED_MAX: usize = 3;
/// After the store failed.
const AGAIN: Duration = Duration::from_millis(500);

/// Batches that are being published.
pub(super) type Unconfirmed<'a> = FuturesUnordered<BoxFuture<'a, ()>>;

/// Waits until a batch may be published; false: it is over, and all that was claimed is accounted for.
pub(super) async fn until_ready(
    amqp: &Amqp,
    unconfirmed: &mut Unconfirmed<'_>,
    over: &CancellationToken,
) -> bool {
    loop {
        let is_ready = amqp.publisher.is_ready() && !over.is_cancelled();
        if is_ready && unconfirmed.len() < UNCONFIRMED_MAX {
            return true;
        }
        // What could not be published is handed back meanwhile.
        if unconfirmed.next().await.is_some() {
            continue;
        }
        if over.run_until_cancelled(amqp.publisher.ready()).await.is_none() {
            return false;
        }
    }
}

/// What is asked for.
pub(super) struct What<'a> {
    /// Most tasks.
    pub max: usize,
    /// For how long; the queue's policy when missing.
    pub lease_ms: Option<u64>,
    /// Dependencies that nobody would call now.
    pub avoid: &'a [Name],
}

/// Leases of a queue when some are due; none when there is a reason to ask anew, `until` among them.
pub(super) async fn next(
    amqp: &Amqp,
    queue: &Name,
    what: What<'_>,
    unconfirmed: &mut Unconfirmed<'_>,
    until: impl Future<Output = ()>,
) -> Vec<Lease> {
    let request = ClaimRequest {
        agent: amqp.agent.clone(),
        boot_id: Some(amqp.boot_id.clone()),
        request_id: None,
        queues: vec![queue.clone()],
        max: u32::try_from(what.max).unwrap_or(u32::MAX),
        wait_ms: WAIT_MAX_MS,
        lease_ms: what.lease_ms,
        avoid: what.avoid.to_vec(),
    };
    let (mut claim, mut until) = (pin!(amqp.engine.claim(request)), pin!(until));
    loop {
        tokio::select! {
            // Leases that were given in the moment of a stop are published, not dropped.
            biased;
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
