//! A reference model: the rules of the design once more, naive and in memory, and random commands that go through it and
//! through a store. Whatever can be seen of both must agree after every step.
//!
//! `REDRIVE_MODEL_CASES` sets the number of random runs; what fails is shrunk to the fewest commands and printed.

mod claims;
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
    agree_beside(bed, commands, async || {}).await;
}

/// The same, while somebody else does something after each.
async fn agree_beside(bed: Bed, commands: &[command::Command], other: impl AsyncFn()) {
    let mut pair = Pair::new(bed).await;
    for command in commands {
        pair.step(command).await;
        other().await;
    }
}

/// What a newer release would have written: a field that this one does not know in the record and the meta of every task
/// that nobody holds. Its scripts are others, so that this one's may be gone from the cache at any time.
pub const NEWER_RELEASE: &str = r"
for _, key in ipairs(redis.call('KEYS', KEYS[1] .. '*')) do
  local value = redis.call('GET', key)
  local record, meta = struct.unpack('>I2I2', value, 35)
  local field = '\160\006\001'
  local ends = 50 + record
  local leased = redis.call('ZSCORE', string.sub(KEYS[1], 1, -3) .. 'r', string.sub(key, #KEYS[1] + 1))
  if not leased and string.sub(value, ends + meta - 2, ends + meta) ~= field then
    redis.call('SET', key, string.sub(value, 1, 34) .. struct.pack('>I2I2', record + 3, meta + 3)
      .. string.sub(value, 39, ends) .. field .. string.sub(value, ends + 1, ends + meta) .. field
      .. string.sub(value, ends + meta + 1))
  end
end";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shared_store_agrees_beside_a_newer_release() {
    const CASES: u32 = 24;
    let server = RedisServer::start().await;
    all_agree_by(CASES, async |run, commands| {
        let prefix = format!("run-{run}");
        let bed = Bed::open(RedisBackend::at(&server.url(), &prefix, 1)).await;
        let newer = async || {
            server.command(&["SCRIPT", "FLUSH"]).await;
            server.command(&["EVAL", NEWER_RELEASE, "1", &format!("{prefix}:{{0}}:t:")]).await;
        };
        agree_beside(bed, commands, newer).await;
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs on servers that are started once: each run on a store of its own, in several shards.
fn all_agree(url: &str, shards: u16) {
    const CASES: u32 = 24;
    all_agree_by(CASES, async |run, commands| {
        let backend = RedisBackend::at(url, &format!("run-{run}"), shards);
        agree(Bed::open(backend).await, commands).await;
    });
}

/// Runs commands in a way that is told which run it is.
fn all_agree_by(usually: u32, run: impl AsyncFn(u32, &[command::Command])) {
    let mut runner = TestRunner::new(ProptestConfig { cases: cases(usually), ..config() });
    let (runs, runtime) = (Cell::new(0), tokio::runtime::Handle::current());
    let ran = runner.run(&command::sequences(STEPS), |commands| {
        runs.set(runs.get() + 1);
        tokio::task::block_in_place(|| runtime.block_on(run(runs.get(), &commands)));
        Ok(())
    });
    ran.unwrap_or_else(|failure| panic!("{failure}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shared_store_agrees_in_four_shards() {
    let server = RedisServer::start().await;
    all_agree(&server.url(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shared_store_agrees_on_a_cluster_in_sixteen_shards() {
    let cluster = RedisCluster::start().await;
    all_agree(&cluster.url(), 16);
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
