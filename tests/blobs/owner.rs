//! Storage is one store's: another that is told the same place does not start.

use std::path::Path;

use redrive_coordinator::{BlobsConfig, CoordinatorConfig};
use redrive_worker::client::Client;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::bed::Place;
use crate::support::fast_directory;
use crate::support::server::Server;

fn config(data_dir: &Path, place: &Place) -> CoordinatorConfig {
    let url = Some(place.address("one").parse().unwrap());
    CoordinatorConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: data_dir.to_owned(),
        blobs: BlobsConfig { url, ..BlobsConfig::default() },
        ..CoordinatorConfig::default()
    }
}

async fn why_it_does_not_start(config: CoordinatorConfig) -> String {
    let (ready, _address) = oneshot::channel();
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    redrive_coordinator::run(config, None, stop, ready).await.unwrap_err().to_string()
}

async fn each_store_needs_its_own(place: Place) {
    drop(Client::new("http://127.0.0.1:1"));
    let (one, other) = (fast_directory(), fast_directory());
    Server::with(config(one.path(), &place)).await.stop().await;
    let why = why_it_does_not_start(config(other.path(), &place)).await;
    assert!(why.contains("belong to the store") && why.contains("blobs.url"), "{why}");
    let in_memory = CoordinatorConfig { in_memory: true, ..config(other.path(), &place) };
    let why = why_it_does_not_start(in_memory).await;
    assert!(why.contains("belong to the store"), "{why}");
    // The one whose it is starts again.
    Server::with(config(one.path(), &place)).await.stop().await;
}

#[tokio::test]
async fn files_are_one_stores() {
    each_store_needs_its_own(Place::files()).await;
}

#[tokio::test]
async fn a_schema_of_postgresql_is_one_stores() {
    each_store_needs_its_own(Place::postgres().await).await;
}
