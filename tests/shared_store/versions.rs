//! A value that a newer release wrote in a form that this one does not know: it is left alone, and holds up no other.
//! (Values with more fields in the known form are in the model's tests.)

use redrive_coordinator::store::{Acted, Ending, Enqueued, Restriction, StoreError};
use redrive_shared::failure::FailureClass;
use redrive_shared::task::TaskState;

use crate::model::NEWER_RELEASE;
use crate::support::redis::RedisServer;
use crate::support::{Bed, EnqueueExt, RedisBackend, claim_of, failure, id, ids, of_dependency, task};

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

/// What a release scheduled that did not tell retries apart: its records do not say where they wait, and they wait with all
/// others.
const BEFORE_LANES_OF_RETRIES: &str = r"
local shard, lane = KEYS[1], '1|default|d|'
local index, bounds = shard .. 'L:1|default', shard .. 'D'
local waiting = redis.call('ZRANGE', shard .. 'l:' .. lane .. '|r', 0, -1, 'WITHSCORES')
for i = 1, #waiting, 2 do
  local key = shard .. 't:' .. waiting[i]
  local value = redis.call('GET', key)
  local record = struct.unpack('>I2', value, 35)
  local ends = 50 + record
  if string.sub(value, ends - 1, ends) ~= '\88\1' then return 'it is not said where it waits' end
  redis.call('SET', key, string.sub(value, 1, 34) .. struct.pack('>I2', record - 2)
    .. string.sub(value, 37, ends - 2) .. string.sub(value, ends + 1))
  redis.call('ZADD', shard .. 'l:' .. lane, waiting[i + 1], waiting[i])
end
redis.call('DEL', shard .. 'l:' .. lane .. '|r')
redis.call('ZADD', index, waiting[2], 'd|')
redis.call('ZREM', index, 'd||r')
redis.call('ZADD', bounds, redis.call('ZSCORE', bounds, lane .. '|r'), lane)
redis.call('ZREM', bounds, lane .. '|r')
return #waiting / 2";

#[tokio::test]
async fn a_retry_that_an_older_release_scheduled_waits_with_all_others_until_it_is_scheduled_again() {
    let (redis, bed) = bed().await;
    let all = ["given", "called-off", "hurried", "late"];
    let due = |text: &str| if text == "given" { 0 } else { 20_000 };
    let waiting = |text: &str| task(text).needs("d").attempts_made(1).delay(due(text)).deadline(30_000);
    bed.put_all(all.map(waiting).to_vec()).await;
    let moved = redis.command(&["EVAL", BEFORE_LANES_OF_RETRIES, "1", "rd:{0}:"]).await;
    assert_eq!(moved, "4", "{moved}");
    let no_retries = [Restriction { scope: of_dependency("d"), any: None, retries: Some(0) }];
    let claimed = bed.claim(vec![claim_of(9)], &no_retries).await.unwrap().remove(0);
    assert_eq!(claimed.leases.iter().map(|lease| &*lease.id).collect::<Vec<_>>(), ["given"]);
    assert!(claimed.held_back.is_empty());
    bed.finish(&claimed.leases[0], Ending::Failed(failure(FailureClass::ServerError))).await;
    assert!(matches!(bed.cancel_one("called-off").await, Acted::Now { state: TaskState::Cancelled, .. }));
    assert!(matches!(bed.retry_one("hurried").await, Acted::Now { state: TaskState::Scheduled, .. }));
    bed.advance(10_000);
    let claimed = bed.claim(vec![claim_of(9)], &no_retries).await.unwrap().remove(0);
    assert_eq!(
        (claimed.leases.len(), claimed.held_back),
        (0, vec![of_dependency("d")]),
        "they were scheduled again"
    );
    let mut given = bed.take_ids(9).await;
    given.sort_unstable();
    assert_eq!(given, ["given", "hurried"]);
    bed.advance(20_001);
    assert_eq!(bed.reap(9).await.unwrap().too_late, ids(&["late"]));
    bed.assert_counts_are_right().await;
}
