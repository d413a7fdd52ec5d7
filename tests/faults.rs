//! The embedded store in adversity: somebody else holds the database, the disk is full, the files are not what they
//! should be.

mod full_disk;

use std::sync::Arc;

use redrive_coordinator::store::sqlite::SqliteStore;
use redrive_coordinator::store::{CheckpointSaved, Ending, Enqueued, Restriction, Store, StoreError};
use redrive_shared::clock::ManualClock;
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::task::TaskState;
use rusqlite::Connection;

use crate::support::{
    Bed, EnqueueExt, START_MS, SqliteBackend, checkpoint, claim_of, fast_directory, fixed_policy, id, name,
    of_dependency, save_of, task,
};

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(START_MS))
}

/// Why a store does not open.
fn refusal(data: &std::path::Path) -> StoreError {
    SqliteStore::open(data, clock()).err().expect("it does not open")
}

#[tokio::test]
async fn a_database_that_another_process_holds_is_unavailable_until_it_lets_go() {
    let backend = SqliteBackend::new();
    let file = backend.path().join("redrive.sqlite");
    let bed = Bed::new(backend).await;
    bed.put(task("before")).await;
    let shell = Connection::open(file).unwrap();
    shell.execute_batch("BEGIN EXCLUSIVE").unwrap();
    // Both at once: the store waits for the lock before it answers, and does so once for all that came in.
    let (enqueued, claimed, ready) =
        tokio::join!(bed.enqueue(vec![task("meanwhile")]), bed.claim(vec![claim_of(1)], &[]), bed.check());
    for error in [enqueued.unwrap_err(), claimed.unwrap_err(), ready.unwrap_err()] {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert!(error.to_string().contains("another process holds the database"), "{error}");
    }
    assert_eq!(bed.state("before").await, TaskState::Scheduled, "what is only looked at can still be seen");
    shell.execute_batch("ROLLBACK").unwrap();
    assert!(bed.get(&id("meanwhile")).await.unwrap().is_none(), "what failed was not done");
    assert!(matches!(bed.put(task("after")).await, Enqueued::Created { .. }));
    assert_eq!(bed.take_ids(9).await, ["before", "after"]);
    bed.assert_counts_are_right().await;
}

#[tokio::test]
async fn a_second_coordinator_on_the_same_directory_is_refused() {
    let scratch = fast_directory();
    let first = SqliteStore::open(scratch.path(), clock()).unwrap();
    let error = refusal(scratch.path());
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    let said = error.to_string();
    assert!(
        said.contains("another coordinator") && said.contains(scratch.path().to_str().unwrap()),
        "{said}"
    );
    first.check().await.unwrap();
    drop(first);
    SqliteStore::open(scratch.path(), clock()).unwrap().check().await.unwrap();
}

#[tokio::test]
async fn a_database_of_a_newer_release_is_refused_and_left_alone() {
    let scratch = fast_directory();
    drop(SqliteStore::open(scratch.path(), clock()).unwrap());
    let file = scratch.path().join("redrive.sqlite");
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = refusal(scratch.path());
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    let said = error.to_string();
    assert!(said.contains("version 99") && said.contains("use a newer release"), "{said}");
    let connection = Connection::open(&file).unwrap();
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 99);
}

#[tokio::test]
async fn a_database_from_before_there_were_gates_goes_on_and_its_release_may_come_back() {
    let backend = SqliteBackend::new();
    let file = backend.path().join("redrive.sqlite");
    let mut bed = Bed::new(backend).await;
    bed.put_all(vec![task("old").needs("d"), task("first").needs("d").delay(1_000)]).await;
    // A failure that an older release counted moved nothing.
    let older = Connection::open(&file).unwrap();
    older
        .execute_batch(
            "UPDATE tasks SET failed = 1 WHERE id = 'old'; DROP TABLE gates; ALTER TABLE lanes DROP COLUMN retry",
        )
        .unwrap();
    bed.reopen().await;
    let no_retries = [Restriction { scope: of_dependency("d"), any: None, retries: Some(0) }];
    let mut claimed = bed.claim(vec![claim_of(9)], &no_retries).await.unwrap().remove(0);
    assert_eq!(claimed.leases.len(), 1, "it waits where it did");
    bed.finish(&claimed.leases.remove(0), Ending::Released).await;
    bed.advance(1_000);
    let claimed = bed.claim(vec![claim_of(9)], &no_retries).await.unwrap().remove(0);
    assert_eq!(claimed.leases.iter().map(|lease| &*lease.id).collect::<Vec<_>>(), ["first"]);
    assert_eq!(claimed.held_back, [of_dependency("d")], "it was scheduled again");
    assert_eq!(bed.gates(0).await.unwrap().expect("none was seen").cells, []);
    // What an older release does with lanes.
    older
        .execute_batch("INSERT INTO lanes (queue, priority, dependency, grp) VALUES (1, 1, 'd', NULL)")
        .unwrap();
    let version: i64 = older.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 1, "it opens what is there");
    bed.reopen().await;
    assert_eq!(bed.take_ids(9).await, ["old"]);
}

#[tokio::test]
async fn a_database_of_a_release_without_versions_of_policies_gets_them() {
    let scratch = fast_directory();
    let file = scratch.path().join("redrive.sqlite");
    let open = || SqliteStore::open(scratch.path(), clock()).unwrap();
    let behind = |sql: &str| Connection::open(&file).unwrap().execute_batch(sql).unwrap();
    let policy = |number: u64| format!("'{}'", serde_json::to_string(&fixed_policy(number)).unwrap());
    let default = name("default");
    drop(open());
    behind(&format!("DROP TABLE policy_versions; UPDATE queues SET policy = {}", policy(1)));
    let store = open();
    assert_eq!(store.queues().await.unwrap()[0].version, 0);
    assert_eq!(store.policy_versions(&default).await.unwrap(), []);
    store.put_queue(&default, fixed_policy(2)).await.unwrap();
    drop(store);
    // And once more, after the newer release was there.
    behind(&format!("UPDATE queues SET policy = {}", policy(3)));
    let store = open();
    store.put_queue(&default, fixed_policy(4)).await.unwrap();
    let versions = store.policy_versions(&default).await.unwrap();
    let found = "found in force when it was changed next";
    let kept: Vec<_> =
        versions.iter().map(|kept| (kept.version, &kept.policy, kept.reason.as_deref())).collect();
    let policies = [4, 3, 2, 1].map(fixed_policy);
    let expected = [
        (3, &policies[0], None),
        (2, &policies[1], Some(found)),
        (1, &policies[2], None),
        (0, &policies[3], Some(found)),
    ];
    assert_eq!(kept, expected);
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let scratch = fast_directory();
    let file = scratch.path().join("redrive.sqlite");
    let contents = "these are somebody's notes\n".repeat(500);
    std::fs::write(&file, &contents).unwrap();
    let error = refusal(scratch.path());
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), contents);
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let scratch = fast_directory();
    let file = scratch.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let error = refusal(&file.join("data"));
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert!(error.to_string().contains("a-file"), "{error}");
}

#[tokio::test]
async fn a_caller_that_stops_waiting_harms_nobody() {
    let bed = Bed::new(SqliteBackend::new()).await;
    for number in 0..50 {
        let given_up = bed.enqueue(vec![task(&format!("t{number}"))]);
        // Polled once, so that it is on its way, and dropped.
        tokio::select! { biased; _ = given_up => {}, () = std::future::ready(()) => {} }
    }
    // Verbs are done in order: after this one, all of those before it are done or never will be.
    bed.put(task("last")).await;
    bed.put_queue(&name("other"), Default::default()).await.unwrap();
    bed.assert_counts_are_right().await;
    assert_eq!(bed.queue("default").await.counts.total(), 51);
}

#[tokio::test]
async fn a_task_that_cannot_be_read_is_put_off_and_holds_up_no_other() {
    let backend = SqliteBackend::new();
    let file = backend.path().join("redrive.sqlite");
    let bed = Bed::new(backend).await;
    bed.put_all(vec![task("first"), task("broken"), task("second"), task("held")]).await;
    let spoil = |sql: &str| Connection::open(&file).unwrap().execute(sql, []).unwrap();
    spoil("UPDATE bodies SET payload = '{' WHERE seq = (SELECT seq FROM tasks WHERE id = 'broken')");
    assert_eq!(bed.take_ids(9).await, ["first", "second", "held"], "its lane goes on");
    assert_eq!(bed.take_ids(9).await, [""; 0], "it does not come at once again");
    // A lease that cannot be read does not keep the others from being reaped.
    spoil("UPDATE tasks SET failed = -1 WHERE id = 'held'");
    bed.advance(30_001);
    let reaped: Vec<String> =
        bed.reap(10).await.unwrap().reaped.iter().map(|lost| lost.id.to_string()).collect();
    assert_eq!(reaped, ["first", "second"]);
    let counts = bed.queue("default").await.counts;
    assert_eq!((counts.scheduled, counts.leased), (3, 1), "nothing is lost or counted twice");
    spoil("UPDATE bodies SET payload = '{}' WHERE seq = (SELECT seq FROM tasks WHERE id = 'broken')");
    bed.advance(60_000);
    assert!(bed.take_ids(9).await.contains(&"broken".to_owned()), "mended, it runs");
}

#[tokio::test]
async fn lanes_go_with_their_tasks() {
    let backend = SqliteBackend::new();
    let file = backend.path().join("redrive.sqlite");
    let mut bed = Bed::new(backend).await;
    // As many tenants as tasks, and each of them gone after a while: nothing may be left behind of them.
    bed.put_all((0..50).map(|number| task(&format!("t{number}")).group(&format!("g{number}"))).collect())
        .await;
    for lease in bed.take(50).await {
        bed.finish(&lease, Ending::Done(None)).await;
    }
    bed.reopen().await;
    bed.advance(48 * 3_600_000);
    assert_eq!(bed.forget(1_000).await.unwrap(), 50);
    let connection = Connection::open(file).unwrap();
    let lanes: i64 = connection.query_row("SELECT COUNT(*) FROM lanes", [], |row| row.get(0)).unwrap();
    assert_eq!(lanes, 0);
}

#[test]
fn callers_are_told_what_they_can_do_about_a_store_that_fails() {
    let problem = Problem::from(StoreError::Full("no space".into()));
    assert_eq!((problem.code, problem.retry_after_ms), (ErrorCode::StoreFull, Some(1_000)));
    assert!(problem.detail.contains("may or may not have happened"), "{}", problem.detail);
    let problem = Problem::from(StoreError::Unavailable("locked".into()));
    assert_eq!((problem.code, problem.status), (ErrorCode::StoreUnavailable, 503));
}

#[tokio::test]
async fn what_was_saved_and_cannot_be_read_puts_off_its_own_task_and_no_other() {
    let backend = SqliteBackend::new();
    let file = backend.path().join("redrive.sqlite");
    let bed = Bed::new(backend).await;
    bed.put_all(["a", "b", "c"].map(task).to_vec()).await;
    let leases = bed.take_by_id(3).await;
    let saved = CheckpointSaved::Saved { queue: name("default") };
    let save = |seq| leases.iter().map(|lease| save_of(lease, checkpoint(seq, "s"))).collect();
    assert_eq!(bed.save_checkpoints(save(1)).await.unwrap(), [(); 3].map(|()| saved.clone()));
    let behind = Connection::open(&file).unwrap();
    let of_b = "WHERE seq = (SELECT seq FROM tasks WHERE id = 'b')";
    let damage = |kept: &str| {
        behind.execute(&format!("UPDATE checkpoints SET progress = ?1 {of_b}"), [kept]).unwrap();
    };
    let select = format!("SELECT progress FROM checkpoints {of_b}");
    let kept: String = behind.query_row(&select, [], |row| row.get(0)).unwrap();
    damage("{");
    assert_eq!(
        bed.save_checkpoints(save(2)).await.unwrap(),
        [saved.clone(), CheckpointSaved::Unreadable, saved]
    );
    assert!(matches!(bed.progress(&id("b")).await, Err(StoreError::Corrupt(_))));
    let told = bed.blobs(&["a", "b", "c"].map(id)).await.unwrap();
    assert_eq!(told, [Some(vec![]), None, Some(vec![])], "what it needs must not be taken for unused");
    for lease in &leases {
        bed.finish(lease, Ending::Snoozed { delay_ms: 0 }).await;
    }
    for others in [["a", "c"].as_slice(), &[]] {
        assert_eq!(bed.take_ids(9).await, others);
    }
    let put_off = bed.view("b").await;
    assert_eq!((put_off.state, put_off.runs), (TaskState::Scheduled, 1), "it waits, and was not given");
    damage(&kept);
    bed.advance(60_000);
    assert_eq!(bed.take_one().await.checkpoint.map(|progress| progress.seq), Some(1), "nothing is lost");
}

#[tokio::test]
async fn what_was_saved_goes_with_its_task_whichever_release_forgets_it() {
    let backend = SqliteBackend::new();
    let file = backend.path().join("redrive.sqlite");
    let mut bed = Bed::new(backend).await;
    let lease = bed.put_and_take(task("t")).await;
    bed.save_checkpoints(vec![save_of(&lease, checkpoint(1, "s"))]).await.unwrap();
    bed.cancel_one("t").await;
    // As a release does that knows of no checkpoints.
    let older = Connection::open(&file).unwrap();
    for table in ["attempts", "results", "bodies", "tasks"] {
        older.execute(&format!("DELETE FROM {table}"), []).unwrap();
    }
    drop(older);
    bed.reopen().await;
    let lease = bed.put_and_take(task("t")).await;
    bed.finish(&lease, Ending::Snoozed { delay_ms: 0 }).await;
    assert!(bed.take_one().await.checkpoint.is_none(), "its number is that of the one before");
}
