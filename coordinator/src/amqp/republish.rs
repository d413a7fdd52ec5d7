//! Messages that died in somebody's queue go back to where they came from when their time has come: their consumers see
//! their own message again, with a few headers more, and need not know of Redrive.
//!
//! Nobody reports how that ends. A message that RabbitMQ has confirmed makes its task `handed_off`; if it dies again, it
//! comes back with the lease under which it went out, and that attempt has failed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lapin::options::ExchangeDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ExchangeKind};
use redrive_link::amqp::{SessionError, message};
use redrive_shared::failure::{FailureClass, FailureSignal};
use redrive_shared::id::Name;
use redrive_shared::task::Lease;
use redrive_shared::wire::{LeaseRef, Outcome, SettleRequest, Settlement};
use tokio::time::Instant;

use super::Amqp;
use super::claims::{self, Unconfirmed};
use super::config::Republish;
use super::envelope::Envelope;
use super::publisher::{Message, Sent};

/// Tasks claimed and published at once.
const BATCH: usize = 500;
/// For how long an exchange is believed to be there, or not.
const BELIEVED: Duration = Duration::from_secs(5);

/// What gives the tasks of one queue back.
pub(super) struct Republisher<'a> {
    amqp: &'a Amqp,
    connection: &'a Connection,
    queue: &'a Name,
    way: Republish,
    exchanges: Mutex<HashMap<String, (bool, Instant)>>,
}

impl<'a> Republisher<'a> {
    /// For a queue, whose messages go that way.
    pub fn new(amqp: &'a Amqp, connection: &'a Connection, queue: &'a Name, way: Republish) -> Self {
        Self { amqp, connection, queue, way, exchanges: Mutex::default() }
    }

    /// Works until the session ends. Any number of coordinators may do so at once.
    pub async fn run(&self) -> Result<(), SessionError> {
        let mut unconfirmed = Unconfirmed::new();
        loop {
            claims::until_ready(self.amqp, &mut unconfirmed).await;
            let for_ever = std::future::pending();
            let leases = claims::next(self.amqp, self.queue, BATCH, None, &mut unconfirmed, for_ever).await;
            if !leases.is_empty() {
                unconfirmed.push(self.give_back(leases));
            }
        }
    }

    async fn give_back(&self, leases: Vec<Lease>) {
        let (mut batch, mut out, mut endings) = (Vec::new(), Vec::new(), Vec::new());
        for lease in leases {
            match self.message(&lease).await {
                Ok(message) => {
                    batch.push(message);
                    out.push(lease);
                }
                Err(ending) => endings.push(settlement(&lease, ending)),
            }
        }
        let mut handed_off = Vec::new();
        for (lease, sent) in out.iter().zip(self.amqp.publisher.publish(&batch).await) {
            match sent {
                Sent::Confirmed => handed_off.push(lease_ref(lease)),
                Sent::Refused(why) => endings.push(settlement(lease, failed(why))),
                // It may arrive all the same; if it dies then, its lease is over, and the next one counts.
                Sent::Unknown(_) => endings.push(settlement(lease, Outcome::Release {})),
            }
        }
        for (result, count) in [("handed_off", handed_off.len()), ("not_published", endings.len())] {
            metrics::counter!("redrive_republished_total", "queue" => self.queue.to_string(), "result" => result)
                .increment(count as u64);
        }
        // Where the store cannot take it now, their leases end, and they go out once more.
        if !handed_off.is_empty()
            && let Err(problem) = self.amqp.engine.hand_off(&handed_off).await
        {
            tracing::warn!(%problem, queue = %self.queue, "messages went out, and it could not be noted");
        }
        if !endings.is_empty()
            && let Err(problem) = self.amqp.engine.settle(SettleRequest { settlements: endings }).await
        {
            tracing::warn!(%problem, queue = %self.queue, "messages could not be published, and it could not be noted");
        }
    }

    /// The message as it was; or how its attempt ends, where there is none.
    async fn message(&self, lease: &Lease) -> Result<Message, Outcome> {
        let envelope: Envelope = serde_json::from_str(lease.payload.get()).map_err(|error| {
            no_message(format!(
                "queue `{}` is published again, and this task was no message: {error}",
                self.queue
            ))
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
            Republish::Exchange => (envelope.exchange.clone(), envelope.routing_key.clone()),
            Republish::Queue => (String::new(), envelope.queue.clone()),
        };
        // RabbitMQ closes the channel of who publishes to an exchange that is not there, with all that is under way on it.
        if !self.is_there(&exchange).await {
            return Err(failed(format!("there is no exchange `{exchange}` to publish it to again")));
        }
        Ok(Message {
            exchange,
            routing_key,
            properties: envelope.properties(headers).map_err(no_message)?,
            body: envelope.body().map_err(no_message)?,
        })
    }

    async fn is_there(&self, exchange: &str) -> bool {
        if exchange.is_empty() {
            return true;
        }
        let known = {
            let mut known = self.exchanges.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|_, (_, since)| since.elapsed() < BELIEVED);
            known.get(exchange).map(|(there, _)| *there)
        };
        if let Some(there) = known {
            return there;
        }
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let looked = async {
            let channel = self.connection.create_channel().await?;
            channel
                .exchange_declare(exchange.into(), ExchangeKind::Direct, passive, FieldTable::default())
                .await
        };
        let there = looked.await.is_ok();
        let mut known = self.exchanges.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(exchange.to_owned(), (there, Instant::now()));
        there
    }
}

fn lease_ref(lease: &Lease) -> LeaseRef {
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
    Outcome::Retry { failure: signal(FailureClass::ServerError, why) }
}

/// No retry makes a message of it.
fn no_message(why: String) -> Outcome {
    Outcome::Escalate { failure: signal(FailureClass::InvalidRequest, why) }
}
