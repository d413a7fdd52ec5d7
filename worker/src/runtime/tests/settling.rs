use super::fake::Fault;
use redrive_shared::error::ErrorCode;

use super::*;

#[tokio::test(start_paused = true)]
async fn outcomes_gather_while_a_call_is_under_way() {
    let mut bench = Bench::with(|config| config.concurrency = 100);
    bench.link.settle_gate.forget_permits(10_000);
    bench.link.give([lease("first", "done")]);
    assert_eq!(bench.settlement().await.id.as_str(), "first");
    bench.link.give((0..50).map(|n| lease(&format!("t{n}"), "done")));
    bench.start_call().await;
    // The slots of those that wait for the settler are free for others.
    let free = bench.next(|event| match event {
        Event::Claim(claim) if claim.max == 100 => Some(claim.max),
        _ => None,
    });
    free.await;
    bench.link.settle_gate.add_permits(10_000);
    assert_eq!(bench.settle_call().await.settlements.len(), 50);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_outcome_outlasts_a_coordinator_that_is_away_and_its_lease_is_kept() {
    let mut bench = Bench::start();
    bench
        .link
        .fail_settlements((0..40).map(|n| if n % 2 == 0 { Fault::Unreachable } else { Fault::ReplyLost }));
    bench.link.give([lease("a", "done")]);
    let mut kept = false;
    for _ in 0..41 {
        let settlement = bench
            .next(|event| match event {
                Event::Settle(mut request) => request.settlements.pop(),
                Event::Heartbeat(beat) => {
                    kept |= beat.leases.iter().any(|lease| lease.id.as_str() == "a");
                    None
                }
                _ => None,
            })
            .await;
        assert_eq!((settlement.id.as_str(), label(&settlement)), ("a", "done"));
    }
    assert!(kept, "it is extended while its outcome is on the way");
    let (summary, rest) = bench.stop().await;
    assert_eq!((summary.done, summary.unsettled), (1, 0));
    assert!(!rest.iter().any(|event| matches!(event, Event::Settle(_))), "the answer ends it");
}

#[tokio::test(start_paused = true)]
async fn a_stale_outcome_is_dropped() {
    let mut bench = Bench::start();
    bench.link.give([lease("a", "gate")]);
    bench.start_call().await;
    bench.link.lose("a");
    bench.handler.gate.notify_one();
    assert_eq!(label(&bench.settlement().await), "done");
    let (summary, rest) = bench.stop().await;
    assert_eq!(summary.unsettled, 1);
    assert!(!rest.iter().any(|event| matches!(event, Event::Settle(_))));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_refused_becomes_a_failure_that_says_so() {
    let mut bench = Bench::start();
    bench.link.refuse_outcome("a", ErrorCode::PayloadTooLarge);
    bench.link.give([lease("a", "done")]);
    assert_eq!(label(&bench.settlement().await), "done");
    let Outcome::Retry { failure, .. } = bench.settlement().await.outcome else { panic!("a retry") };
    assert!(failure.exception.unwrap().contains("payload_too_large"));
    let (summary, _) = bench.stop().await;
    assert_eq!(summary.unsettled, 0);
}

#[tokio::test(start_paused = true)]
async fn one_outcome_that_sinks_its_batch_does_not_take_the_others_along() {
    let mut bench = Bench::with(|config| config.concurrency = 4);
    bench.link.settle_gate.forget_permits(10_000);
    bench.link.give([lease("first", "done")]);
    bench.settle_call().await;
    bench.link.give(["a", "b", "c"].map(|id| lease(id, "done")));
    bench.start_call().await;
    bench.claim_call().await;
    // "first" is taken; then the batch of three, two of it and one of it are refused as wholes.
    bench.link.settle_gate.add_permits(1);
    assert_eq!(bench.settle_call().await.settlements.len(), 3);
    bench.link.fail_settlements([(); 3].map(|()| Fault::Refused(ErrorCode::InvalidValue)));
    bench.link.settle_gate.add_permits(10_000);
    let mut calls = Vec::new();
    for _ in 0..4 {
        calls.push(bench.settle_call().await.settlements);
    }
    assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1, 2]);
    assert_eq!((calls[1][0].id.as_str(), label(&calls[1][0])), ("a", "done"));
    assert_eq!((calls[2][0].id.as_str(), label(&calls[2][0])), ("a", "retry"), "only that one is replaced");
    assert!(calls[3].iter().all(|settlement| label(settlement) == "done"));
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_call_is_larger_than_a_body_may_be() {
    let mut bench = Bench::with(|config| config.concurrency = 40);
    bench.link.give((0..40).map(|n| lease(&format!("t{n}"), "large")));
    let mut settled = 0;
    while settled < 40 {
        let request = bench.settle_call().await;
        settled += request.settlements.len();
        assert!(serde_json::to_vec(&request).unwrap().len() <= redrive_shared::limits::BODY_MAX_BYTES);
    }
    bench.stop().await;
}
