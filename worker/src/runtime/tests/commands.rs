//! What heartbeats' replies bring for the breakers: what a person wants, and what other runs of the agent took with them.

use redrive_shared::breaker::BreakerState;
use redrive_shared::limits::HEARTBEAT_INTERVAL_MS;
use redrive_shared::wire::{BreakerAction, ClaimRequest, OWN_BREAKER, WorkerLost};

use super::fake::Fault;
use super::*;

fn command(number: i64, breaker: &str, action: BreakerAction) -> BreakerCommand {
    BreakerCommand { number, breaker: breaker.to_owned(), action, reason: None, given_at_ms: 0 }
}

/// The next heartbeat that says that this command was carried out on this breaker.
async fn obeyed(bench: &mut Bench, breaker: &str, number: i64) -> BreakerState {
    bench
        .next(|event| match event {
            Event::Heartbeat(beat) => {
                let now = beat.breakers.get(breaker)?;
                (now.command == Some(number)).then_some(now.state)
            }
            _ => None,
        })
        .await
}

/// The next claim that waits.
async fn waiting_claim(bench: &mut Bench) -> ClaimRequest {
    bench
        .next(|event| match event {
            Event::Claim(claim) => (claim.wait_ms > 0).then_some(claim),
            _ => None,
        })
        .await
}

#[tokio::test(start_paused = true)]
async fn an_isolated_agent_takes_nothing_until_it_is_closed() {
    let mut bench = Bench::start();
    bench.link.give([lease("before", "gate")]);
    bench.start_call().await;
    bench.link.command([command(1, "*", BreakerAction::Isolate)]);
    assert_eq!(obeyed(&mut bench, "*", 1).await, BreakerState::Isolated);
    // The claim that waited is asked for what it was given meanwhile, and then there is none.
    let last = bench.claim_call().await;
    assert_eq!(last.wait_ms, 0);
    bench.link.give([lease("meanwhile", "done")]);
    for _ in 0..3 {
        bench.heartbeat().await;
    }
    bench.handler.gate.notify_one();
    let ended = bench.settlement().await;
    assert_eq!((ended.id.as_str(), label(&ended)), ("before", "done"), "what runs goes on");

    bench.link.command([command(2, "*", BreakerAction::Close)]);
    assert_eq!(obeyed(&mut bench, "*", 2).await, BreakerState::Closed);
    let ended = bench.settlement().await;
    assert_eq!((ended.id.as_str(), label(&ended)), ("meanwhile", "done"));
    let (summary, _) = bench.stop().await;
    assert_eq!((summary.done, summary.released), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_was_isolated_before_it_started_asks_for_nothing() {
    let mut bench = Bench::start();
    // The worker runs only when this test waits: its first heartbeat finds the command.
    bench.link.command([command(1, "*", BreakerAction::Isolate)]);
    let mut states = Vec::new();
    let seen = bench.next(|event| match event {
        Event::Heartbeat(beat) => {
            states.push(beat.breakers["*"].state);
            (states.len() == 4).then(|| states.clone())
        }
        Event::Claim(claim) => panic!("it asks for work: {claim:?}"),
        _ => None,
    });
    let isolated = BreakerState::Isolated;
    assert_eq!(seen.await, [BreakerState::Closed, isolated, isolated, isolated]);
    assert_eq!(bench.stop().await.0.claimed, 0);
}

#[tokio::test(start_paused = true)]
async fn what_an_isolated_agent_was_given_and_has_not_begun_goes_back() {
    let mut bench = Bench::start();
    // Its start is put off for longer than a heartbeat takes, which brings the isolation.
    bench.link.fail_starts([Fault::Busy(2 * HEARTBEAT_INTERVAL_MS)]);
    bench.link.give([lease("t", "done")]);
    bench.start_call().await;
    bench.link.command([command(1, "*", BreakerAction::Isolate)]);
    let ended = bench.settlement().await;
    assert_eq!((ended.id.as_str(), label(&ended)), ("t", "release"), "no attempt is charged");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn claims_avoid_an_isolated_dependency_at_once_and_until_it_is_reset() {
    let mut bench = Bench::start();
    assert!(waiting_claim(&mut bench).await.avoid.is_empty());
    bench.link.command([command(1, "openai/a/gpt", BreakerAction::Isolate)]);
    assert_eq!(obeyed(&mut bench, "openai/a/gpt", 1).await, BreakerState::Isolated);
    let claim = bench.next(|event| match event {
        Event::Claim(claim) => (!claim.avoid.is_empty()).then_some(claim),
        _ => None,
    });
    assert_eq!(claim.await.avoid[0].as_str(), "openai/a/gpt");
    bench.link.command([command(2, "openai/a/gpt", BreakerAction::Reset)]);
    assert_eq!(obeyed(&mut bench, "openai/a/gpt", 2).await, BreakerState::Closed);
    let claim = bench.next(|event| match event {
        Event::Claim(claim) => (claim.avoid.is_empty() && claim.wait_ms > 0).then_some(claim),
        _ => None,
    });
    claim.await;
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_other_runs_that_vanished_open_the_breaker_and_the_claim_that_waits_is_withdrawn() {
    let mut bench = Bench::start();
    assert!(waiting_claim(&mut bench).await.wait_ms > 0);
    let lost = |number| WorkerLost { number, breaker: OWN_BREAKER.to_owned(), count: 3, age_ms: 1_000 };
    bench.link.tell_of([lost(1), lost(2)]);
    // It is asked for what it was given meanwhile, and then there is none.
    let withdrawn = bench.next(|event| match event {
        Event::Claim(claim) => (claim.wait_ms == 0).then_some(()),
        _ => None,
    });
    withdrawn.await;
    bench.link.give([lease("later", "done")]);
    for _ in 0..3 {
        let own = bench.heartbeat().await.breakers[OWN_BREAKER];
        assert_eq!((own.state, own.openings), (BreakerState::Open, 1), "each counts once");
    }
    // What it was told of is still told, and was counted.
    bench.link.command([command(1, OWN_BREAKER, BreakerAction::Reset)]);
    assert_eq!(obeyed(&mut bench, OWN_BREAKER, 1).await, BreakerState::Closed);
    let ended = bench.settlement().await;
    assert_eq!((ended.id.as_str(), label(&ended)), ("later", "done"));
    let (summary, _) = bench.stop().await;
    assert_eq!((summary.done, summary.released), (1, 0));
}
