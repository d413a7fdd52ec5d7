//! A value that a newer release wrote in a form that this one does not know: it is left alone, and holds up no other.
//! (Values with more fields in the known form are in the model's tests.)

use redrive_coordinator::store::{Acted, Ending, Enqueued, StoreError};
use redrive_shared::task::TaskState;

use crate::model::NEWER_RELEASE;
use crate::support::redis::RedisServer;
use crate::support::{Bed, EnqueueExt, RedisBackend, id, ids, task};

/// Changes the version of a task's value.
async fn set_version(redis: &RedisServer, task: &str, version: &str) {
    redis.command(&["SETRANGE", &format!("rd:{{0}}:t:{task}"), "0", version]).await;
}

async fn bed() -> (RedisServer, Bed) {
    let redis = RedisServer::start().await;
    let bed = Bed::new(RedisBackend::at(&redis.url(), "rd", 1)).await;
    (redis, bed)
}

#[tokio::test]
async fn a_waiting_task_of_a_newer_version_is_put_off_and_holds_up_no_other() {
    let (redis, bed) = bed().await;
    bed.put_all(["first", "newer", "second"].map(task).to_vec()).await;
    set_version(&redis, "newer", "\u{2}").await;
    assert_eq!(bed.take_ids(9).await, ["first", "second"]);
    assert_eq!(bed.take_ids(9).await, [""; 0], "it does not come at once again");
    bed.advance(40_000);
    assert_eq!(bed.reap(9).await.unwrap().reaped.len(), 2, "it is put off where it is");
    set_version(&redis, "newer", "\u{1}").await;
    bed.advance(60_000);
    let reaped = bed.reap(9).await.unwrap().reaped;
    assert_eq!(reaped.iter().map(|lost| &*lost.id).collect::<Vec<_>>(), ["newer"], "it is not lost");
}

#[tokio::test]
async fn no_duty_is_held_up_by_a_task_of_a_newer_version() {
    let (redis, bed) = bed().await;
    let all = ["held", "held-newer", "done", "done-newer", "late", "late-newer"];
    let deadline = |text: &str| {
        if text.starts_with("late") { task(text).delay(5_000).deadline(20_000) } else { task(text) }
    };
    bed.put_all(all.map(deadline).to_vec()).await;
    for lease in bed.take(9).await {
        if lease.id.starts_with("done") {
            bed.finish(&lease, Ending::Done(None)).await;
        }
    }
    for newer in all.into_iter().filter(|text| text.ends_with("newer")) {
        set_version(&redis, newer, "\u{2}").await;
    }
    bed.advance(30_000);
    let round = bed.reap(10).await.unwrap();
    assert_eq!(round.reaped.iter().map(|lost| &*lost.id).collect::<Vec<_>>(), ["held"]);
    assert_eq!(round.too_late, ids(&["late"]));
    assert!(round.next_ms.is_none_or(|next_ms| next_ms > bed.now_ms()), "not at once again");
    let listed: Vec<String> = bed.everything().await.iter().map(|view| view.id.to_string()).collect();
    assert_eq!(listed, ["late", "done", "held"], "lists leave it out");
    bed.advance(1_000_000_000);
    assert_eq!(bed.forget(10).await.unwrap(), 1);
    for newer in all.into_iter().filter(|text| text.ends_with("newer")) {
        set_version(&redis, newer, "\u{1}").await;
    }
    bed.advance(60_000);
    assert_eq!(bed.forget(10).await.unwrap(), 1);
    assert_eq!(bed.reap(10).await.unwrap().reaped.len(), 1);
    assert_eq!(bed.state("late-newer").await, TaskState::Escalated);
}

#[tokio::test]
async fn a_task_of_a_newer_version_is_refused_clearly_where_it_is_named() {
    let (redis, bed) = bed().await;
    bed.put_all(["newer", "known"].map(task).to_vec()).await;
    set_version(&redis, "newer", "\u{2}").await;
    let StoreError::Corrupt(said) = bed.get(&id("newer")).await.unwrap_err() else {
        panic!("it is unreadable")
    };
    assert!(said.contains("newer") && said.contains("version 2; this release reads version 1"), "{said}");
    assert_eq!(bed.cancel(ids(&["newer"]), None).await.unwrap(), [Acted::Unreadable]);
    assert_eq!(bed.retry(ids(&["newer"]), None).await.unwrap(), [Acted::Unreadable]);
    assert_eq!(bed.enqueue(vec![task("newer")]).await.unwrap(), [Enqueued::Unreadable]);
    assert_eq!(bed.status(ids(&["newer", "known"])).await.unwrap().len(), 1);
    set_version(&redis, "newer", "\u{1}").await;
    assert_eq!(bed.view("newer").await.runs, 0, "nothing has changed");
}

#[tokio::test]
async fn a_long_history_is_cut_and_a_newer_release_s_fields_stay() {
    let (redis, bed) = bed().await;
    bed.put(task("t")).await;
    redis.command(&["EVAL", NEWER_RELEASE, "1", "rd:{0}:t:"]).await;
    let before = bed.view("t").await;
    for _ in 0..80 {
        let lease = bed.take_one().await;
        bed.finish(&lease, Ending::Snoozed { delay_ms: 0 }).await;
    }
    let after = bed.view("t").await;
    assert_eq!((after.runs, after.history.len()), (80, 50));
    let payload =
        |view: &redrive_shared::task::TaskView| view.payload.as_ref().map(|json| json.get().to_owned());
    assert_eq!(payload(&after), payload(&before));
    let value = redis.command(&[
        "EVAL",
        "return string.find(redis.call('GET', KEYS[1]), '\\160\\006\\001', 1, true)",
        "1",
        "rd:{0}:t:t",
    ]);
    assert_ne!(value.await, "(nil)", "what never changes has kept its unknown field");
}
