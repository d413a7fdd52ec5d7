//! Locks over the API.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use redrive_shared::id::Name;
use redrive_shared::lock::{Owner, Resource};
use redrive_shared::wire::{LockGrant, LockRef, LockRefs, LockRequest};
use redrive_worker::client::Client;
use tokio::task::JoinSet;

use super::{HandedOn, Held};

/// How long one may wait in line: all are served long before.
const WAIT_MS: u64 = 50_000;

fn request(owner: &str, resource: &str, wait_ms: u64) -> anyhow::Result<LockRequest> {
    Ok(LockRequest {
        owner: Owner::Named { name: Name::new(owner)? },
        exclusive: vec![Resource::new(resource)?],
        shared: Vec::new(),
        ttl_ms: None,
        lock_delay_ms: None,
        wait_ms: Some(wait_ms),
    })
}

async fn take(client: &Client, request: &LockRequest) -> anyhow::Result<LockGrant> {
    let wait_ms = request.wait_ms.unwrap_or(0);
    client.acquire_lock(request, wait_ms).await?.context("the lock was not granted in time")
}

async fn give_back(client: &Client, request: &LockRequest, grant: &LockGrant) -> anyhow::Result<()> {
    let lock = LockRef { token: grant.token, owner: request.owner.clone() };
    let results = client.release_locks(&LockRefs { locks: vec![lock] }).await?;
    ensure!(results.locks.iter().all(|result| result.lost.is_none()), "a lock was lost");
    Ok(())
}

/// Pairs a second.
pub async fn free(clients: &[Client], callers: usize, round: Duration) -> anyhow::Result<f64> {
    let started = Instant::now();
    let mut asking: JoinSet<anyhow::Result<u64>> = JoinSet::new();
    for caller in 0..callers {
        let client = clients[caller % clients.len()].clone();
        let request = request(&format!("bench-{caller}"), &format!("bench/file-{caller}"), 0)?;
        asking.spawn(async move {
            let mut pairs = 0;
            while started.elapsed() < round {
                let grant = take(&client, &request).await?;
                give_back(&client, &request, &grant).await?;
                pairs += 1;
            }
            Ok(pairs)
        });
    }
    let mut pairs = 0;
    while let Some(done) = asking.join_next().await {
        pairs += done??;
    }
    Ok(pairs as f64 / started.elapsed().as_secs_f64())
}

/// One lock through so many hands.
pub async fn handed_on(clients: &[Client], waiters: usize) -> anyhow::Result<HandedOn> {
    let client = clients[0].clone();
    let (first, started) = (request("bench-first", "bench/wanted", 0)?, Instant::now());
    let since_ms = move || started.elapsed().as_secs_f64() * 1_000.0;
    let grant = take(&client, &first).await?;
    let mut waiting: JoinSet<anyhow::Result<Held>> = JoinSet::new();
    for place in 0..waiters {
        let client = clients[place % clients.len()].clone();
        let wanted = request(&format!("bench-waits-{place}"), "bench/wanted", WAIT_MS)?;
        waiting.spawn(async move {
            let grant = take(&client, &wanted).await?;
            let granted_ms = since_ms();
            // From before it is sent: what the release itself takes is part of handing on.
            let released_ms = since_ms();
            give_back(&client, &wanted, &grant).await?;
            Ok(Held { place, granted_ms, released_ms })
        });
        // One after the other, so that their order is known.
        while clients[0].locks().await?.waiting.len() <= place {
            ensure!(started.elapsed() < Duration::from_millis(WAIT_MS / 2), "they do not stand in line");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let released_ms = since_ms();
    give_back(&client, &first, &grant).await?;
    let mut held = Vec::with_capacity(waiters);
    while let Some(done) = waiting.join_next().await {
        held.push(done??);
    }
    Ok(HandedOn::of(released_ms, held))
}
