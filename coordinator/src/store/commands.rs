//! The commands that stand for an agent's breakers, as both stores keep them beside its heartbeats: the last one to each
//! breaker. None is taken away when it was carried out: another run of the agent may have to hear of it, now or later.

use std::collections::BTreeMap;

use redrive_shared::breaker::BreakerSnapshot;
use redrive_shared::id::Name;
use redrive_shared::limits::BREAKER_COMMANDS_MAX;
use redrive_shared::wire::{BreakerAction, BreakerCommand};
use serde::{Deserialize, Serialize};

/// What a person wants of a breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandBreaker {
    /// Whose.
    pub agent: Name,
    /// `*` for its own, else the dependency.
    pub breaker: String,
    /// What to do.
    pub action: BreakerAction,
    /// Why.
    pub reason: Option<String>,
}

/// The commands of one agent, in the order in which they were given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Commands(Vec<BreakerCommand>);

impl Commands {
    /// Reads what a store keeps; nothing kept is no command.
    pub fn read(kept: &str) -> serde_json::Result<Self> {
        if kept.is_empty() { Ok(Self::default()) } else { serde_json::from_str(kept) }
    }

    /// Gives a command, in place of the one that stood for that breaker. The same one again is the one that stands. `None`:
    /// so many others are isolated that there is no place; nothing is changed.
    pub fn give(&mut self, wanted: &CommandBreaker, now_us: i64) -> Option<BreakerCommand> {
        let standing = self.0.iter().position(|command| command.breaker == wanted.breaker);
        if let Some(standing) = standing.and_then(|place| self.0.get(place))
            && standing.action == wanted.action
        {
            return Some(standing.clone());
        }
        // One that lets calls through is forgotten first: a run that never heard of it is at most closed late by a person.
        let lets_through = || self.0.iter().position(|command| command.action != BreakerAction::Isolate);
        let is_full = self.0.len() >= BREAKER_COMMANDS_MAX;
        if let Some(place) = standing.or_else(|| is_full.then(lets_through).flatten()) {
            self.0.remove(place);
        } else if is_full {
            return None;
        }
        // Times that differ between servers, or a clock that stepped back, must not make two commands one.
        let last = self.0.iter().map(|command| command.number).max().unwrap_or(i64::MIN);
        let command = BreakerCommand {
            number: now_us.max(last.saturating_add(1)),
            breaker: wanted.breaker.clone(),
            action: wanted.action,
            reason: wanted.reason.clone(),
            given_at_ms: now_us.div_euclid(1_000),
        };
        self.0.push(command.clone());
        Some(command)
    }

    /// Those that a run has not carried out, by what it reports of its breakers.
    pub fn pending(&self, breakers: &BTreeMap<String, BreakerSnapshot>) -> Vec<BreakerCommand> {
        let pending = |command: &&BreakerCommand| !command.is_done(breakers.get(&command.breaker));
        self.0.iter().filter(pending).cloned().collect()
    }

    /// All of them.
    pub fn into_all(self) -> Vec<BreakerCommand> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use redrive_shared::breaker::{Breaker, BreakerConfig};

    use super::*;

    fn wanted(breaker: &str, action: BreakerAction) -> CommandBreaker {
        CommandBreaker { agent: Name::new("a").unwrap(), breaker: breaker.into(), action, reason: None }
    }

    fn reports(breaker: &str, command: Option<i64>) -> BTreeMap<String, BreakerSnapshot> {
        let snapshot = Breaker::new(BreakerConfig::default()).unwrap().snapshot(0);
        BTreeMap::from([(breaker.to_owned(), BreakerSnapshot { command, ..snapshot })])
    }

    #[test]
    fn the_last_command_to_a_breaker_stands_until_it_is_carried_out() {
        let mut commands = Commands::default();
        let isolate = commands.give(&wanted("*", BreakerAction::Isolate), 5_000).unwrap();
        let other = commands.give(&wanted("llm", BreakerAction::Reset), 5_000).unwrap();
        assert_eq!((isolate.number, other.number, isolate.given_at_ms), (5_000, 5_001, 5));
        let again = commands.give(&wanted("*", BreakerAction::Isolate), 9_000).unwrap();
        assert_eq!(again, isolate, "the same again is the one that stands");
        assert_eq!(commands.pending(&BTreeMap::new()), [isolate.clone(), other.clone()]);
        assert_eq!(commands.pending(&reports("*", Some(isolate.number))), std::slice::from_ref(&other));
        let close = commands.give(&wanted("*", BreakerAction::Close), 1_000).unwrap();
        assert!(close.number > other.number, "also by a clock that went back");
        assert_eq!(commands.pending(&reports("*", Some(isolate.number))), [other, close]);
    }

    #[test]
    fn commands_are_bounded_and_isolations_go_last() {
        let mut commands = Commands::default();
        commands.give(&wanted("closed", BreakerAction::Close), 0).unwrap();
        for n in 1..BREAKER_COMMANDS_MAX {
            assert!(commands.give(&wanted(&format!("d{n}"), BreakerAction::Isolate), 0).is_some());
        }
        assert!(commands.give(&wanted("one more", BreakerAction::Isolate), 0).is_some());
        let before = commands.clone();
        assert!(before.0.iter().all(|command| command.breaker != "closed"));
        assert_eq!(commands.give(&wanted("too many", BreakerAction::Isolate), 0), None);
        assert_eq!(commands, before);
        assert!(commands.give(&wanted("d1", BreakerAction::Reset), 0).is_some());
    }

    #[test]
    fn what_is_kept_can_be_read() {
        let mut commands = Commands::default();
        commands.give(&wanted("*", BreakerAction::Isolate), 7).unwrap();
        let kept = serde_json::to_string(&commands).unwrap();
        assert_eq!(Commands::read(&kept).unwrap(), commands);
        assert_eq!(Commands::read("").unwrap(), Commands::default());
    }
}
