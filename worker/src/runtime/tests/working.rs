use super::fake::Fault;
use redrive_shared::error::ErrorCode;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_task_is_claimed_started_run_and_settled() {
    let mut bench = Bench::start();
    let claim = bench.claim_call().await;
    assert_eq!((claim.max, claim.wait_ms, claim.lease_ms), (4, 30_000, None), "the queue's policy decides");
    bench.link.give([lease("a", "done"), lease("b", "fail")]);
    assert_eq!(bench.start_call().await.leases.len(), 2, "one call starts the batch");
    let mut settled = Vec::new();
    while settled.len() < 2 {
        settled.extend(bench.settle_call().await.settlements);
    }
    settled.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(settled.iter().map(label).collect::<Vec<_>>(), ["done", "retry"]);
    let (summary, _) = bench.stop().await;
    assert_eq!(summary, Summary { claimed: 2, done: 1, retried: 1, ..Summary::default() });
}

#[tokio::test(start_paused = true)]
async fn no_more_is_claimed_than_there_are_free_slots() {
    let mut bench = Bench::with(|config| config.concurrency = 3);
    assert_eq!(bench.claim_call().await.max, 3);
    bench.link.give([lease("a", "gate"), lease("b", "gate")]);
    assert_eq!(bench.claim_call().await.max, 1);
    bench.link.give([lease("c", "gate")]);
    assert_eq!(bench.start_call().await.leases.len(), 2);
    assert_eq!(bench.start_call().await.leases.len(), 1);
    bench.handler.gate.notify_one();
    assert_eq!(bench.claim_call().await.max, 1, "a slot is free again");
    bench.handler.gate.notify_waiters();
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failed_attempt_and_the_worker_goes_on() {
    let mut bench = Bench::start();
    bench.link.give([lease("a", "panic")]);
    let Outcome::Retry { failure, .. } = bench.settlement().await.outcome else { panic!("a retry") };
    assert_eq!(failure.exception.as_deref(), Some("the handler panicked: on demand"));
    bench.link.give([lease("b", "done")]);
    assert_eq!(label(&bench.settlement().await), "done");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_reply_was_lost_is_repeated_with_its_id() {
    let mut bench = Bench::start();
    bench.link.fail_claims([Fault::ReplyLost, Fault::ReplyLost, Fault::Unreachable]);
    bench.link.give([lease("a", "done")]);
    let first = bench.claim_call().await;
    let second = bench.claim_call().await;
    assert_eq!((&second.request_id, second.max, second.wait_ms), (&first.request_id, first.max, 0));
    assert_eq!(bench.claim_call().await.request_id, first.request_id);
    // The third was not carried out for sure.
    assert_ne!(bench.claim_call().await.request_id, first.request_id);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn leases_of_a_lost_reply_are_run() {
    let mut bench = Bench::start();
    bench.link.fail_claims([Fault::ReplyLost]);
    bench.link.give([lease("a", "done")]);
    assert_eq!(label(&bench.settlement().await), "done");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_is_away_or_refuses_does_not_end_the_worker() {
    let mut bench = Bench::start();
    let refusals = [ErrorCode::UnknownQueue, ErrorCode::Overloaded, ErrorCode::StoreUnavailable];
    bench.link.fail_claims((0..50).map(|_| Fault::Unreachable).chain(refusals.map(Fault::Refused)));
    bench.link.give([lease("a", "done")]);
    assert_eq!(label(&bench.settlement().await), "done");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_is_repeated() {
    let mut bench = Bench::start();
    bench.link.fail_starts([Fault::Unreachable, Fault::ReplyLost]);
    bench.link.give([lease("a", "done")]);
    for _ in 0..3 {
        assert_eq!(bench.start_call().await.leases[0].id.as_str(), "a");
    }
    assert_eq!(label(&bench.settlement().await), "done");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_over_before_it_starts_is_not_run() {
    let mut bench = Bench::start();
    bench.link.lose("a");
    bench.link.give([lease("a", "done"), lease("b", "done")]);
    assert_eq!(bench.settlement().await.id.as_str(), "b");
    assert_eq!(bench.claim_call().await.max, 4, "its slot is free again");
    let (summary, _) = bench.stop().await;
    assert_eq!((summary.claimed, summary.done, summary.unsettled), (2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_stops_claims_until_one_probe_has_passed() {
    let mut bench = Bench::with(|config| config.breaker.open_jitter = 0.0);
    for n in 0..6 {
        bench.link.give([lease(&format!("f{n}"), "fail")]);
        assert_eq!(label(&bench.settlement().await), "retry");
    }
    let beat = bench.next(|event| match event {
        Event::Heartbeat(beat) if beat.breakers["*"].trips > 0 => Some(beat),
        _ => None,
    });
    assert_eq!(beat.await.breakers["*"].state, breaker::BreakerState::Open);
    // What a claim that was still waiting brings is handed back.
    bench.link.give([lease("late", "done")]);
    assert_eq!(label(&bench.settlement().await), "release");
    bench.clock.advance_ms(30_000);
    let probe = bench.claim_call().await;
    assert_eq!(probe.max, 1);
    bench.link.give([lease("probe", "gate"), lease("more", "done")]);
    assert_eq!(bench.start_call().await.leases.len(), 1);
    bench.handler.gate.notify_one();
    let next = bench.claim_call().await;
    assert_eq!(next.max, 4, "the probe has closed it");
    let (summary, _) = bench.stop().await;
    assert_eq!((summary.retried, summary.released), (6, 1));
}

#[tokio::test(start_paused = true)]
async fn a_broken_dependency_is_avoided_and_probed() {
    let mut bench = Bench::with(|config| config.breaker.open_jitter = 0.0);
    let of = |id: &str, payload| {
        let dependency = Name::new("openai/a/gpt").ok();
        Lease { dependency, ..lease(id, payload) }
    };
    for n in 0..10 {
        bench.link.give([lease(&format!("ok{n}"), "done")]);
        bench.settlement().await;
    }
    for n in 0..6 {
        bench.link.give([of(&format!("f{n}"), "fail")]);
        bench.settlement().await;
    }
    // The claim that was waiting when the breaker opened did not avoid it yet.
    bench.link.give([of("late", "done")]);
    assert_eq!(label(&bench.settlement().await), "release");
    let claim = bench.next(|event| match event {
        Event::Claim(claim) if !claim.avoid.is_empty() => Some(claim),
        _ => None,
    });
    let claim = claim.await;
    assert_eq!((claim.avoid[0].as_str(), claim.max, claim.wait_ms), ("openai/a/gpt", 4, 30_000));
    bench.clock.advance_ms(30_000);
    bench.link.give([of("probe", "gate"), of("second", "done")]);
    assert_eq!(bench.settlement().await.id.as_str(), "second", "one probe at a time");
    bench.handler.gate.notify_one();
    assert_eq!(label(&bench.settlement().await), "done");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn presence_is_opened_again_when_it_breaks() {
    let mut bench = Bench::start();
    bench.link.break_presence(3);
    for _ in 0..4 {
        bench.next(|event| matches!(event, Event::Presence).then_some(())).await;
    }
    bench.stop().await;
}
