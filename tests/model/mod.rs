//! A reference model: the rules of the design once more, naive and in memory, and random commands that go through it and
//! through a store. Whatever can be seen of both must agree after every step.
//!
//! `REDRIVE_MODEL_CASES` sets the number of random runs; what fails is shrunk to the fewest commands and printed.

mod command;
mod compare;
mod judge;
mod reference;

use proptest::prelude::ProptestConfig;
use proptest::proptest;

use self::compare::Pair;
use crate::support::{Bed, RedisBackend, SqliteBackend};

/// Enough for every run to find what a slip in any rule would change, and few enough for every run of the tests.
const CASES: u32 = 128;
/// Commands in one run.
const STEPS: usize = 70;

fn config() -> ProptestConfig {
    let cases = std::env::var("REDRIVE_MODEL_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(CASES),
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
