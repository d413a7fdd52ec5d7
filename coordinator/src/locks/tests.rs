use std::future::{Future, pending};
use std::task::Poll;

use redrive_shared::clock::SystemClock;
use redrive_shared::id::Name;
use redrive_shared::lock::Mode;

use super::*;
use crate::store::sqlite::SqliteStore;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn desk() -> Arc<Desk> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Desk::new(Arc::new(SqliteStore::in_memory(Arc::clone(&clock)).unwrap()), clock)
}

fn owner(name: &str) -> Owner {
    Owner::Named { name: Name::new(name).unwrap() }
}

fn wish(name: &str, wait_ms: u64) -> Request {
    let wants = [(Resource::new("f").unwrap(), Mode::Exclusive)];
    Request::new(owner(name), wants).unwrap().timed(60_000, 5_000, wait_ms)
}

async fn take(desk: &Arc<Desk>, name: &str) -> Granted {
    match desk.acquire(wish(name, 0), pending()).await.unwrap() {
        Wish::Held(untold) => untold.told(),
        _ => panic!("{name} does not get it"),
    }
}

/// Until there are so many of each.
async fn until(desk: &Desk, holds: u64, waits: u64) {
    let there = async {
        while desk.counts().await.unwrap() != (LockCounts { holds, waits }) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, there).await.expect("there are so many");
}

/// Asks, and hangs up before anything can be answered.
async fn ask_and_hang_up(desk: &Arc<Desk>, request: Request) {
    let mut asking = Box::pin(desk.acquire(request, pending()));
    std::future::poll_fn(|context| {
        assert!(asking.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn a_lock_whose_caller_hung_up_before_it_was_told_is_given_back() {
    let desk = desk();
    ask_and_hang_up(&desk, wish("gone", 0)).await;
    until(&desk, 0, 0).await;
    assert!(take(&desk, "next").await.is_news, "long before the first one's time is over");
}

#[tokio::test]
async fn whoever_hangs_up_before_it_hears_that_it_waits_leaves_the_line() {
    let desk = desk();
    take(&desk, "holder").await;
    ask_and_hang_up(&desk, wish("gone", 60_000)).await;
    until(&desk, 1, 0).await;
}

#[tokio::test]
async fn an_answer_that_is_dropped_gives_the_lock_back_once_and_never_what_was_told() {
    let desk = desk();
    let Wish::Held(untold) = desk.acquire(wish("a", 0), pending()).await.unwrap() else {
        panic!("it is free")
    };
    drop(untold);
    until(&desk, 0, 0).await;
    let told = take(&desk, "a").await;
    // Its owner asks once more, and hangs up: it has it, and works under it.
    ask_and_hang_up(&desk, wish("a", 0)).await;
    let Wish::Held(again) = desk.acquire(wish("a", 0), pending()).await.unwrap() else {
        panic!("it is its own")
    };
    drop(again);
    tokio::task::yield_now().await;
    let renewed = desk.renew(vec![(told.token, owner("a"))]).await.unwrap();
    assert!(renewed[0].is_ok(), "{renewed:?}");
}

#[tokio::test]
async fn a_lock_that_was_waited_for_is_given_back_too() {
    let desk = desk();
    let held = take(&desk, "holder").await;
    let (waiting, asked) = (Arc::clone(&desk), wish("a", 60_000));
    let waiting = tokio::spawn(async move { waiting.acquire(asked, pending()).await });
    until(&desk, 1, 1).await;
    desk.release(vec![(held.token, owner("holder"))]).await.unwrap();
    let Wish::Held(untold) = waiting.await.unwrap().unwrap() else { panic!("its turn") };
    let stands = desk.counts().await.unwrap();
    drop(untold);
    until(&desk, 0, 0).await;
    assert_eq!(stands, LockCounts { holds: 1, waits: 0 });
}
