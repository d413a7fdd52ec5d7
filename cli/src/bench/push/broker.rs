//! The RabbitMQ under measurement, and what the benchmark has there.

use std::collections::BTreeMap;

use anyhow::Context;
use rand::RngExt;
use redrive_coordinator::AmqpConfig;
use redrive_coordinator::amqp::{PushConfig, QueueType, removal};
use redrive_link::address::{AddressError, Secret};
use redrive_link::amqp::{AmqpAddress, Names, dial};
use redrive_shared::id::Name;
use tokio::process::Command;

use super::{OUTSTANDING_MAX, ROUNDS};

/// The queue that latency is measured with.
pub(super) const LATENCY: &str = "bench-latency";
/// Not pushed by any coordinator: a plain client's own, declared and deleted like those that are.
const CEILING: &str = "bench-ceiling";

/// The queue of a round of dispatch. Each round has its own: the tasks of the last one are still leased.
pub(super) fn dispatch(round: usize) -> String {
    format!("bench-dispatch-{round}")
}

/// The queue of a round of full cycles.
pub(super) fn cycles(round: usize) -> String {
    format!("bench-push-{round}")
}

/// A RabbitMQ, and a prefix there that nobody else has.
#[derive(Debug, Clone)]
pub struct Broker {
    /// As it was given: with the password.
    url: Secret,
    address: AmqpAddress,
    prefix: String,
    /// By queue: how many tasks may be out.
    pushed: BTreeMap<Name, u32>,
}

impl Broker {
    /// The one at this address. In full cycles, so many tasks may be out at once.
    ///
    /// # Errors
    /// It is no address; says how one looks.
    pub fn new(url: &str, outstanding: u32) -> Result<Self, AddressError> {
        let mut pushed = BTreeMap::from([(name(LATENCY), OUTSTANDING_MAX)]);
        for round in 0..ROUNDS {
            pushed.insert(name(&dispatch(round)), OUTSTANDING_MAX);
            pushed.insert(name(&cycles(round)), outstanding);
        }
        let prefix = format!("bench-{:08x}", rand::rng().random::<u32>());
        Ok(Self { url: Secret::new(url), address: url.parse()?, prefix, pushed })
    }

    /// Where it is.
    pub fn address(&self) -> &AmqpAddress {
        &self.address
    }

    /// Whether it can be used at all.
    pub async fn try_out(&self) -> anyhow::Result<()> {
        dial(&self.address, "redrive-bench").await?;
        Ok(())
    }

    /// What a coordinator must know to push there.
    pub fn tell(&self, coordinator: &mut Command) {
        let push: Vec<String> = self.pushed.iter().map(|(queue, most)| format!("{queue}={most}")).collect();
        coordinator
            .args(["--push", &push.join(",")])
            // Not as an argument: everybody on the machine can read those, and there may be a password in it.
            .env("REDRIVE__COORDINATOR__AMQP__URL", self.url.reveal())
            .env("REDRIVE__COORDINATOR__AMQP__PREFIX", &self.prefix);
    }

    /// What the queue is called there that a coordinator pushes to.
    pub fn pushed(&self, queue: &Name) -> String {
        self.names().pushed(queue)
    }

    /// What the plain client's queue is called.
    pub fn ceiling(&self) -> String {
        self.names().pushed(&name(CEILING))
    }

    fn names(&self) -> Names {
        Names::new(self.prefix.clone())
    }

    /// Deletes everything under the prefix. No coordinator may be there any more.
    pub async fn clean(&self) -> anyhow::Result<()> {
        let queues = self.pushed.keys().cloned().chain([name(CEILING)]);
        let config = AmqpConfig {
            url: Some(self.address.clone()),
            prefix: self.prefix.clone(),
            queue_type: QueueType::Classic,
            push: queues.map(|queue| (queue, PushConfig::default())).collect(),
            ..AmqpConfig::default()
        };
        removal::remove(&config).await.with_context(|| {
            format!(
                "deleting what begins with `{}.` in RabbitMQ; what is left there can be deleted by hand",
                self.prefix
            )
        })
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap_or_else(|_| unreachable!("letters, digits and dashes are a name"))
}
