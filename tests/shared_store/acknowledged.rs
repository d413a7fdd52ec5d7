//! What is acknowledged with `wait_replicas` is on the replicas, also where it was done before and is only told again.

use std::sync::Arc;
use std::time::Duration;

use redrive_coordinator::store::redis::link::LinkOptions;
use redrive_coordinator::store::redis::{RedisConfig, RedisStore};
use redrive_coordinator::store::{
    Acted, CheckpointSaved, Ending, Enqueued, Result, Settled, Store, StoreError,
};
use redrive_shared::clock::ManualClock;
use redrive_shared::task::TaskState;

use crate::support::redis::{RedisOptions, RedisServer};
use crate::support::wait::eventually;
use crate::support::{START_MS, checkpoint, claim_of, ids, redis_config, save_of, settle_of, task};

const PATIENCE: Duration = Duration::from_secs(30);

fn assert_not_confirmed<T: std::fmt::Debug>(what: &str, answer: Result<T>) {
    match answer {
        Err(StoreError::Unavailable(said)) => assert!(said.contains("only 0 of 1"), "{what}: {said}"),
        other => panic!("{what}: {other:?}"),
    }
}

#[tokio::test]
async fn a_repeat_is_acknowledged_only_when_the_replica_has_what_it_tells_of() {
    let at_once = || RedisOptions::default().set("repl-diskless-sync-delay", "0");
    let (master, replica) = (RedisServer::with(at_once()).await, RedisServer::with(at_once()).await);
    replica.command(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]).await;
    let link =
        LinkOptions { wait_replicas: 1, wait_timeout: Duration::from_millis(300), ..LinkOptions::default() };
    let config = RedisConfig { shards: Some(2), link, ..redis_config(&master.url()) };
    let clock = Arc::new(ManualClock::new(START_MS));
    let opened = async || RedisStore::open(&config, Some(Arc::clone(&clock) as _)).await.ok();
    let (store, _) = eventually("the replica confirms", PATIENCE, opened).await;
    let (called_off, new) = (ids(&["called-off"]), || vec![task("new")]);
    store.enqueue(vec![task("settled"), task("working")]).await.unwrap();
    let mut leases = store.claim(vec![claim_of(2)], &[]).await.unwrap().remove(0).leases;
    leases.sort_by(|one, other| one.id.cmp(&other.id));
    let (working, lease) = (leases.remove(1), leases.remove(0));
    store.enqueue(vec![task("called-off")]).await.unwrap();
    let save = || vec![save_of(&working, checkpoint(1, "step"))];
    let done = || vec![settle_of(&lease, Ending::Done(None))];

    replica.suspend();
    for what in ["at first", "again", "and again"] {
        assert_not_confirmed(what, store.settle(done()).await);
        assert_not_confirmed(what, store.cancel(called_off.clone(), None).await);
        assert_not_confirmed(what, store.enqueue(new()).await);
        assert_not_confirmed(what, store.save_checkpoints(save()).await);
    }
    replica.resume();
    let confirmed = async || store.check().await.ok();
    eventually("the replica confirms again", PATIENCE, confirmed).await;
    let settled = store.settle(done()).await.unwrap();
    assert!(matches!(settled[0], Settled::Repeated { state: TaskState::Succeeded, .. }), "{settled:?}");
    assert_eq!(store.save_checkpoints(save()).await.unwrap(), [CheckpointSaved::Repeated]);
    let acted = store.cancel(called_off, None).await.unwrap();
    assert!(matches!(acted[0], Acted::Now { state: TaskState::Cancelled, .. }), "{acted:?}");
    assert!(matches!(store.enqueue(new()).await.unwrap()[0], Enqueued::Duplicate { .. }));
}
