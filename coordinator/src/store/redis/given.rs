//! What shards answer to claims: which tasks they leased, and when more come due.

use std::collections::BTreeSet;
use std::sync::Arc;

use redis::Value;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::lifecycle::Fence;
use redrive_shared::task::Nonce;

use super::reply::{at, bytes, integer, items, maybe_integer, task_id, text};
use super::value::Lease;
use crate::store::Result;

/// A task that a shard gave.
pub(super) struct Ticket {
    pub id: TaskId,
    pub lease: Lease,
    /// Its lane; an answer that is given again does not tell it.
    pub lane: Option<Arc<str>>,
}

/// What a shard gave for one claim, without bodies.
pub(super) struct Given {
    pub replayed: bool,
    pub next_due_ms: Option<i64>,
    /// Places of restrictions because of which something due was passed over.
    pub held_back: BTreeSet<usize>,
    pub tasks: Vec<Ticket>,
    pub now_ms: i64,
}

impl Given {
    /// Reads what the script says of one claim.
    pub fn read(given: &Value, nonce: Nonce, agent: &Name, now_ms: i64) -> Result<Self> {
        let parts = items(given)?;
        let kind = text(at(parts, 0)?)?;
        let (replayed, holds_back) = (kind == "again", kind == "held back");
        let mut given =
            Self { replayed, next_due_ms: None, held_back: BTreeSet::new(), tasks: Vec::new(), now_ms };
        let lease = |epoch, nonce, leased_at_ms, until_ms, extended| Lease {
            fence: Fence { epoch, nonce },
            leased_at_ms,
            until_ms,
            extended,
            agent: Some(agent.clone()),
            boot_id: None,
            taken_by: None,
        };
        if replayed {
            for leases in parts.get(1..).unwrap_or_default() {
                let leases = items(leases)?;
                let nonce = bytes(at(leases, 1)?)?.try_into().map(u64::from_be_bytes).unwrap_or_default();
                let (epoch, leased_at_ms) = (integer(at(leases, 0)?)?, integer(at(leases, 2)?)?);
                let extended = integer(at(leases, 4)?)? == 1;
                let lease = lease(epoch, Nonce(nonce), leased_at_ms, integer(at(leases, 3)?)?, extended);
                let ids = leases.get(5..).unwrap_or_default();
                given.tasks.reserve(ids.len());
                for id in ids {
                    given.tasks.push(Ticket { id: task_id(text(id)?)?, lease: lease.clone(), lane: None });
                }
            }
            return Ok(given);
        }
        given.next_due_ms = maybe_integer(at(parts, 1)?)?;
        if holds_back {
            for place in items(at(parts, 2)?)? {
                given.held_back.insert(usize::try_from(integer(place)?).unwrap_or(usize::MAX));
            }
        }
        for leases in parts.get(2 + usize::from(holds_back)..).unwrap_or_default() {
            let leases = items(leases)?;
            let lane: Arc<str> = text(at(leases, 0)?)?.into();
            let lease = lease(integer(at(leases, 1)?)?, nonce, now_ms, integer(at(leases, 2)?)?, false);
            let ids = leases.get(3..).unwrap_or_default();
            given.tasks.reserve(ids.len());
            for id in ids {
                let lane = Some(Arc::clone(&lane));
                given.tasks.push(Ticket { id: task_id(text(id)?)?, lease: lease.clone(), lane });
            }
        }
        Ok(given)
    }
}
