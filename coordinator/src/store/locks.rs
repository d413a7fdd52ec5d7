//! Locks, as stores keep them. What they mean is decided in [`redrive_shared::lock`]; both stores write a lock as the same text.
//!
//! Its lines: phase (`o`ffered, `h`eld, `l`apsed), until when (µs), time to live and pause after an expiry (ms), since when
//! (µs), the place in line that it was granted to or nothing, the owner, and a resource each: `x` or `s` (alone, shared) and its
//! name. Neither names nor resources hold line breaks. A wait is written alike, with its end and when it counts as dead in the
//! first two lines, and how long it wanted to wait in the sixth.

use redrive_shared::id::{Name, TaskId};
use redrive_shared::lock::{Hold, Mode, Owner, Phase, Request, Resource, Token, Wait, WaitId};

/// All that there is of locks, up to a bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Locks {
    /// Those that are held, offered or lapsed, by token.
    pub holds: Vec<Hold>,
    /// Those that wait, in order.
    pub waits: Vec<Wait>,
    /// Whether there are more.
    pub more: bool,
    /// How many there are of all resources.
    pub counts: LockCounts,
}

/// How many there are: over all coordinators that share the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LockCounts {
    /// Locks that are held, offered or lapsed.
    pub holds: u64,
    /// Those that wait.
    pub waits: u64,
}

pub(super) fn write_owner(owner: &Owner) -> String {
    match owner {
        Owner::Attempt { task, epoch } => format!("a{epoch} {task}"),
        Owner::Named { name } => format!("n {name}"),
    }
}

pub(super) fn read_owner(text: &str) -> Option<Owner> {
    let (kind, name) = text.split_once(' ')?;
    match kind.strip_prefix('a') {
        Some(epoch) => Some(Owner::Attempt { task: TaskId::new(name).ok()?, epoch: epoch.parse().ok()? }),
        None => Some(Owner::Named { name: Name::new(name).ok()? }),
    }
}

pub(super) fn write_want((resource, mode): &(Resource, Mode)) -> String {
    let letter = match mode {
        Mode::Exclusive => 'x',
        Mode::Shared => 's',
    };
    format!("{letter}{resource}")
}

pub(super) fn read_want(text: &str) -> Option<(Resource, Mode)> {
    let (mode, resource) = match text.strip_prefix('x') {
        Some(resource) => (Mode::Exclusive, resource),
        None => (Mode::Shared, text.strip_prefix('s')?),
    };
    Some((Resource::new(resource).ok()?, mode))
}

pub(super) fn write_hold(hold: &Hold) -> String {
    let phase = match hold.phase {
        Phase::Offered => 'o',
        Phase::Held => 'h',
        Phase::Lapsed => 'l',
    };
    let wait = hold.wait.map(|id| id.0.to_string()).unwrap_or_default();
    let Hold { until_us, ttl_ms, delay_ms, since_us, .. } = hold;
    let mut text = format!(
        "{phase}\n{until_us}\n{ttl_ms}\n{delay_ms}\n{since_us}\n{wait}\n{}",
        write_owner(&hold.owner)
    );
    for want in &hold.resources {
        text.push('\n');
        text.push_str(&write_want(want));
    }
    text
}

/// None: it is damaged.
pub(super) fn read_hold(token: i64, text: &str) -> Option<Hold> {
    let mut lines = text.split('\n');
    let phase = match lines.next()? {
        "o" => Phase::Offered,
        "h" => Phase::Held,
        "l" => Phase::Lapsed,
        _ => return None,
    };
    let until_us = lines.next()?.parse().ok()?;
    let (ttl_ms, delay_ms) = (lines.next()?.parse().ok()?, lines.next()?.parse().ok()?);
    let since_us = lines.next()?.parse().ok()?;
    let wait = match lines.next()? {
        "" => None,
        id => Some(WaitId(id.parse().ok()?)),
    };
    let owner = read_owner(lines.next()?)?;
    let resources = lines.map(read_want).collect::<Option<Vec<_>>>()?;
    Some(Hold { token: Token(token), owner, resources, phase, ttl_ms, delay_ms, since_us, until_us, wait })
}

/// None: it is damaged.
pub(super) fn read_wait(id: i64, text: &str) -> Option<Wait> {
    let mut lines = text.split('\n');
    let (deadline_us, alive_until_us) = (lines.next()?.parse().ok()?, lines.next()?.parse().ok()?);
    let (ttl_ms, delay_ms) = (lines.next()?.parse().ok()?, lines.next()?.parse().ok()?);
    let (since_us, wait_ms) = (lines.next()?.parse().ok()?, lines.next()?.parse().ok()?);
    let owner = read_owner(lines.next()?)?;
    let wants = lines.map(read_want).collect::<Option<Vec<_>>>()?;
    let request = Request::new(owner, wants)?.timed(ttl_ms, delay_ms, wait_ms);
    Some(Wait { id: WaitId(id), request, since_us, deadline_us, alive_until_us })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_reads_as_it_was_written() {
        let owner = Owner::Attempt { task: TaskId::new("t/1").unwrap(), epoch: -3 };
        let resources = vec![
            (Resource::new("a b").unwrap(), Mode::Shared),
            (Resource::new("x").unwrap(), Mode::Exclusive),
        ];
        let (ttl_ms, delay_ms, since_us, until_us) = (1_000, 0, 5, 1_700_000_000_000_000);
        for (phase, wait) in [(Phase::Offered, Some(WaitId(4))), (Phase::Held, None), (Phase::Lapsed, None)] {
            let (owner, resources) = (owner.clone(), resources.clone());
            let token = Token(9);
            let hold = Hold { token, owner, resources, phase, ttl_ms, delay_ms, since_us, until_us, wait };
            assert_eq!(read_hold(9, &write_hold(&hold)), Some(hold));
        }
        assert_eq!(read_hold(9, "z\n1\n1\n1\n1\n\nn x\nxa"), None);
        assert_eq!(read_hold(9, "h\n1"), None);
    }
}
