//! How much one call of Redis may be asked: while it runs a script, nobody else is answered.

use std::collections::BTreeSet;

use redrive_coordinator::store::{Acted, Ending, Enqueue};
use redrive_shared::gate::Standing;
use redrive_shared::id::TaskId;
use redrive_shared::task::TaskState;

use crate::support::redis::RedisServer;
use crate::support::{Bed, EnqueueExt, RedisBackend, id, name, task};

async fn bed() -> (RedisServer, Bed) {
    let redis = RedisServer::start().await;
    let bed = Bed::new(RedisBackend::at(&redis.url(), "rd", 1)).await;
    (redis, bed)
}

/// How often Redis has run a command, also within scripts.
async fn runs_of(redis: &RedisServer, command: &str) -> u64 {
    let stats = redis.command(&["INFO", "commandstats"]).await;
    let begin = format!("cmdstat_{command}:calls=");
    let line = stats.split([' ', '\n', '\r', '"']).find_map(|line| line.strip_prefix(&begin));
    let calls = line.map(|line| line.split(',').next().unwrap_or_default().parse().expect("a number"));
    calls.unwrap_or(0)
}

/// How many heads one look may read of waiting tasks: those that are late are read twice, and compared when they change.
const HEADS_MAX: u64 = 2_000;

fn waiting(group: usize, count: usize, late: impl Fn(usize) -> bool) -> Vec<Enqueue> {
    let one = |number: usize| {
        let deadline_ms = if late(number) { 20_000 } else { 80_000_000 };
        task(&format!("g{group}-{number:05}")).group(&format!("g{group}")).deadline(deadline_ms)
    };
    (0..count).map(one).collect()
}

#[tokio::test]
async fn deadlines_in_large_lanes_are_met_within_a_second_in_short_calls() {
    let (redis, bed) = bed().await;
    bed.pause(&name("default"), true).await.unwrap();
    // Late tasks in different parts of each lane: what one has must not shift where another is looked at.
    let mut expected = BTreeSet::new();
    for (group, from) in [0, 400, 900, 1_100, 1_600, 0].into_iter().enumerate() {
        let tasks = waiting(group, 2_000, |number| (from..from + 100).contains(&number));
        expected.extend(
            tasks.iter().filter(|task| task.spec.deadline_ms == Some(20_000)).map(|task| task.id.clone()),
        );
        bed.put_all(tasks).await;
    }
    bed.advance(20_001);
    let end_ms = bed.now_ms() + 1_000;
    let (mut seen, begin) = (BTreeSet::new(), runs_of(&redis, "getrange").await);
    let mut before = begin;
    while bed.now_ms() < end_ms {
        let round = bed.reap(1_000).await.unwrap();
        let late = u64::try_from(round.too_late.len()).unwrap();
        seen.extend(round.too_late);
        let now = runs_of(&redis, "getrange").await;
        assert!(now - before <= HEADS_MAX + 2 * late, "{} heads in one call", now - before);
        before = now;
        let next_ms = round.next_ms.expect("there is something to look at");
        bed.advance((next_ms - bed.now_ms()).clamp(0, end_ms - bed.now_ms()));
    }
    assert_eq!(seen.len(), expected.len(), "all within a second: {:?}", expected.difference(&seen).next());
    assert_eq!(seen, expected);
    let looks = before - begin;
    assert!(looks <= 12_000 + 2 * 600, "each once, and those that are late when they change: {looks}");
}

/// Reaps whenever it is time to, for so long; returns what was late.
async fn reap_for(bed: &Bed, ms: i64) -> BTreeSet<TaskId> {
    let (mut seen, end_ms) = (BTreeSet::new(), bed.now_ms() + ms);
    while bed.now_ms() < end_ms {
        let round = bed.reap(1_000).await.unwrap();
        seen.extend(round.too_late);
        bed.advance((round.next_ms.unwrap_or(end_ms) - bed.now_ms()).clamp(0, end_ms - bed.now_ms()));
    }
    seen
}

#[tokio::test]
async fn a_lane_that_changes_while_it_is_looked_through_hides_no_late_task_for_long() {
    let (_redis, bed) = bed().await;
    bed.pause(&name("default"), true).await.unwrap();
    let tasks = waiting(0, 3_000, |number| (1_100..1_150).contains(&number));
    let mut expected: BTreeSet<TaskId> = tasks[1_100..1_150].iter().map(|task| task.id.clone()).collect();
    let begin: Vec<TaskId> = tasks[..500].iter().map(|task| task.id.clone()).collect();
    // A millisecond apart, so that they wait in this order.
    for batch in tasks.chunks(1_000) {
        bed.put_all(batch.to_vec()).await;
        bed.advance(1);
    }
    bed.advance(20_001);
    assert!(bed.reap(1_000).await.unwrap().too_late.is_empty(), "the first stretch has none");
    // Those behind it come before where the next stretch begins, and one comes whose deadline is near.
    bed.cancel(begin, None).await.unwrap();
    bed.put(task("soon").group("g0").deadline(400)).await;
    expected.insert(id("soon"));
    assert_eq!(reap_for(&bed, 1_500).await, expected);
}

#[tokio::test]
async fn ten_thousand_tasks_that_are_late_at_once_are_all_escalated() {
    let (_redis, bed) = bed().await;
    bed.pause(&name("default"), true).await.unwrap();
    let mut expected: BTreeSet<TaskId> = BTreeSet::new();
    for group in 0..2 {
        let tasks = waiting(group, 5_000, |_| true);
        expected.extend(tasks.iter().map(|task| task.id.clone()));
        bed.put_all(tasks).await;
    }
    bed.advance(20_001);
    let (mut seen, end_ms) = (BTreeSet::new(), bed.now_ms() + 1_000);
    while bed.now_ms() <= end_ms && seen.len() < expected.len() {
        let round = bed.reap(1_000).await.unwrap();
        assert!(round.too_late.len() <= 1_000);
        seen.extend(round.too_late);
        bed.advance((round.next_ms.unwrap_or(end_ms) - bed.now_ms()).max(0));
    }
    assert_eq!(seen, expected);
    assert!(bed.take(10).await.is_empty());
}

#[tokio::test]
async fn what_a_coordinator_saw_late_and_could_not_escalate_is_seen_again() {
    let (redis, bed) = bed().await;
    bed.pause(&name("default"), true).await.unwrap();
    bed.put_all(vec![task("late").deadline(20_000), task("other").deadline(80_000_000)]).await;
    bed.advance(20_001);
    redis.command(&["ACL", "SETUSER", "default", "-mset"]).await;
    assert!(bed.reap(10).await.is_err(), "it looks, and can write nothing");
    redis.command(&["ACL", "SETUSER", "default", "+mset"]).await;
    bed.advance(1_000);
    assert_eq!(bed.reap(10).await.unwrap().too_late, [id("late")]);
}

#[tokio::test]
async fn large_tasks_are_changed_in_several_calls() {
    let (redis, bed) = bed().await;
    let payload = format!("\"{}\"", "x".repeat(256 * 1024 - 2));
    let texts: Vec<String> = (0..64).map(|number| format!("t{number:02}")).collect();
    for few in texts.chunks(8) {
        bed.put_all(few.iter().map(|text| task(text).payload(&payload)).collect()).await;
    }
    let all: Vec<TaskId> = texts.iter().map(|text| id(text)).collect();
    let before = runs_of(&redis, "mset").await;
    let cancelled = bed.cancel(all.clone(), None).await.unwrap();
    assert!(cancelled.iter().all(|one| matches!(one, Acted::Now { state: TaskState::Cancelled, .. })));
    let calls = runs_of(&redis, "mset").await - before;
    assert!((4..=8).contains(&calls), "16 MiB in calls of up to 4 MiB: {calls}");
    let before = runs_of(&redis, "mset").await;
    bed.retry(all, None, Standing::OPEN).await.unwrap();
    assert!(runs_of(&redis, "mset").await - before >= 4);
    assert_eq!(bed.view("t63").await.payload.unwrap().get(), payload);
}

#[tokio::test]
async fn the_log_is_swept_in_short_calls_and_keeps_up() {
    let (redis, bed) = bed().await;
    // 60 entries of a hundred tasks that stay, and what is forgotten around them.
    for batch in 0..6 {
        bed.put_all((0..1_000).map(|number| task(&format!("k{batch}-{number}")).delay(3_600_000)).collect())
            .await;
    }
    for number in 0..50 {
        bed.put(task(&format!("gone{number}"))).await;
    }
    for lease in bed.take(50).await {
        bed.finish(&lease, Ending::Done(None)).await;
    }
    assert_eq!(redis.command(&["XLEN", "rd:{0}:log"]).await, "110");
    bed.advance(1_000_000_000);
    // Each call reads once up to where the log was swept.
    let before = runs_of(&redis, "get").await;
    assert_eq!(bed.forget(500).await.unwrap(), 50);
    assert_eq!(runs_of(&redis, "get").await - before, 4, "6,050 tasks in calls of 2,000");
    assert_eq!(redis.command(&["XLEN", "rd:{0}:log"]).await, "60", "those who are forgotten have left it");
}

#[tokio::test]
async fn a_clock_that_went_back_holds_up_no_lane() {
    let (_redis, bed) = bed().await;
    let of_group = |id: &str, group: &str| task(id).group(group);
    bed.put_all((0..9).map(|number| of_group(&format!("old-{number}"), "old")).collect()).await;
    assert!(bed.take_ids(1).await[0].starts_with("old"));
    bed.advance(-3_600_000);
    bed.put_all((0..9).map(|number| of_group(&format!("more-{number}"), "old")).collect()).await;
    bed.put_all((0..9).map(|number| of_group(&format!("new-{number}"), "new")).collect()).await;
    let mut given = Vec::new();
    for _ in 0..6 {
        bed.advance(1);
        given.extend(bed.take_ids(1).await);
    }
    let of_old = given.iter().filter(|id| id.starts_with("more")).count();
    assert_eq!(of_old, 3, "lanes take turns: {given:?}");
}
