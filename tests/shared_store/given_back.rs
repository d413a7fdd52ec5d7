//! A claim leases before it reads: what finds no room in its answer is given back, and others hear of it.

use std::time::Duration;

use redrive_coordinator::store::redis::RedisStore;
use redrive_coordinator::store::{Ending, Enqueued, Hint, Settled, Store};
use redrive_shared::limits::BODY_MAX_BYTES;
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;

use crate::support::redis::RedisServer;
use crate::support::{EnqueueExt, claim_of, name, redis_config, settle_of, task};

/// Hints travel in milliseconds; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// Waits for word of the queue `default`; nothing else will do.
async fn told(hints: &mut Receiver<Hint>, wanted: &str) {
    let heard = async {
        loop {
            if let Hint::Due { queue, .. } = hints.recv().await.expect("the store is open") {
                return queue;
            }
        }
    };
    assert_eq!(timeout(SOON, heard).await.expect(wanted), name("default"));
}

#[tokio::test]
async fn what_is_given_back_is_told_to_all_who_wait() {
    let redis = RedisServer::start().await;
    let config = redis_config(&redis.url());
    let here = RedisStore::open(&config, None).await.expect("the store opens");
    let there = RedisStore::open(&config, None).await.expect("the store opens");
    let (mut heard_here, mut heard_there) = (here.hints().expect("shared"), there.hints().expect("shared"));
    let large = format!("\"{}\"", "x".repeat(BODY_MAX_BYTES * 2 / 3));
    for text in ["first", "second"] {
        here.enqueue(vec![task(text).payload(&large)]).await.expect("taken");
        told(&mut heard_there, "it hears of the new task").await;
    }
    let claimed = here.claim(vec![claim_of(2)], &[]).await.expect("a claim");
    assert_eq!(claimed[0].leases.len(), 1, "both are too much for one answer");
    told(&mut heard_here, "who waits here hears of the other task").await;
    told(&mut heard_there, "who waits there hears of the other task").await;
    let rest = there.claim(vec![claim_of(2)], &[]).await.expect("a claim");
    assert_eq!(rest[0].leases.len(), 1);
}

#[tokio::test]
async fn hints_that_may_not_be_published_hold_up_nothing() {
    let redis = RedisServer::start().await;
    let store = RedisStore::open(&redis_config(&redis.url()), None).await.expect("the store opens");
    redis.command(&["ACL", "SETUSER", "default", "resetchannels"]).await;
    let taken = store.enqueue(vec![task("t")]).await.expect("taken");
    assert!(matches!(taken[..], [Enqueued::Created { .. }]), "{taken:?}");
    let claimed = store.claim(vec![claim_of(1)], &[]).await.expect("a claim");
    assert_eq!(claimed[0].leases.len(), 1, "it has its value");
    let settled =
        store.settle(vec![settle_of(&claimed[0].leases[0], Ending::Released)]).await.expect("settled");
    assert!(matches!(settled[..], [Settled::Applied { .. }]), "{settled:?}");
}
