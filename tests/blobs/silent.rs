//! Storage that takes every question and never answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use redrive_coordinator::blobs::{BlobKey, BlobStream, Blobs, Depot, Result, Stored};
use redrive_coordinator::engine::Engine;
use redrive_shared::blob::{BlobId, BlobRef, Sha256Sum};
use redrive_shared::clock::Clock;
use redrive_shared::cost::Cost;
use redrive_shared::error::ErrorCode;
use redrive_shared::task::{Lease, TaskState};
use redrive_shared::wire::{Outcome, SettleRequest, Settlement};
use tokio_util::sync::CancellationToken;

use crate::support::{Bed, SqliteBackend, raw, task};

struct Silent;

#[async_trait]
impl Blobs for Silent {
    async fn put(&self, _key: &BlobKey, _body: BlobStream) -> Result<()> {
        std::future::pending().await
    }

    async fn get(&self, _key: &BlobKey) -> Result<Option<Stored>> {
        std::future::pending().await
    }

    async fn length(&self, _key: &BlobKey) -> Result<Option<u64>> {
        std::future::pending().await
    }

    async fn remove(&self, _keys: &[BlobKey]) -> Result<()> {
        std::future::pending().await
    }

    async fn list(&self, _after: Option<&BlobKey>, _most: usize) -> Result<Vec<BlobKey>> {
        std::future::pending().await
    }

    async fn check(&self) -> Result<()> {
        std::future::pending().await
    }

    fn describe(&self) -> String {
        "silence".into()
    }
}

fn done(lease: &Lease, result_ref: Option<BlobRef>) -> Settlement {
    let result = result_ref.is_none().then(|| raw("1"));
    let outcome = Outcome::Done { result, result_ref, cost_usd: Cost::default() };
    Settlement { id: lease.id.clone(), epoch: lease.epoch, nonce: lease.nonce, outcome }
}

#[tokio::test]
async fn it_holds_up_no_settlement_that_has_nothing_to_do_with_it() {
    let bed = Bed::new(SqliteBackend::new()).await;
    let clock = Arc::clone(&bed.clock) as Arc<dyn Clock>;
    let depot = Arc::new(Depot::new(Arc::new(Silent), Arc::clone(&clock), 1 << 20, 0));
    let engine = Engine::new(bed.shared(), Some(depot), clock, false, true, CancellationToken::new());
    bed.put(task("with")).await;
    bed.put(task("without")).await;
    let leases = bed.take(2).await;
    let blob = BlobId::new(bed.now_ms(), [1; 10]);
    let blob = BlobRef { blob, bytes: 1, sha256: Sha256Sum([0; 32]) };
    let settlements = leases.iter().map(|lease| done(lease, (lease.id.as_str() == "with").then_some(blob)));
    let began = Instant::now();
    let reply = engine.settle(SettleRequest { settlements: settlements.collect() }).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(8), "workers wait for 10 s: {:?}", began.elapsed());
    for result in reply.results {
        let code = result.error.map(|error| error.code);
        match result.id.as_str() {
            "with" => assert_eq!((code, result.state), (Some(ErrorCode::BlobsUnavailable), None)),
            _ => assert_eq!((code, result.state), (None, Some(TaskState::Succeeded))),
        }
    }
}

#[tokio::test]
async fn looks_at_it_do_not_pile_up() {
    let bed = Bed::new(SqliteBackend::new()).await;
    let depot = Depot::new(Arc::new(Silent), Arc::clone(&bed.clock) as Arc<dyn Clock>, 1, 0);
    assert!(depot.check().await.unwrap_err().to_string().contains("no answer within"));
    let again = Instant::now();
    assert!(depot.check().await.unwrap_err().to_string().contains("an earlier look"));
    assert!(again.elapsed() < Duration::from_secs(1), "it is not asked again meanwhile");
}
