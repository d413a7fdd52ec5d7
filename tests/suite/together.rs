//! All behaviours on the same servers, several at once: for servers that take seconds to start.

use std::future::Future;
use std::pin::Pin;

use futures_util::StreamExt;
use futures_util::stream::iter;

use crate::support::{Bed, RedisBackend};

/// Behaviours at once: more than the machine has cores, so that waiting for servers does not add up.
const AT_ONCE: usize = 8;

/// One behaviour of the suite.
pub struct Behaviour {
    pub name: &'static str,
    pub run: fn(Bed) -> Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Runs each on a store of its own, with its name as the prefix, and panics with the names of all that failed.
pub async fn run(url: &str, shards: u16, behaviours: Vec<Behaviour>) {
    let ran = iter(behaviours).map(|behaviour| async move {
        let url = url.to_owned();
        let running = tokio::spawn(async move {
            let bed = Bed::new(RedisBackend::at(&url, behaviour.name, shards)).await;
            (behaviour.run)(bed).await;
        });
        // The panic itself has been printed, with its place.
        running.await.err().map(|_panicked| behaviour.name)
    });
    let failed: Vec<&str> =
        ran.buffer_unordered(AT_ONCE).filter_map(|failed| async move { failed }).collect().await;
    assert!(failed.is_empty(), "{} failed: {failed:#?}", failed.len());
}
