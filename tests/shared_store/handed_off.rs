//! Tasks handed off at one coordinator while another thinks that they are leased, and what Redis keeps of them.

use std::sync::Arc;

use redrive_coordinator::store::redis::RedisStore;
use redrive_coordinator::store::{Ending, Settled, Store};
use redrive_shared::clock::{Clock, ManualClock};
use redrive_shared::failure::FailureClass;
use redrive_shared::task::TaskState;

use crate::support::redis::RedisServer;
use crate::support::{
    Bed, RedisBackend, START_MS, claim_of, failure, fixed_policy, id, name, redis_config, settle_of, task,
};

async fn open(redis: &RedisServer) -> RedisStore {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(START_MS));
    RedisStore::open(&redis_config(&redis.url()), Some(clock)).await.expect("the store opens")
}

fn failed() -> Ending {
    Ending::Failed(failure(FailureClass::ServerError))
}

#[tokio::test]
async fn what_another_coordinator_handed_off_comes_back_to_the_one_that_gave_it_out() {
    let redis = RedisServer::start().await;
    let (giver, other) = (open(&redis).await, open(&redis).await);
    giver.put_queue(&name("default"), fixed_policy(10_000)).await.unwrap();
    giver.enqueue(vec![task("t")]).await.unwrap();
    let lease = giver.claim(vec![claim_of(1)], &[]).await.unwrap().remove(0).leases.remove(0);
    other.settle(vec![settle_of(&lease, Ending::HandedOff)]).await.unwrap();
    // The giver remembers it as leased.
    let answers = giver.settle(vec![settle_of(&lease, failed())]).await.unwrap();
    assert!(matches!(answers[0], Settled::Applied { state: TaskState::Scheduled, .. }), "{answers:?}");
    let again = other.settle(vec![settle_of(&lease, Ending::HandedOff)]).await.unwrap();
    assert!(matches!(again[0], Settled::Repeated { state: TaskState::Scheduled, .. }), "{again:?}");
    let view = other.get(&id("t")).await.unwrap().expect("it is known");
    assert_eq!((view.ledger.failed, view.history.len()), (1, 2));
}

#[tokio::test]
async fn of_many_that_tell_of_one_failure_at_once_the_first_is_heard() {
    let redis = RedisServer::start().await;
    let stores = [open(&redis).await, open(&redis).await, open(&redis).await];
    stores[0].put_queue(&name("default"), fixed_policy(10_000)).await.unwrap();
    for round in 0..20 {
        let text = format!("t{round}");
        stores[0].enqueue(vec![task(&text)]).await.unwrap();
        let lease = stores[0].claim(vec![claim_of(1)], &[]).await.unwrap().remove(0).leases.remove(0);
        stores[0].settle(vec![settle_of(&lease, Ending::HandedOff)]).await.unwrap();
        let told = stores.iter().map(|store| store.settle(vec![settle_of(&lease, failed())]));
        let answers = futures_util::future::try_join_all(told).await.unwrap();
        let applied = |answer: &&Settled| matches!(answer, Settled::Applied { .. });
        assert_eq!(answers.iter().flatten().filter(applied).count(), 1, "{answers:?}");
        assert_eq!(stores[0].get(&id(&text)).await.unwrap().expect("it is known").ledger.failed, 1);
    }
}

#[tokio::test]
async fn what_was_handed_off_lies_among_the_finished_until_it_is_heard_of() {
    let redis = RedisServer::start().await;
    let bed = Bed::new(RedisBackend::at(&redis.url(), "rd", 1)).await;
    let finished = async || redis.command(&["ZCARD", "rd:{0}:x"]).await;
    let lease = bed.put_and_take(task("t")).await;
    bed.finish(&lease, Ending::HandedOff).await;
    assert_eq!(finished().await, "1");
    bed.finish(&lease, failed()).await;
    assert_eq!(finished().await, "0");
    bed.advance(10_000);
    let lease = bed.take_one().await;
    bed.finish(&lease, Ending::HandedOff).await;
    bed.finish(&lease, Ending::Done(None)).await;
    assert_eq!(finished().await, "1");
    bed.advance(100 * 24 * 3_600_000);
    assert_eq!(bed.forget(9).await.unwrap(), 1);
    assert_eq!(redis.command(&["EXISTS", "rd:{0}:x", "rd:{0}:t:t", "rd:{0}:r", "rd:{0}:u"]).await, "0");
}
