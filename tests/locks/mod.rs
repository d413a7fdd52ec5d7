//! Locks, as callers meet them: over the API of real coordinators, and from the command line.

mod api;
mod command;
mod failover;
mod metrics;
mod several;

use redrive_shared::id::Name;
use redrive_shared::lock::{Owner, Resource};
use redrive_shared::wire::{LockGrant, LockRef, LockRefs, LockRequest, LockResult};
use redrive_worker::client::{Client, ClientError};

/// Far longer than anything here takes.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

fn owner(name: &str) -> Owner {
    Owner::Named { name: Name::new(name).unwrap() }
}

/// A wish to have a resource alone.
fn wish(name: &str, resource: &str, wait_ms: u64) -> LockRequest {
    LockRequest {
        owner: owner(name),
        exclusive: vec![Resource::new(resource).unwrap()],
        shared: Vec::new(),
        ttl_ms: None,
        lock_delay_ms: None,
        wait_ms: Some(wait_ms),
    }
}

async fn take(client: &Client, request: &LockRequest) -> LockGrant {
    let wait_ms = request.wait_ms.unwrap_or(0);
    client.acquire_lock(request, wait_ms).await.unwrap().expect("granted within one request")
}

fn refs(name: &str, grant: &LockGrant) -> LockRefs {
    LockRefs { locks: vec![LockRef { token: grant.token, owner: owner(name) }] }
}

async fn renew(client: &Client, name: &str, grant: &LockGrant) -> LockResult {
    client.renew_locks(&refs(name, grant)).await.unwrap().locks.remove(0)
}

async fn release(client: &Client, name: &str, grant: &LockGrant) -> LockResult {
    client.release_locks(&refs(name, grant)).await.unwrap().locks.remove(0)
}

/// The code of a refusal.
fn code(error: ClientError) -> &'static str {
    match error {
        ClientError::Problem(problem) => problem.code.as_str(),
        other => panic!("{other}"),
    }
}
