//! `command_breaker`: what a person wants of a breaker stands beside the agent's heartbeats until it was carried out.

use std::collections::BTreeMap;

use redrive_coordinator::store::CommandBreaker;
use redrive_shared::breaker::{Breaker, BreakerConfig, BreakerSnapshot};
use redrive_shared::limits::{AGENT_REMEMBERED_MS, BREAKER_COMMANDS_MAX};
use redrive_shared::wire::{BreakerAction, BreakerCommand, Heartbeat};

use crate::support::{Bed, beat, name};

fn wanted(agent: &str, breaker: &str, action: BreakerAction) -> CommandBreaker {
    let reason = Some("its key was revoked".to_owned());
    CommandBreaker { agent: name(agent), breaker: breaker.to_owned(), action, reason }
}

async fn give(bed: &Bed, agent: &str, breaker: &str, action: BreakerAction) -> BreakerCommand {
    bed.command_breaker(wanted(agent, breaker, action)).await.unwrap().expect("there is a place for it")
}

/// A heartbeat in which a breaker says which command it has carried out last.
fn obeyed(boot_id: &str, breaker: &str, command: &BreakerCommand) -> Heartbeat {
    let snapshot = Breaker::new(BreakerConfig::default()).unwrap().snapshot(0);
    let snapshot = BreakerSnapshot { command: Some(command.number), ..snapshot };
    Heartbeat { breakers: BTreeMap::from([(breaker.to_owned(), snapshot)]), ..beat("a", boot_id) }
}

async fn heard(bed: &Bed, beat: Heartbeat) -> Vec<BreakerCommand> {
    bed.heartbeat(beat).await.unwrap().commands
}

pub async fn a_command_is_handed_over_until_it_was_carried_out(bed: Bed) {
    assert!(heard(&bed, beat("a", "a-1")).await.is_empty());
    let command = give(&bed, "a", "*", BreakerAction::Isolate).await;
    assert_eq!((command.action, command.breaker.as_str()), (BreakerAction::Isolate, "*"));
    assert_eq!(command.reason.as_deref(), Some("its key was revoked"));
    assert_eq!(command.given_at_ms, bed.now_ms());
    assert_eq!(heard(&bed, beat("a", "a-1")).await, std::slice::from_ref(&command));
    assert_eq!(
        heard(&bed, beat("a", "a-1")).await,
        std::slice::from_ref(&command),
        "the reply may have been lost"
    );
    assert!(heard(&bed, obeyed("a-1", "*", &command)).await.is_empty());
    assert!(heard(&bed, beat("b", "b-1")).await.is_empty(), "it is another's");
    let agents = bed.agents().await.unwrap();
    assert_eq!(agents[0].breaker_commands, [command]);
    assert!(agents[1].breaker_commands.is_empty());
}

pub async fn the_same_command_again_is_the_one_that_stands(bed: Bed) {
    heard(&bed, beat("a", "a-1")).await;
    let first = give(&bed, "a", "*", BreakerAction::Isolate).await;
    bed.advance(1_000);
    assert_eq!(give(&bed, "a", "*", BreakerAction::Isolate).await, first);
    let close = give(&bed, "a", "*", BreakerAction::Close).await;
    assert!(close.number > first.number);
    assert_eq!(heard(&bed, obeyed("a-1", "*", &first)).await, [close], "the last one stands");
}

pub async fn each_breaker_has_its_own_command(bed: Bed) {
    heard(&bed, beat("a", "a-1")).await;
    let own = give(&bed, "a", "*", BreakerAction::Reset).await;
    let other = give(&bed, "a", "llm/x", BreakerAction::Isolate).await;
    assert_eq!(heard(&bed, beat("a", "a-1")).await, [own.clone(), other.clone()]);
    assert_eq!(heard(&bed, obeyed("a-1", "*", &own)).await, [other]);
}

pub async fn every_run_of_the_agent_hears_it_and_one_that_starts_later_too(bed: Bed) {
    heard(&bed, beat("a", "a-1")).await;
    let command = give(&bed, "a", "*", BreakerAction::Isolate).await;
    assert!(heard(&bed, obeyed("a-1", "*", &command)).await.is_empty());
    assert_eq!(heard(&bed, beat("a", "a-2")).await, [command], "an isolation outlives a restart");
}

pub async fn commands_given_at_once_are_all_kept(bed: Bed) {
    heard(&bed, beat("a", "a-1")).await;
    let names: Vec<String> = (0..8).map(|n| format!("d{n}")).collect();
    let gives = names.iter().map(|breaker| give(&bed, "a", breaker, BreakerAction::Isolate));
    let given = futures_util::future::join_all(gives).await;
    let mut numbers: Vec<i64> = given.iter().map(|command| command.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 8, "no two are one");
    assert_eq!(heard(&bed, beat("a", "a-1")).await.len(), 8);
}

pub async fn commands_are_bounded(bed: Bed) {
    heard(&bed, beat("a", "a-1")).await;
    for n in 0..BREAKER_COMMANDS_MAX {
        give(&bed, "a", &format!("d{n}"), BreakerAction::Isolate).await;
    }
    let refused = bed.command_breaker(wanted("a", "more", BreakerAction::Isolate)).await.unwrap();
    assert_eq!(refused, None);
    assert_eq!(heard(&bed, beat("a", "a-1")).await.len(), BREAKER_COMMANDS_MAX);
    give(&bed, "a", "d0", BreakerAction::Close).await;
    give(&bed, "a", "more", BreakerAction::Isolate).await;
}

pub async fn commands_stand_until_the_agent_is_forgotten(bed: Bed) {
    heard(&bed, beat("a", "a-1")).await;
    heard(&bed, beat("b", "b-1")).await;
    let command = give(&bed, "a", "*", BreakerAction::Isolate).await;
    let others = give(&bed, "b", "*", BreakerAction::Isolate).await;
    bed.advance(20_000);
    bed.reap(10).await.unwrap();
    assert_eq!(heard(&bed, beat("b", "b-1")).await, std::slice::from_ref(&others));
    bed.advance(AGENT_REMEMBERED_MS as i64 - 30_000);
    bed.forget(10).await.unwrap();
    assert_eq!(
        heard(&bed, beat("a", "a-2")).await,
        [command],
        "it is remembered, and so is what was wanted of it"
    );
    bed.advance(20_000);
    bed.reap(10).await.unwrap();
    heard(&bed, beat("b", "b-1")).await;
    bed.advance(AGENT_REMEMBERED_MS as i64 + 1);
    heard(&bed, beat("b", "b-1")).await;
    bed.forget(10).await.unwrap();
    assert!(heard(&bed, beat("a", "a-3")).await.is_empty(), "nobody remembers the agent");
    assert_eq!(heard(&bed, beat("b", "b-1")).await, [others]);
}

pub async fn commands_are_still_there_when_the_store_is_opened_again(mut bed: Bed) {
    heard(&bed, beat("a", "a-1")).await;
    let command = give(&bed, "a", "*", BreakerAction::Isolate).await;
    bed.reopen().await;
    assert_eq!(heard(&bed, beat("a", "a-1")).await, [command]);
}
