//! Two coordinators on one Redis push the same queue: one at a time, whatever happens to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redrive_coordinator::store::Store;
use redrive_coordinator::store::redis::{RedisConfig, RedisStore};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::load::{Figures, Hands, Load};
use super::{OUTSTANDING, PATIENCE, PLAIN, make_queues, under_load, until_consumed};
use crate::support::process::Coordinator;
use crate::support::rabbit::shared;
use crate::support::redis::RedisServer;
use crate::support::wait::eventually;
use crate::support::{name, redis_config};

/// Longer than the two heartbeats of 5 s after which RabbitMQ takes a silent coordinator for gone.
const SUSPENDED: Duration = Duration::from_secs(12);
/// Between two looks at what is leased.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const PUSHED: &str = r#"redrive_pushed_total{queue="plain",result="confirmed"}"#;

/// The most that was leased at once, looked at all the time, and by somebody who is neither of the two.
struct Lookout {
    most: Arc<AtomicU64>,
    looks: Arc<AtomicU64>,
    _stop: DropGuard,
}

impl Lookout {
    async fn at(redis: &RedisServer) -> Self {
        let config = RedisConfig { prefix: "redrive".into(), ..redis_config(&redis.url()) };
        let store = RedisStore::open(&config, None).await.unwrap();
        let (most, looks, stop) =
            (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default(), CancellationToken::new());
        let lookout =
            Self { most: Arc::clone(&most), looks: Arc::clone(&looks), _stop: stop.clone().drop_guard() };
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            loop {
                let leased = store.leased(&name(PLAIN)).await.unwrap();
                most.fetch_max(leased, Ordering::Relaxed);
                looks.fetch_add(1, Ordering::Relaxed);
                sleep(LOOK_EVERY).await;
            }
        }));
        lookout
    }

    fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

/// Waits until this one pushes more than it has until now.
async fn until_it_pushes(coordinator: &Coordinator) -> Duration {
    let before = coordinator.metric(PUSHED).await;
    let pushes = async || (coordinator.metric(PUSHED).await > before).then_some(());
    eventually("it pushes", PATIENCE, pushes).await.1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_coordinators_pushes_and_the_other_goes_on_when_it_hangs_or_is_killed() {
    let redis = RedisServer::start().await;
    let rabbit = shared().await;
    let push = format!("{PLAIN}={OUTSTANDING}");
    let first = Coordinator::pushing(&redis.url(), &rabbit.url(), &push).await;
    make_queues(&first.client()).await;
    until_consumed(&rabbit.url(), "redrive.turn.plain", 1).await;
    let mut second = Coordinator::pushing(&redis.url(), &rabbit.url(), &push).await;
    // Of a turn queue RabbitMQ counts only the consumer whose turn it is.
    until_consumed(&rabbit.url(), "redrive.outcomes", 2).await;
    let lookout = Lookout::at(&redis).await;
    let hands = Hands::start(vec![rabbit.url()], PLAIN);

    let at_second = second.client();
    let load = Load::new().over_http(&at_second, PLAIN, "one");
    under_load(&at_second, PLAIN, 200).await;
    assert!(first.metric(PUSHED).await > 0);
    assert_eq!(second.metric(PUSHED).await, 0, "it is not its turn");
    first.suspend();
    let until = Instant::now() + SUSPENDED;
    let second_took = until_it_pushes(&second).await;
    under_load(&at_second, PLAIN, 100).await;
    sleep_until(until).await;
    let most_before = lookout.most();
    first.resume();
    under_load(&at_second, PLAIN, 200).await;
    let mut ids = load.stop().await;

    let at_first = first.client();
    let load = Load::new().over_http(&at_first, PLAIN, "two");
    under_load(&at_first, PLAIN, 50).await;
    until_consumed(&rabbit.url(), "redrive.outcomes", 2).await;
    let most_resumed = lookout.most();
    second.kill().await;
    let first_took = until_it_pushes(&first).await;
    under_load(&at_first, PLAIN, 200).await;
    ids.extend(load.stop().await);
    let figures = Figures::of(&at_first, &ids, &hands.runs(), None).await;
    println!(
        "two coordinators, room for {OUTSTANDING}: {figures}; one suspended, the other pushes after {second_took:.1?}; that \
         one killed -9, the first pushes after {first_took:.1?}; most leased at once: {most_before}, {most_resumed} with \
         the resumed one, {} after the kill, in {} looks; stale epochs refused by the resumed one: {}",
        lookout.most(),
        lookout.looks.load(Ordering::Relaxed),
        first.stale_epochs().await,
    );
    figures.check();
    let room = u64::from(OUTSTANDING);
    assert!(most_before <= room, "more than there is room for");
    // One that hung sees only after its next claim that the turn is another's: what it pushes until then waits in RabbitMQ.
    assert!(lookout.most() <= 2 * room, "more than both of them see room for");
}
