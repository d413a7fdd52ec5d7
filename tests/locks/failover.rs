//! What a failover of Redis does to a lock, and what its token is for then.

use std::io::Cursor;
use std::time::Duration;

use redrive_coordinator::{CoordinatorConfig, StoreConfig};
use redrive_shared::lock::Lost;
use redrive_shared::wire::LockGrant;
use redrive_worker::client::Client;
use redrive_worker::fenced_file::{Commit, FencedFile, FencedFileError};

use super::{code, release, renew, take, wish};
use crate::support::redis::RedisSentinel;
use crate::support::server::Server;
use crate::support::wait::eventually;

/// How long this coordinator waits for a connection, for an answer, and for replicas.
const GIVES_UP_MS: u64 = 1_000;
/// A failover takes up to 5 s here.
const PATIENCE: Duration = Duration::from_secs(40);

async fn start(pair: &RedisSentinel, wait_replicas: u32) -> (Server, Client) {
    let store = StoreConfig {
        url: Some(pair.url().parse().unwrap()),
        wait_replicas,
        connect_timeout_ms: GIVES_UP_MS,
        response_timeout_ms: GIVES_UP_MS,
        wait_timeout_ms: GIVES_UP_MS,
        // These servers keep nothing on disk.
        allow_unsafe: true,
        ..StoreConfig::default()
    };
    let server = Server::with(CoordinatorConfig { store, ..CoordinatorConfig::default() }).await;
    let client = Client::new(&server.url("")).unwrap();
    let before = take(&client, &wish("before", "before", 0)).await;
    assert_eq!(release(&client, "before", &before).await.lost, None);
    (server, client)
}

/// From here on the replica gets nothing of what is written, and the master does not know it yet. Returns the master.
async fn cut_off(pair: &mut RedisSentinel) -> usize {
    let master = pair.master().await;
    // It has everything so far. What is sent to a process that is stopped, it would read once it goes on: so it is sent nothing.
    pair.servers()[master].replicated(&["SET", "last", "1"]).await;
    pair.server(1 - master).suspend();
    pair.servers()[master].command(&["CLIENT", "KILL", "TYPE", "replica"]).await;
    master
}

/// The master dies, and the replica takes its place with what it had.
async fn fail_over(pair: &mut RedisSentinel, master: usize) {
    pair.server(master).kill();
    pair.server(1 - master).resume();
    pair.until_failed_over(master).await;
}

async fn take_once_it_is_back(client: &Client, name: &str) -> LockGrant {
    let ask = async || client.acquire_lock(&wish(name, "report.md", 0), 0).await.ok().flatten();
    eventually("the new master gives locks", PATIENCE, ask).await.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_a_failover_forgot_is_given_twice_and_the_token_saves_the_file() {
    let pair = &mut RedisSentinel::start().await;
    let (_server, client) = start(pair, 0).await;
    let master = cut_off(pair).await;
    let first = take(&client, &wish("first", "report.md", 0)).await;
    fail_over(pair, master).await;
    let second = take_once_it_is_back(&client, "second").await;
    assert!(second.until_ms - (second.ttl_ms as i64) < first.until_ms, "while the first still counts on it");
    assert!(second.token > first.token, "{second:?} {first:?}");

    let scratch = tempfile::tempdir().unwrap();
    let file = FencedFile::at(scratch.path().join("report.md")).unwrap();
    let contents = "what the second wrote\n".repeat(10_000);
    file.commit(Cursor::new(&contents), &Commit::new(second.token)).unwrap();
    let late = file.commit(Cursor::new("what the first wrote\n"), &Commit::new(first.token));
    assert!(matches!(late, Err(FencedFileError::Stale { .. })), "{late:?}");
    assert_eq!(std::fs::read_to_string(file.path()).unwrap(), contents);
    assert_eq!(renew(&client, "first", &first).await.lost, Some(Lost::Unknown), "and it is told");
    assert_eq!(renew(&client, "second", &second).await.lost, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_no_replica_has_is_not_acknowledged_where_one_has_to() {
    let pair = &mut RedisSentinel::start().await;
    let (_server, client) = start(pair, 1).await;
    let master = cut_off(pair).await;
    let refused = client.acquire_lock(&wish("first", "report.md", 0), 0).await;
    assert_eq!(code(refused.expect_err("nobody has it but the master")), "store_unavailable");
    fail_over(pair, master).await;
    // The old master comes back as the replica that the new one waits for.
    pair.restart_as_replica(master).await;
    let second = take_once_it_is_back(&client, "second").await;
    let shown = client.locks().await.unwrap();
    assert_eq!(shown.locks.iter().map(|lock| lock.token).collect::<Vec<_>>(), [second.token]);
}
