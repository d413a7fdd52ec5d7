//! Payloads and results that are too large for the store, and locks that are lost.

use redrive_shared::blob::BlobRef;
use redrive_shared::limits::RESULT_MAX_BYTES;

use super::*;
use crate::link::AttemptLink as _;

async fn kept(bench: &Bench, json: String) -> BlobRef {
    bench.link.attempts.upload_blob(&TaskId::new("a").unwrap(), json.into()).await.unwrap()
}

fn of_blob(blob: BlobRef) -> Lease {
    Lease { payload: RawValue::NULL.to_owned(), payload_ref: Some(blob), ..lease("a", "") }
}

#[tokio::test(start_paused = true)]
async fn a_handler_finds_the_whole_payload() {
    let mut bench = Bench::start();
    let blob = kept(&bench, "\"done\"".to_owned()).await;
    bench.link.give([of_blob(blob)]);
    assert_eq!(label(&bench.settlement().await), "done");
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_is_gone_or_garbled_fails_and_says_so() {
    for (garbled, told) in [(u32::MAX, "should have 6 bytes"), (0, "no such blob")] {
        let mut bench = Bench::start();
        let blob = kept(&bench, "\"done\"".to_owned()).await;
        bench.link.attempts.state().garbled = garbled;
        if garbled == 0 {
            bench.link.attempts.state().blobs.clear();
        }
        bench.link.give([of_blob(blob)]);
        let Outcome::Retry { failure, .. } = bench.settlement().await.outcome else { panic!("a failure") };
        assert_eq!(failure.class, Some(FailureClass::InvalidRequest));
        assert!(failure.exception.as_ref().unwrap().contains(told), "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_cannot_be_had_now_costs_no_attempt() {
    let mut bench = Bench::start();
    let blob = kept(&bench, "\"done\"".to_owned()).await;
    bench.link.attempts.state().away = u32::MAX;
    bench.link.give([of_blob(blob)]);
    assert_eq!(label(&bench.settlement().await), "release");
}

#[tokio::test(start_paused = true)]
async fn a_payload_may_come_slowly_but_not_be_silent() {
    for (pause_s, ended) in [(29, "done"), (31, "release")] {
        let mut bench = Bench::start();
        let blob = kept(&bench, "\"done\"".to_owned()).await;
        bench.link.attempts.state().pause = Duration::from_secs(pause_s);
        bench.link.give([of_blob(blob)]);
        assert_eq!(label(&bench.settlement().await), ended, "{pause_s} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_asks_to_wait_for_a_payload_is_waited_for() {
    let mut bench = Bench::start();
    let blob = kept(&bench, "\"done\"".to_owned()).await;
    (bench.link.attempts.state().busy, bench.link.attempts.state().busy_for) = (3, Duration::from_secs(50));
    let began = Instant::now();
    bench.link.give([of_blob(blob)]);
    assert_eq!(label(&bench.settlement().await), "done");
    assert!(began.elapsed() >= Duration::from_secs(150), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn finished_work_and_its_cost_outlast_storage_that_is_away_for_longer_than_the_time_out() {
    let mut bench = Bench::start();
    // About a second between tries.
    bench.link.attempts.state().away = 120;
    let began = Instant::now();
    bench.link.give([Lease { timeout_ms: 5_000, ..lease("a", "larger") }]);
    let settlement = bench.settlement().await;
    assert!(began.elapsed() > Duration::from_secs(60), "longer than a lease, too: {:?}", began.elapsed());
    let Outcome::Done { result_ref: Some(_), cost_usd, .. } = settlement.outcome else {
        panic!("{settlement:?}")
    };
    assert_eq!(cost_usd, PAID);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_cannot_be_kept_before_the_worker_ends_is_handed_back_with_its_cost() {
    for payload in ["larger", "larger, late"] {
        let mut bench = Bench::start();
        bench.link.attempts.state().away = u32::MAX;
        bench.link.give([lease("a", payload)]);
        bench.start_call().await;
        let (summary, events) = bench.stop().await;
        assert_eq!((summary.released, summary.unsettled), (1, 0), "{payload}");
        let settled = events.into_iter().find_map(|event| match event {
            Event::Settle(request) => request.settlements.into_iter().next(),
            _ => None,
        });
        assert_eq!(settled.unwrap().outcome.cost(), PAID, "{payload}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_is_kept_no_longer_than_its_lease_lasts() {
    for payload in ["larger", "larger, late"] {
        let mut bench = Bench::start();
        bench.link.attempts.state().away = u32::MAX;
        bench.link.give([Lease { timeout_ms: 5_000, ..lease("a", payload) }]);
        bench.start_call().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        bench.link.lose("a");
        let free = bench.next(|event| match event {
            Event::Claim(claim) if claim.max == 4 => Some(()),
            _ => None,
        });
        free.await;
        let (summary, rest) = bench.stop().await;
        assert_eq!(summary.stopped, 1, "{payload}");
        assert!(!rest.iter().any(|event| matches!(event, Event::Settle(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_whose_blob_is_gone_becomes_a_failure_that_says_so_and_costs_what_it_did() {
    let mut bench = Bench::start();
    bench.link.settle_gate.forget_permits(10_000);
    bench.link.give([lease("a", "larger")]);
    assert_eq!(label(&bench.settlement().await), "done");
    bench.link.attempts.state().blobs.clear();
    bench.link.settle_gate.add_permits(10_000);
    let Outcome::Retry { failure, cost_usd, .. } = bench.settlement().await.outcome else {
        panic!("a retry")
    };
    assert!(failure.exception.as_ref().unwrap().contains("unknown_blob"), "{failure:?}");
    assert_eq!(cost_usd, PAID);
    assert_eq!(bench.stop().await.0.unsettled, 0);
}

#[tokio::test(start_paused = true)]
async fn a_large_result_that_is_too_deep_or_kept_garbled_fails_and_says_so() {
    for (payload, told, uploads) in [("deep", "nested", 0), ("larger", "garbled", 3)] {
        let mut bench = Bench::start();
        bench.link.attempts.state().garbled = u32::MAX;
        bench.link.give([lease("a", payload)]);
        let Outcome::Retry { failure, .. } = bench.settlement().await.outcome else { panic!("a failure") };
        assert!(failure.exception.as_ref().unwrap().contains(told), "{failure:?}");
        assert_eq!(bench.link.attempts.state().transfers, uploads, "{payload}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_result_is_kept_and_referred_to() {
    let mut bench = Bench::start();
    bench.link.give([lease("a", "larger")]);
    let Outcome::Done { result: None, result_ref: Some(blob), .. } = bench.settlement().await.outcome else {
        panic!("a reference")
    };
    assert_eq!(blob.bytes as usize, RESULT_MAX_BYTES + 2);
    assert!(bench.link.attempts.state().blobs.contains_key(&blob.blob));
}

#[tokio::test(start_paused = true)]
async fn a_lost_lock_counts_as_a_wait_for_it() {
    let mut bench = Bench::start();
    bench.link.attempts.state().lock_lost = true;
    bench.link.give([lease("a", "lock")]);
    let Outcome::Retry { failure, .. } = bench.settlement().await.outcome else { panic!("a failure") };
    assert_eq!(failure.class, Some(FailureClass::LockTimeout));
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_left_behind_is_given_back() {
    let mut bench = Bench::start();
    bench.link.give([lease("a", "lock and go")]);
    assert_eq!(label(&bench.settlement().await), "done");
    assert_eq!(bench.link.attempts.state().released.len(), 1);
}

/// What was released after the worker was stopped, and whether the lock is held still.
async fn stopped_with_a_lock(payload: &str, ends_its_work: bool) -> (usize, bool) {
    let mut bench = Bench::start();
    bench.handler.ends_its_work.store(ends_its_work, Ordering::Relaxed);
    bench.link.give([lease("a", payload)]);
    bench.start_call().await;
    let attempts = Arc::clone(&bench.link.attempts);
    let (summary, _) = bench.stop().await;
    assert_eq!(summary.released, 1);
    let state = attempts.state();
    (state.released.len(), state.is_held(1))
}

#[tokio::test(start_paused = true)]
async fn a_stopped_handlers_locks_end_by_themselves_where_its_work_may_go_on() {
    assert_eq!(stopped_with_a_lock("lock", false).await, (0, true));
    assert_eq!(stopped_with_a_lock("lock", true).await, (1, false));
    for ends_its_work in [false, true] {
        let left = stopped_with_a_lock("lock and go on", ends_its_work).await;
        assert_eq!(left, (0, true), "it did not even return");
    }
}
