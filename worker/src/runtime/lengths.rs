//! How long leases are: as configured, or as the policy of each queue says.
//!
//! A reply says when a lease ends by the coordinator's clock alone, so its length has to be known to tell that end by this
//! machine's.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redrive_shared::id::Name;
use redrive_shared::limits::{LEASE_DEFAULT_MS, LEASE_MIN_MS};
use tokio::time::Instant;

use crate::link::{Link, LinkError};
use crate::telemetry;

/// How long what a policy says is believed. One that is made shorter is wrongly taken for longer until then, for leases
/// that start meanwhile.
const BELIEVED: Duration = Duration::from_secs(5);
/// How long the question may take: a lease waits for its start meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);

/// The lengths of leases by queue.
#[derive(Debug)]
pub(super) struct Lengths {
    configured: Option<Duration>,
    known: Mutex<HashMap<Name, (Instant, Duration)>>,
}

impl Lengths {
    pub(super) fn new(configured_ms: Option<u64>) -> Self {
        Self { configured: configured_ms.map(Duration::from_millis), known: Mutex::default() }
    }

    /// The length until more is known.
    pub(super) fn usual(&self) -> Duration {
        self.configured.unwrap_or(Duration::from_millis(LEASE_DEFAULT_MS))
    }

    /// The length of a lease of that queue. When nobody can tell, the shortest that any may have.
    pub(super) async fn of(&self, link: &dyn Link, queue: &Name) -> Duration {
        if let Some(length) = self.configured.or_else(|| self.believed(queue)) {
            return length;
        }
        let asked = Instant::now();
        let error = match tokio::time::timeout(PATIENCE, link.policy_lease_ms(queue)).await {
            Ok(Ok(lease_ms)) => {
                let length = Duration::from_millis(lease_ms);
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(queue.clone(), (asked, length));
                return length;
            }
            Ok(Err(error)) => error,
            Err(_) => unanswered(),
        };
        telemetry::link_error("policy");
        tracing::warn!(%error, %queue, "the queue's policy is not known: its leases are taken to be the shortest");
        Duration::from_millis(LEASE_MIN_MS)
    }

    fn believed(&self, queue: &Name) -> Option<Duration> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(queue).filter(|(asked, _)| asked.elapsed() < BELIEVED).map(|(_, length)| *length)
    }
}

fn unanswered() -> LinkError {
    let text = "the question was not answered in time".to_owned();
    LinkError::NoAnswer { text, retry_after: None, outcome_unknown: false }
}
