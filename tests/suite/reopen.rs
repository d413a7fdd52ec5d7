//! What is still there after the coordinator was stopped and started.

use redrive_coordinator::store::{Claim, Ending, Settled};
use redrive_shared::failure::FailureClass;
use redrive_shared::task::{Priority, TaskState, TaskView};

use crate::support::{Bed, EnqueueExt, START_MS, beat, claim_of, failure, fixed_policy, name, raw, task};

async fn snapshot(bed: &Bed) -> String {
    let mut views: Vec<TaskView> = Vec::new();
    for line in bed.everything().await {
        views.push(bed.view(&line.id).await);
    }
    let queues = bed.queues().await.unwrap();
    serde_json::to_string_pretty(&(views, queues, bed.agents().await.unwrap())).unwrap()
}

pub async fn everything_is_still_there(mut bed: Bed) {
    bed.put_queue(&name("paused"), fixed_policy(5)).await.unwrap();
    bed.pause(&name("paused"), true).await.unwrap();
    bed.heartbeat(beat("a", "a-1")).await.unwrap();
    let labelled = |text: &str| {
        let mut given = task(text).payload("{ \"x\" : 1 }").group("g").needs("dep").priority(Priority::Low);
        given.spec.labels.insert("k".into(), "v".into());
        given
    };
    bed.put_all((0..6).map(|number| labelled(&format!("t{number}"))).collect()).await;
    bed.put(labelled("waiting").on("paused").failed(failure(FailureClass::RateLimited))).await;
    let leases = bed.take(5).await;
    bed.finish(&leases[0], Ending::Done(Some(raw("[1]").into()))).await;
    bed.finish(&leases[1], Ending::Failed(failure(FailureClass::ServerError))).await;
    bed.finish(&leases[2], Ending::NeedsPerson(failure(FailureClass::Auth))).await;
    bed.start(&leases[3]).await;
    bed.cancel_one("t5").await;
    let before = snapshot(&bed).await;
    bed.reopen().await;
    assert_eq!(snapshot(&bed).await, before);
    bed.assert_counts_are_right().await;
}

pub async fn lanes_are_claimed_as_before(mut bed: Bed) {
    bed.put_all(vec![
        task("n2").delay(20),
        task("n1").delay(10),
        task("h").priority(Priority::High).delay(20),
        task("later").delay(9_000),
        task("sick").needs("dep"),
    ])
    .await;
    bed.reopen().await;
    let avoid = vec![name("dep")];
    let early = bed.claim_one(Claim { avoid: avoid.clone(), ..claim_of(9) }).await;
    assert_eq!((early.leases.len(), early.next_due_ms), (0, Some(START_MS + 10)));
    bed.advance(20);
    let claimed = bed.claim_one(Claim { avoid, ..claim_of(9) }).await;
    assert_eq!(claimed.next_due_ms, Some(START_MS + 9_000));
    bed.assert_order(claimed.leases.iter().map(|lease| lease.id.to_string()).collect(), &["h", "n1", "n2"]);
    bed.reopen().await;
    assert_eq!(bed.take_ids(9).await, ["sick"]);
}

pub async fn leases_hold_and_end_as_before(mut bed: Bed) {
    bed.put_all(vec![task("a"), task("b")]).await;
    let leases = bed.take(2).await;
    bed.start(&leases[1]).await;
    bed.reopen().await;
    assert_eq!(bed.finish(&leases[0], Ending::Done(None)).await.0, TaskState::Succeeded);
    bed.advance(30_000);
    bed.reopen().await;
    // Its worker may have had nobody to report to: it gets a moment.
    let early = bed.reap(9).await.unwrap();
    assert_eq!((early.reaped.len(), early.next_ms), (0, Some(bed.now_ms() + 10_000)));
    bed.advance(10_000);
    let round = bed.reap(9).await.unwrap();
    assert_eq!((round.reaped.len(), round.reaped[0].started), (1, true));
    assert_eq!(bed.settle_one(&leases[1], Ending::Done(None)).await, Settled::Stale(TaskState::Scheduled));
    let again = bed.settle_one(&leases[0], Ending::Done(None)).await;
    assert!(matches!(again, Settled::Repeated { state: TaskState::Succeeded, .. }));
}

pub async fn a_repeated_request_still_gets_its_leases(mut bed: Bed) {
    bed.put(task("t")).await;
    let request = Claim { request_id: Some(name("r-1")), ..claim_of(1) };
    let before = bed.claim_one(request.clone()).await.leases.remove(0);
    bed.reopen().await;
    let after = bed.claim_one(request).await.leases.remove(0);
    assert_eq!((before.epoch, before.nonce), (after.epoch, after.nonce));
}

pub async fn a_paused_queue_stays_paused(mut bed: Bed) {
    bed.put(task("t")).await;
    bed.pause(&name("default"), true).await.unwrap();
    bed.reopen().await;
    assert!(bed.take(1).await.is_empty());
    assert!(bed.queue("default").await.paused);
}

pub async fn gates_are_still_there(mut bed: Bed) {
    bed.swap_gates(vec![super::gates::swap("d", 0, "v")]).await.unwrap();
    let before = bed.gates(0).await.unwrap().expect("none was seen");
    bed.reopen().await;
    assert_eq!(bed.gates(before.change).await.unwrap(), None);
    assert_eq!(bed.gates(0).await.unwrap(), Some(before));
}
