//! Claims that are given up in the moment in which they are answered.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use redrive_coordinator::alarm::Alarm;
use redrive_coordinator::dispatch::Dispatcher;
use redrive_coordinator::gates::Keeper;
use redrive_coordinator::metrics::BoundedLabels;
use redrive_coordinator::store::sqlite::SqliteStore;
use redrive_coordinator::store::{Claim, Store};
use redrive_shared::clock::{Clock, SystemClock};
use redrive_shared::task::TaskState;
use tokio_util::sync::CancellationToken;

use crate::support::wait::eventually;
use crate::support::{id, name, task};

#[tokio::test]
async fn what_a_claim_was_given_that_nobody_waits_for_any_more_is_handed_back() {
    let store: Arc<dyn Store> = Arc::new(SqliteStore::in_memory(Arc::new(SystemClock)).unwrap());
    store.make_queue(&name("default")).await.unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let reaper = Arc::<Alarm>::default();
    let labels = Arc::new(BoundedLabels::new(10));
    let gates = Keeper::new(Arc::clone(&store), Arc::clone(&clock), labels, true);
    let dispatcher = Dispatcher::new(Arc::clone(&store), clock, Arc::default(), reaper, Arc::new(gates));
    let stop = CancellationToken::new();
    let given_up = async {
        let claim = Claim {
            agent: name("a"),
            boot_id: None,
            request_id: None,
            queues: vec![name("default")],
            max: 10,
            lease_ms: Some(60_000),
            avoid: Vec::new(),
        };
        {
            let mut claiming = pin!(dispatcher.claim(claim, 30_000));
            // It stands in line; from now on nobody looks at it, and its answer comes all the same.
            poll_fn(|context| {
                assert!(claiming.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            store.enqueue(vec![task("t")]).await.unwrap();
            dispatcher.announce(&name("default"), 0);
            eventually("the task is leased", Duration::from_secs(30), async || {
                let task = store.get(&id("t")).await.unwrap()?;
                (task.state == TaskState::Leased).then_some(())
            })
            .await;
        }
        eventually("it is handed back", Duration::from_secs(30), async || {
            let task = store.get(&id("t")).await.unwrap()?;
            (task.state == TaskState::Scheduled).then_some(())
        })
        .await;
        let ledger = store.get(&id("t")).await.unwrap().expect("it is there").ledger;
        assert_eq!((ledger.undelivered, ledger.released), (1, 0), "no worker handed it back");
        stop.cancel();
    };
    tokio::join!(dispatcher.run(stop.clone()), given_up);
}
