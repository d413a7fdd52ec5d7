use super::fake::Fault;
use super::*;

#[tokio::test(start_paused = true)]
async fn a_stale_lease_stops_its_handler_and_nothing_is_said_of_it() {
    let mut bench = Bench::start();
    bench.link.give([lease("a", "wait"), lease("b", "gate")]);
    bench.start_call().await;
    bench.link.lose("a");
    let held =
        |beat: &redrive_shared::wire::Heartbeat, id: &str| beat.leases.iter().any(|lease| *lease.id == *id);
    while held(&bench.heartbeat().await, "a") {}
    bench.handler.gate.notify_one();
    assert_eq!(bench.settlement().await.id.as_str(), "b");
    let (summary, _) = bench.stop().await;
    assert_eq!((summary.stopped, summary.done, summary.unsettled), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_was_called_off_is_stopped() {
    let mut bench = Bench::start();
    bench.link.give([lease("a", "wait")]);
    bench.start_call().await;
    bench.link.cancel("a");
    let free = bench.next(|event| match event {
        Event::Claim(claim) if claim.max == 4 => Some(()),
        _ => None,
    });
    free.await;
    let (summary, rest) = bench.stop().await;
    assert_eq!(summary.stopped, 1);
    assert!(!rest.iter().any(|event| matches!(event, Event::Settle(_))));
}

/// A deaf handler whose lease is not extended: how long it runs, from the claim.
async fn deaf_without_heartbeats(mut bench: Bench, task: Lease) -> (Duration, Summary) {
    let began = Instant::now();
    bench.link.ignore_heartbeats();
    bench.link.give([task]);
    bench.start_call().await;
    let ended = bench.deaf_ended().await;
    let (summary, rest) = bench.stop().await;
    if summary.stopped == 1 {
        assert!(!rest.iter().any(|event| matches!(event, Event::Settle(_))));
    }
    (ended - began, summary)
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_stop_is_dropped_when_its_lease_ends() {
    let (ran, summary) = deaf_without_heartbeats(Bench::start(), lease("a", "deaf")).await;
    // Told to stop at 28 s; 4 s of grace would be 2 s too many.
    assert!(ran > Duration::from_secs(28) && ran <= Duration::from_millis(30_001), "{ran:?}");
    assert_eq!(summary.stopped, 1);
}

#[tokio::test(start_paused = true)]
async fn the_lease_ends_a_handler_in_the_grace_of_its_time_out() {
    let task = Lease { timeout_ms: 27_500, ..lease("a", "deaf") };
    let (ran, _) = deaf_without_heartbeats(Bench::start(), task).await;
    assert!(ran > Duration::from_secs(28) && ran <= Duration::from_millis(30_001), "{ran:?}");
}

#[tokio::test(start_paused = true)]
async fn the_policys_lease_counts_when_none_is_configured() {
    let bench = Bench::start();
    bench.link.extend_by_ms(5_000);
    let task = Lease { lease_ms: 5_000, ..lease("a", "deaf") };
    let (ran, _) = deaf_without_heartbeats(bench, task).await;
    assert!(ran > Duration::from_secs(4) && ran <= Duration::from_millis(5_001), "{ran:?}");
}

#[tokio::test(start_paused = true)]
async fn work_ends_by_the_workers_own_clock_when_its_lease_cannot_be_extended() {
    let mut bench = Bench::with(|config| config.wait_ms = 500);
    let began = Instant::now();
    bench.link.give([lease("a", "wait")]);
    bench.start_call().await;
    bench.link.ignore_heartbeats();
    let free = bench.next(|event| match event {
        Event::Claim(claim) if claim.max == 4 && began.elapsed() > Duration::from_secs(1) => Some(()),
        _ => None,
    });
    free.await;
    // It ended before the lease of 30 s did.
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let (summary, rest) = bench.stop().await;
    assert_eq!(summary.stopped, 1);
    assert!(!rest.iter().any(|event| matches!(event, Event::Settle(_))));
}

#[tokio::test(start_paused = true)]
async fn leases_that_a_policy_makes_shorter_are_extended_more_often() {
    let mut bench = Bench::start();
    bench.link.extend_by_ms(2_000);
    bench.link.give([Lease { timeout_ms: 60_000, lease_ms: 2_000, ..lease("a", "wait") }]);
    bench.start_call().await;
    assert_eq!(label(&bench.settlement().await), "retry", "it was never without a lease");
    let (summary, _) = bench.stop().await;
    assert_eq!((summary.retried, summary.stopped), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_handler_has_its_time_and_no_more() {
    let mut bench = Bench::start();
    let (patient, deaf) = (lease("a", "wait"), lease("b", "deaf"));
    let began = Instant::now();
    bench.link.give([Lease { timeout_ms: 60_000, ..patient }, Lease { deadline_at_ms: 91_000, ..deaf }]);
    for (id, seconds) in [("a", 60), ("b", 94)] {
        let settlement = bench.settlement().await;
        assert_eq!((settlement.id.as_str(), began.elapsed().as_secs()), (id, seconds));
        let Outcome::Retry { failure, .. } = settlement.outcome else { panic!("a retry") };
        assert_eq!(failure.exception.is_some(), id == "b");
    }
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn running_handlers_may_end_after_a_stop_was_asked_for() {
    let mut bench = Bench::start();
    bench.link.give([lease("a", "gate")]);
    bench.start_call().await;
    bench.claim_call().await;
    bench.shutdown.cancel();
    while !bench.heartbeat().await.draining {}
    bench.handler.gate.notify_one();
    assert_eq!(label(&bench.settlement().await), "done");
    let last = bench.heartbeat().await;
    assert!(last.draining && last.in_flight == 0 && last.leases.is_empty());
    let (summary, rest) = bench.stop().await;
    assert_eq!((summary.done, summary.released), (1, 0));
    assert!(!rest.iter().any(|event| matches!(event, Event::Claim(_))), "nothing is claimed any more");
}

#[tokio::test(start_paused = true)]
async fn what_still_runs_at_the_end_of_the_drain_is_handed_back() {
    let mut bench = Bench::start();
    bench.link.give([lease("a", "wait"), lease("b", "deaf")]);
    bench.start_call().await;
    bench.claim_call().await;
    let began = Instant::now();
    let (summary, events) = bench.stop().await;
    assert_eq!(summary.released, 2);
    assert_eq!(began.elapsed(), Duration::from_secs(25) + CANCEL_GRACE);
    let settled = events.iter().filter_map(|event| match event {
        Event::Settle(request) => Some(request.settlements.iter().map(label)),
        _ => None,
    });
    assert_eq!(settled.flatten().collect::<Vec<_>>(), ["release", "release"]);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_claim_is_called_off_and_what_it_gave_all_the_same_is_handed_back() {
    let mut bench = Bench::start();
    bench.link.fail_claims([Fault::ReplyLost]);
    bench.link.give([lease("a", "done")]);
    let claim = bench.claim_call().await;
    bench.shutdown.cancel();
    let again = bench.claim_call().await;
    assert_eq!((&again.request_id, again.wait_ms), (&claim.request_id, 0));
    assert_eq!(label(&bench.settlement().await), "release");
    let (summary, _) = bench.stop().await;
    assert_eq!((summary.claimed, summary.released), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_long_poll() {
    let mut bench = Bench::start();
    bench.claim_call().await;
    let began = Instant::now();
    let (summary, _) = bench.stop().await;
    assert_eq!(summary, Summary::default());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_even_when_the_coordinator_never_comes_back() {
    let mut bench = Bench::start();
    bench.link.fail_settlements((0..10_000).map(|_| Fault::Unreachable));
    bench.link.give([lease("a", "done")]);
    bench.settle_call().await;
    let (summary, _) = bench.stop().await;
    assert_eq!((summary.done, summary.unsettled), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_configuration_does_not_start() {
    let bench = Bench::with(|config| config.concurrency = 0);
    let error = bench.worker.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("worker.concurrency"), "{error}");
}
