//! Messages that died in somebody's queue go back to where they came from when their time has come: their consumers see
//! their own message again, with a few headers more, and need not know of Redrive.
//!
//! Nobody reports how that ends. A message that RabbitMQ has confirmed makes its task `handed_off`; if it dies again, it
//! comes back with the lease under which it went out, and that attempt has failed.

use std::time::Duration;

use futures_util::FutureExt;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use redrive_link::amqp::{SessionError, message};
use redrive_shared::failure::{FailureClass, FailureSignal};
use redrive_shared::id::Name;
use redrive_shared::task::Lease;
use redrive_shared::wire::{LeaseRef, Outcome, SettleRequest, Settlement};
use tokio_util::sync::CancellationToken;

use super::Amqp;
use super::claims::{self, Unconfirmed, What};
use super::config::Republish;
use super::envelope::Envelope;
use super::publisher::{Message, Sent};
use super::weight::{self, HEADERS_MAX_BYTES};

/// Tasks claimed and published at once.
const BATCH: usize = 500;
/// After the store failed.
const AGAIN: Duration = Duration::from_millis(500);

/// What gives the tasks of one queue back.
pub(super) struct Republisher<'a> {
    amqp: &'a Amqp,
    queue: &'a Name,
    way: Republish,
}

impl<'a> Republisher<'a> {
    /// For a queue, whose messages go that way.
    pub fn new(amqp: &'a Amqp, queue: &'a Name, way: Republish) -> Self {
        Self { amqp, queue, way }
    }

    /// Works until the session ends. Any number of coordinators may do so at once.
    pub async fn run(&self, over: &CancellationToken) -> Result<(), SessionError> {
        let mut unconfirmed = Unconfirmed::new();
        while claims::until_ready(self.amqp, &mut unconfirmed, over).await {
            let what = What { max: BATCH, lease_ms: None, avoid: &[] };
            let leases = claims::next(self.amqp, self.queue, what, &mut unconfirmed, over.cancelled()).await;
            if !leases.is_empty() {
                unconfirmed.push(self.give_back(leases).boxed());
            }
        }
        Ok(())
    }

    async fn give_back(&self, leases: Vec<Lease>) {
        let (mut batch, mut out, mut endings) = (Vec::new(), Vec::new(), Vec::new());
        for lease in leases {
            match self.message(&lease) {
                Ok(message) => {
                    batch.push(message);
                    out.push(lease);
                }
                Err(why) => endings.push(settlement(&lease, no_message(why))),
            }
        }
        let (mut handed_off, mut undelivered) = (Vec::new(), Vec::new());
        for (lease, sent) in out.iter().zip(self.amqp.publisher.publish(&batch).await) {
            match sent {
                Sent::Confirmed => handed_off.push(lease_ref(lease)),
                Sent::Refused(why) => endings.push(settlement(lease, failed(why))),
                // Where nobody knows, it may arrive all the same; if it dies then, its lease is over, and the next one counts.
                Sent::Unsent(_) | Sent::Unknown(_) => undelivered.push(lease_ref(lease)),
            }
        }
        let not_published = endings.len() + undelivered.len();
        for (result, count) in [("handed_off", handed_off.len()), ("not_published", not_published)] {
            metrics::counter!("redrive_republished_total", "queue" => self.queue.to_string(), "result" => result)
                .increment(count as u64);
        }
        if !handed_off.is_empty() {
            let until_ms = out.iter().map(|lease| lease.lease_until_ms).min().unwrap_or(0);
            self.hand_off(&handed_off, until_ms).await;
        }
        if !undelivered.is_empty()
            && let Err(problem) = self.amqp.engine.take_back(&undelivered).await
        {
            tracing::warn!(%problem, queue = %self.queue, "leases that were not published run until their end");
        }
        if !endings.is_empty()
            && let Err(problem) = self.amqp.engine.settle(SettleRequest { settlements: endings }).await
        {
            tracing::warn!(%problem, queue = %self.queue, "messages could not be published, and it could not be noted");
        }
    }

    /// Notes that messages went out, until their leases end: from then on they go out once more.
    async fn hand_off(&self, leases: &[LeaseRef], until_ms: i64) {
        while let Err(problem) = self.amqp.engine.hand_off(leases).await {
            tracing::warn!(%problem, queue = %self.queue, "messages went out, and it could not be noted");
            if self.amqp.engine.clock().now_ms() >= until_ms {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The message as it was; or why there is none.
    fn message(&self, lease: &Lease) -> Result<Message, String> {
        let envelope: Envelope = serde_json::from_str(lease.payload.get()).map_err(|error| {
            format!("queue `{}` is published again, and this task was no message: {error}", self.queue)
        })?;
        let mut headers = FieldTable::default();
        let mut say = |name: &str, text: String| {
            headers.insert(name.into(), AMQPValue::LongString(text.into()));
        };
        say(message::ID, lease.id.to_string());
        say(message::EPOCH, lease.epoch.to_string());
        say(message::NONCE, lease.nonce.into());
        headers.insert(message::ATTEMPT.into(), AMQPValue::LongLongInt(lease.attempt.into()));
        let (exchange, routing_key) = match self.way {
            Republish::Exchange => (envelope.exchange.as_str(), envelope.routing_key.as_str()),
            Republish::Queue => ("", envelope.queue.as_str()),
        };
        // A task may say anything, and what is ours takes only what we put there.
        let is_ours = |name: &str| self.amqp.names.is_ours(name);
        if is_ours(exchange) || exchange.is_empty() && is_ours(routing_key) {
            return Err(format!(
                "`{exchange}{routing_key}` is Redrive's own: nothing is published again to it"
            ));
        }
        let short = |what, text| ShortString::try_new(text).map_err(|error| format!("{what}: {error}"));
        let (to, routing_key) = (short("exchange", exchange)?, short("routing_key", routing_key)?);
        let properties = envelope.properties(headers)?;
        let bytes = weight::headers(&properties);
        if bytes > HEADERS_MAX_BYTES {
            return Err(format!(
                "its headers have {bytes} bytes; at most {HEADERS_MAX_BYTES} can be published"
            ));
        }
        Ok(Message { exchange: to, routing_key, properties, body: envelope.body()? })
    }
}

pub(super) fn lease_ref(lease: &Lease) -> LeaseRef {
    LeaseRef { id: lease.id.clone(), epoch: lease.epoch, nonce: lease.nonce }
}

fn settlement(lease: &Lease, outcome: Outcome) -> Settlement {
    Settlement { id: lease.id.clone(), epoch: lease.epoch, nonce: lease.nonce, outcome }
}

fn signal(class: FailureClass, text: String) -> FailureSignal {
    FailureSignal { class: Some(class), exception: Some(text), ..FailureSignal::default() }
}

/// It may work later, when the exchange or a binding is there again.
fn failed(why: String) -> Outcome {
    Outcome::retry(signal(FailureClass::ServerError, why))
}

/// No retry makes a message of it.
fn no_message(why: String) -> Outcome {
    Outcome::escalate(signal(FailureClass::InvalidRequest, why))
}
