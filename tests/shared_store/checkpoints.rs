//! Checkpoints in the shared store, seen from outside too: what other releases leave of them, what is damaged, what a first
//! attempt costs, several coordinators, and a server that is killed.

use std::sync::Arc;
use std::time::Duration;

use redrive_coordinator::store::{CheckpointSaved, Claim, Ending, Store, StoreError};
use redrive_shared::blob::Content;
use redrive_shared::checkpoint::{Checkpoint, Progress, Refused};
use redrive_shared::clock::Clock;
use redrive_shared::task::{Lease, TaskState};

use crate::support::redis::{AppendFsync, RedisOptions, RedisServer};
use crate::support::wait::eventually;
use crate::support::{
    Backend, Bed, RedisBackend, blob, checkpoint, claim_of, id, ids, name, raw, save_of, task,
};

const RETENTION_MS: i64 = 48 * 3_600_000;

async fn bed() -> (RedisServer, Bed) {
    let redis = RedisServer::start().await;
    let bed = Bed::new(RedisBackend::at(&redis.url(), "rd", 1)).await;
    (redis, bed)
}

fn key(task: &str) -> String {
    format!("rd:{{0}}:c:{task}")
}

async fn save(store: &dyn Store, lease: &Lease, checkpoint: Checkpoint) {
    let answers = store.save_checkpoints(vec![save_of(lease, checkpoint)]).await.unwrap();
    assert_eq!(answers, [CheckpointSaved::Saved { queue: name("default") }]);
}

async fn progress(bed: &Bed, task: &str) -> Progress {
    bed.progress(&id(task)).await.unwrap().unwrap()
}

/// How often Redis was sent a command, from without a script.
async fn calls(redis: &RedisServer, command: &str) -> u32 {
    let stats = redis.command(&["INFO", "commandstats"]).await;
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|line| line.split(',').next()).map_or(0, |calls| calls.parse().unwrap())
}

#[tokio::test]
async fn what_was_saved_and_cannot_be_read_puts_off_its_own_task_and_no_other() {
    let damages = ["x", "{\"seq\":1,\"steps\":[{\"step\":7}]}", "{\"seq\":1", "\u{0}"];
    for (number, damage) in damages.into_iter().enumerate() {
        let (redis, bed) = bed().await;
        bed.put_all(["a", "b", "c"].map(task).to_vec()).await;
        let leases = bed.take_by_id(3).await;
        for lease in &leases {
            save(&*bed, lease, checkpoint(1, "s")).await;
        }
        redis.command(&["COPY", &key("b"), "kept"]).await;
        match number {
            // All of it, and what comes after the first bytes.
            0 => redis.command(&["SET", &key("b"), damage]).await,
            _ => {
                let cut = "local v = redis.call('GET', KEYS[1]); redis.call('SET', KEYS[1], string.sub(v, 1, 16) .. ARGV[1])";
                redis.command(&["EVAL", cut, "1", &key("b"), damage]).await
            }
        };
        let saves = leases.iter().map(|lease| save_of(lease, checkpoint(2, "s"))).collect();
        let answers = bed.save_checkpoints(saves).await.unwrap();
        let saved = CheckpointSaved::Saved { queue: name("default") };
        assert_eq!(answers, [saved.clone(), CheckpointSaved::Unreadable, saved]);
        let StoreError::Corrupt(said) = bed.progress(&id("b")).await.unwrap_err() else {
            panic!("unreadable")
        };
        assert!(said.contains("task b: its checkpoints cannot be read"), "{said}");
        let told = bed.blobs(&ids(&["a", "b", "c"])).await.unwrap();
        assert_eq!(told, [Some(vec![]), None, Some(vec![])], "what it needs must not be taken for unused");
        for lease in &leases {
            bed.finish(lease, Ending::Snoozed { delay_ms: 0 }).await;
        }
        for others in [["a", "c"].as_slice(), &[]] {
            assert_eq!(bed.take_ids(9).await, others);
        }
        let put_off = bed.view("b").await;
        assert_eq!((put_off.state, put_off.runs), (TaskState::Scheduled, 1), "it waits, and was not given");
        bed.assert_counts_are_right().await;
        redis.command(&["COPY", "kept", &key("b"), "REPLACE"]).await;
        bed.advance(60_000);
        let mended = bed.take(9).await;
        assert_eq!(mended.len(), 1);
        assert_eq!(mended[0].checkpoint.as_ref().map(|progress| progress.seq), Some(1), "nothing is lost");
    }
}

/// Bytes that Redis sent to anybody.
async fn bytes_sent(redis: &RedisServer) -> u64 {
    let stats = redis.command(&["INFO", "stats"]).await;
    let line = stats.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
    line.expect("Redis tells it").trim().parse().unwrap()
}

#[tokio::test]
async fn a_claim_reads_no_more_of_what_was_saved_than_it_has_room_for() {
    const TASKS: usize = 200;
    const STATE: usize = 200 * 1024;
    let (redis, bed) = bed().await;
    bed.put_all((0..TASKS).map(|number| task(&format!("t{number}"))).collect()).await;
    // First attempts with small payloads: from then on many tasks are read at once.
    let leases = bed.take(TASKS).await;
    let state = raw(&format!("\"{}\"", "x".repeat(STATE)));
    for lease in &leases {
        let state = Some(Content::Inline(state.clone()));
        save(&*bed, lease, Checkpoint { state, ..checkpoint(1, "s") }).await;
        bed.finish(lease, Ending::Snoozed { delay_ms: 0 }).await;
    }
    let before = bytes_sent(&redis).await;
    let given = bed.take(TASKS).await.len();
    let sent = bytes_sent(&redis).await - before;
    assert_eq!(given, 4 * 1024 * 1024 / STATE, "as many as a reply has room for");
    assert!(sent < 12 * 1024 * 1024, "{sent} bytes were read for a reply of 4 MiB");
}

#[tokio::test]
async fn a_request_that_met_only_what_cannot_be_read_is_not_answered() {
    let (redis, bed) = bed().await;
    let lease = bed.put_and_take(task("t")).await;
    save(&*bed, &lease, checkpoint(1, "s")).await;
    bed.finish(&lease, Ending::Snoozed { delay_ms: 0 }).await;
    redis.command(&["COPY", &key("t"), "kept"]).await;
    redis.command(&["APPEND", &key("t"), "}"]).await;
    let request = Claim { request_id: Some(name("r")), ..claim_of(1) };
    let met = bed.claim_one(request.clone()).await;
    assert!(met.leases.is_empty() && !met.replayed);
    redis.command(&["COPY", "kept", &key("t"), "REPLACE"]).await;
    bed.advance(60_000);
    let again = bed.claim_one(request).await;
    assert_eq!((again.leases.len(), again.replayed), (1, false));
}

#[tokio::test]
async fn what_an_older_release_left_of_a_forgotten_task_counts_for_no_other() {
    let (redis, bed) = bed().await;
    let lease = bed.put_and_take(task("t")).await;
    let state = Some(Content::Blob(blob(&bed, 1)));
    save(&*bed, &lease, Checkpoint { state, ..checkpoint(9, "old") }).await;
    bed.finish(&lease, Ending::Done(None)).await;
    redis.command(&["COPY", &key("t"), "kept"]).await;
    bed.advance(RETENTION_MS);
    assert_eq!(bed.forget(1).await.unwrap(), 1);
    assert_eq!(redis.command(&["EXISTS", &key("t")]).await, "0");
    // A release that knows of no checkpoints deletes the task alone.
    redis.command(&["COPY", "kept", &key("t")]).await;
    assert!(bed.progress(&id("t")).await.unwrap().is_none());
    assert_eq!(bed.blobs(&ids(&["t"])).await.unwrap(), [Some(vec![])]);
    let lease = bed.put_and_take(task("t")).await;
    assert!(progress(&bed, "t").await.is_empty());
    assert_eq!(bed.blobs(&ids(&["t"])).await.unwrap(), [Some(vec![])]);
    bed.finish(&lease, Ending::Snoozed { delay_ms: 0 }).await;
    let lease = bed.take_one().await;
    assert!(lease.checkpoint.is_none());
    save(&*bed, &lease, checkpoint(1, "new")).await;
    let kept = progress(&bed, "t").await;
    assert_eq!((kept.seq, kept.steps.len()), (1, 1));
}

#[tokio::test]
async fn fields_of_a_newer_release_are_passed_over() {
    let (redis, bed) = bed().await;
    let lease = bed.put_and_take(task("t")).await;
    let state = Some(raw("{ \"n\" : 1.00 }").into());
    save(&*bed, &lease, Checkpoint { state, ..checkpoint(1, "s") }).await;
    let newer =
        "local v = redis.call('GET', KEYS[1]); v = string.gsub(v, '\"seq\":1,', '\"seq\":1,\"mood\":[{}],')
        redis.call('SET', KEYS[1], v)";
    redis.command(&["EVAL", newer, "1", &key("t")]).await;
    assert!(redis.command(&["GET", &key("t")]).await.matches("mood").count() == 2, "in both");
    let kept = progress(&bed, "t").await;
    assert_eq!(kept.steps[0].state.as_ref().unwrap().get(), "{ \"n\" : 1.00 }", "byte for byte");
    save(&*bed, &lease, checkpoint(2, "s")).await;
}

#[tokio::test]
async fn first_attempts_cost_no_look_at_checkpoints() {
    let (redis, bed) = bed().await;
    bed.put_all((0..10).map(|number| task(&format!("t{number}"))).collect()).await;
    redis.command(&["CONFIG", "RESETSTAT"]).await;
    let leases = bed.take(10).await;
    assert_eq!((leases.len(), calls(&redis, "mget").await), (10, 1), "the tasks themselves");
    bed.finish(&leases[0], Ending::Snoozed { delay_ms: 0 }).await;
    assert_eq!(bed.take(10).await.len(), 1);
    assert_eq!(calls(&redis, "mget").await, 3, "of one that ran before, what it saved");
}

#[tokio::test]
async fn coordinators_that_save_at_once_lose_nothing() {
    let (redis, bed) = bed().await;
    let backend = RedisBackend::at(&redis.url(), "rd", 1);
    let other = backend.open(Arc::clone(&bed.clock) as Arc<dyn Clock>).await;
    let lease = bed.put_and_take(task("t")).await;
    save(&*other, &lease, checkpoint(1, "first")).await;
    let mut acknowledged = vec![1];
    for round in 1..=20_u64 {
        let (one, two) = (round * 2, round * 2 + 1);
        let item = |seq| vec![save_of(&lease, checkpoint(seq, &format!("s{seq}")))];
        let answers = tokio::join!(bed.save_checkpoints(item(one)), other.save_checkpoints(item(two)));
        for (seq, answer) in [(one, answers.0), (two, answers.1)] {
            match &answer.unwrap()[0] {
                CheckpointSaved::Saved { .. } => acknowledged.push(seq),
                CheckpointSaved::Refused(Refused::Behind { last }) => assert!(*last > seq),
                other => panic!("{seq}: {other:?}"),
            }
        }
    }
    let mut kept: Vec<u64> = progress(&bed, "t").await.steps.iter().map(|step| step.seq).collect();
    kept.sort_unstable();
    assert_eq!(kept, acknowledged, "what was acknowledged, and nothing else");
    other.settle(vec![crate::support::settle_of(&lease, Ending::Done(None))]).await.unwrap();
    let late = bed.save_checkpoints(vec![save_of(&lease, checkpoint(99, "late"))]).await.unwrap();
    assert_eq!(late, [CheckpointSaved::Stale(TaskState::Succeeded)]);
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_server_that_is_killed() {
    let options = RedisOptions::default().append_only(AppendFsync::Always);
    let mut redis = RedisServer::with(options).await;
    let bed = Bed::new(RedisBackend::at(&redis.url(), "rd", 2)).await;
    let lease = bed.put_and_take(task("t")).await;
    for seq in 1..=5 {
        save(&*bed, &lease, checkpoint(seq, &format!("s{seq}"))).await;
    }
    let before = serde_json::to_string(&progress(&bed, "t").await).unwrap();
    redis.kill();
    assert!(bed.save_checkpoints(vec![save_of(&lease, checkpoint(6, "s6"))]).await.is_err());
    redis.restart().await;
    let read = async || bed.progress(&id("t")).await.ok().flatten();
    let (after, _) = eventually("the server answers again", Duration::from_secs(30), read).await;
    assert_eq!(serde_json::to_string(&after).unwrap(), before);
    save(&*bed, &lease, checkpoint(6, "s6")).await;
}
