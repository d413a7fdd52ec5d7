//! Users that may do little.

use redrive_coordinator::store::Store;
use redrive_coordinator::store::doctor::Verdict;
use redrive_coordinator::store::redis::{RedisConfig, RedisStore, doctor};
use redrive_coordinator::store::{Ending, Enqueued, Filter};
use redrive_shared::failure::FailureClass;
use redrive_shared::task::TaskState;
use std::path::Path;

use super::{assert_found, config, examine, refused, replica_of};
use crate::support::redis::{AppendFsync, RedisCluster, RedisOptions, RedisServer};
use crate::support::{Bed, RedisBackend, beat, failure, task};

/// The user of docs/redis.md, with the prefix of the tests.
fn documented() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/redis.md");
    let page = std::fs::read_to_string(page).unwrap();
    let line = page.lines().find(|line| line.starts_with("ACL SETUSER")).expect("the page has the rule");
    let line = line.replace("redrive:", "rd:").replace(">PASSWORD", ">secret");
    line.split(' ').map(str::to_owned).collect()
}

async fn allow(server: &RedisServer, more: &[&str]) {
    let rule = documented();
    let mut words: Vec<&str> = rule.iter().map(String::as_str).collect();
    words.extend(more);
    server.command(&words).await;
}

/// What the server refused anyone, as it noted down itself. The client's name and version are for people, and no part of
/// the rule: before 7.2 servers do not take them.
async fn denied(server: &RedisServer) -> Vec<String> {
    let log = server.command(&["ACL", "LOG", "100"]).await;
    let objects = log.split("\nobject\n").skip(1).filter_map(|rest| rest.lines().next());
    objects.filter(|object| !object.starts_with("client")).map(str::to_owned).collect()
}

fn as_user(url: &str) -> String {
    url.replacen("://", "://redrive:secret@", 1)
}

/// Everything that happens to tasks, in small.
async fn live(bed: &Bed) {
    let lease = bed.put_and_take(task("a")).await;
    bed.start(&lease).await;
    bed.heartbeat(beat("worker", "boot")).await.unwrap();
    let failed = Ending::Failed(failure(FailureClass::ServerError));
    assert_eq!(bed.finish(&lease, failed).await.0, TaskState::Scheduled);
    bed.advance(10_000);
    let lease = bed.take_one().await;
    let done = Ending::Done(None);
    assert_eq!(bed.finish(&lease, done).await.0, TaskState::Succeeded);
    bed.put_all(vec![task("b")]).await;
    bed.cancel_one("b").await;
    assert_eq!(bed.list(Filter { limit: 10, ..Filter::default() }).await.unwrap().tasks.len(), 2);
    let lost = bed.put_and_take(task("c")).await;
    let (agent, boot_id) = (crate::support::name("worker"), crate::support::name("boot"));
    let arrival = bed.arrive(&agent, &boot_id).await.unwrap();
    bed.expire_leases(&agent, &boot_id, arrival).await.unwrap();
    bed.advance(120_000);
    assert_eq!(bed.reap(100).await.unwrap().reaped.len(), 1, "{lost:?}");
    bed.pause(&crate::support::name("default"), true).await.unwrap();
    bed.agents().await.unwrap();
    bed.queues().await.unwrap();
    bed.status(crate::support::ids(&["a", "b", "c"])).await.unwrap();
    bed.advance(i64::from(7 * 24 * 3_600) * 1_000);
    assert_eq!(bed.forget(100).await.unwrap(), 2);
    bed.check().await.unwrap();
    bed.assert_counts_are_right().await;
}

#[tokio::test]
async fn the_documented_user_can_do_all_that_the_store_does() {
    let options =
        RedisOptions::default().append_only(AppendFsync::Everysec).set("repl-diskless-sync-delay", "0");
    let server = RedisServer::with(options).await;
    let replica = replica_of(&server).await;
    // The replica is examined by the same user.
    allow(&replica, &[]).await;
    allow(&server, &[]).await;
    let url = as_user(&server.url());
    let report = examine(&url).await;
    assert_eq!(refused(&report), [""; 0], "{report:#?}");
    assert!(report.findings().iter().all(|finding| finding.verdict != Verdict::Skipped), "{report:#?}");
    let bed = Bed::new(RedisBackend::at(&url, "rd", 1)).await;
    live(&bed).await;
    // And where writes wait for replicas.
    let mut waiting = config(&url);
    waiting.link.wait_replicas = 1;
    let store = RedisStore::open(&waiting, None).await.unwrap();
    let answers = store.enqueue(vec![task("w")]).await.unwrap();
    assert!(matches!(answers[0], Enqueued::Created { .. }), "{answers:?}");
    assert_eq!(denied(&server).await, [""; 0], "something was refused and hidden");
}

#[tokio::test]
async fn the_documented_user_can_work_on_a_cluster() {
    let cluster = RedisCluster::with(RedisOptions::default().append_only(AppendFsync::Everysec)).await;
    for node in cluster.nodes() {
        allow(node, &[]).await;
    }
    let url = as_user(&cluster.url());
    let report = examine(&url).await;
    assert_eq!(refused(&report), [""; 0], "{report:#?}");
    assert!(report.findings().iter().all(|finding| finding.verdict != Verdict::Skipped), "{report:#?}");
    live(&Bed::new(RedisBackend::at(&url, "rd", 4)).await).await;
    for node in cluster.nodes() {
        assert_eq!(denied(node).await, [""; 0], "something was refused and hidden");
    }
}

#[tokio::test]
async fn what_a_user_may_not_do_is_named() {
    let server = RedisServer::with(RedisOptions::default().append_only(AppendFsync::Everysec)).await;
    let url = as_user(&server.url());
    allow(&server, &["-evalsha"]).await;
    assert_found(&examine(&url).await, "scripts", Verdict::Refused, "may not do this");
    allow(&server, &["-xadd", "-zscore"]).await;
    let report = examine(&url).await;
    assert_found(&report, "access", Verdict::Refused, "XADD, ZSCORE");
    assert_eq!(refused(&report), ["access"]);
    allow(&server, &["-config", "-info"]).await;
    let report = examine(&url).await;
    assert_eq!(refused(&report), [""; 0], "{report:#?}");
    for check in ["eviction", "persistence", "memory", "replication", "clients"] {
        assert_found(&report, check, Verdict::Skipped, "does not tell");
    }
    assert_found(&report, "server", Verdict::Ok, "");
    allow(&server, &["-config"]).await;
    assert_found(&examine(&url).await, "persistence", Verdict::Skipped, "appendonly yes");
    allow(&server, &["resetchannels"]).await;
    assert_found(&examine(&url).await, "hints", Verdict::Refused, "may not do this");
    let other = RedisConfig { prefix: "other".into(), ..config(&url) };
    allow(&server, &[]).await;
    assert_found(&doctor::examine(&other).await, "scripts", Verdict::Refused, "may not do this");
}
