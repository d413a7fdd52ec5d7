//! A reference model: the rules of the design once more, naive and in memory, and random commands that go through it and
//! through a store. Whatever can be seen of both must agree after every step.
//!
//! `REDRIVE_MODEL_CASES` sets the number of random runs; what fails is shrunk to the fewest commands and printed.

mod command;
mod compare;
mod judge;
mod reference;

use std::cell::Cell;

use proptest::prelude::ProptestConfig;
use proptest::proptest;
use proptest::test_runner::TestRunner;

use self::compare::Pair;
use crate::support::redis::{RedisCluster, RedisServer};
use crate::support::{Bed, RedisBackend, SqliteBackend};

/// Enough for every run to find what a slip in any rule would change, and few enough for every run of the tests.
const CASES: u32 = 128;
/// Commands in one run.
const STEPS: usize = 70;

fn cases(usually: u32) -> u32 {
    let wanted = std::env::var("REDRIVE_MODEL_CASES").ok().and_then(|text| text.parse().ok());
    wanted.unwrap_or(usually)
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: cases(CASES),
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    }
}

/// Runs the commands against a store and the model, on a fresh store.
async fn agree(bed: Bed, commands: &[command::Command]) {
    let mut pair = Pair::new(bed).await;
    for command in commands {
        pair.step(command).await;
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs on servers that are started once: each run on a store of its own, in several shards.
async fn all_agree(url: &str, shards: u16) {
    const CASES: u32 = 24;
    let mut runner = TestRunner::new(ProptestConfig { cases: cases(CASES), ..config() });
    let (runs, runtime) = (Cell::new(0), tokio::runtime::Handle::current());
    let ran = runner.run(&command::sequences(STEPS), |commands| {
        runs.set(runs.get() + 1);
        let backend = RedisBackend::at(url, &format!("run-{}", runs.get()), shards);
        tokio::task::block_in_place(|| {
            runtime.block_on(async { agree(Bed::open(backend).await, &commands).await });
        });
        Ok(())
    });
    ran.unwrap_or_else(|failure| panic!("{failure}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shared_store_agrees_in_four_shards() {
    let server = RedisServer::start().await;
    all_agree(&server.url(), 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shared_store_agrees_on_a_cluster_in_sixteen_shards() {
    let cluster = RedisCluster::start().await;
    all_agree(&cluster.url(), 16).await;
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_embedded_store_agrees_with_the_model(commands in command::sequences(STEPS)) {
        runtime().block_on(async { agree(Bed::open(SqliteBackend::new()).await, &commands).await });
    }

    #[test]
    fn the_shared_store_agrees_with_the_model(commands in command::sequences(STEPS)) {
        runtime().block_on(async { agree(Bed::open(RedisBackend::new().await).await, &commands).await });
    }
}
