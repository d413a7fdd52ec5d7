//! Whose storage it is. What one store refers to, another knows nothing of, and would sweep away: so each has storage of its own,
//! and a mark in it says whose it is. It is read before anything is removed, too: a store that lost everything has another name
//! from then on, and must not take its blobs along.

use std::time::Duration;

use axum::body::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use redrive_shared::blob::BlobId;
use redrive_shared::id::TaskId;

use super::{BlobError, BlobKey, Blobs, Result};

/// Under which task the mark lies. Blobs of a task of that name are others: none is as old as the mark.
const TASK: &str = "redrive/owner";
/// How often it is tried to mark storage that is nobody's yet: another coordinator may be at it.
const TRIES: usize = 5;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// The mark's place among the blobs. It is none, though it is kept and listed as if it were.
pub fn mark() -> BlobKey {
    BlobKey { task: TaskId::new(TASK).expect("letters and a slash"), blob: BlobId::new(0, [0; 10]) }
}

/// Marks storage as that store's, unless it is marked.
///
/// # Errors
/// It is another store's, or it does not answer.
pub async fn take_for(blobs: &dyn Blobs, store: &str) -> Result<()> {
    for _ in 0..TRIES {
        if let Some(owner) = read(blobs).await? {
            return compare(blobs, store, &owner);
        }
        if put(blobs, store).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    }
    // Nobody brought it to its end: what was cut off is in the way.
    blobs.remove(&[mark()]).await?;
    put(blobs, store).await?;
    check(blobs, store).await
}

/// Whether storage is that store's still.
///
/// # Errors
/// It is another store's, or nobody's, or it does not answer.
pub async fn check(blobs: &dyn Blobs, store: &str) -> Result<()> {
    match read(blobs).await? {
        Some(owner) => compare(blobs, store, &owner),
        None => Err(BlobError::Unavailable(format!("{} does not say whose it is", blobs.describe()))),
    }
}

async fn put(blobs: &dyn Blobs, store: &str) -> Result<()> {
    blobs.put(&mark(), stream::iter([Ok(Bytes::from(written(store)))]).boxed()).await
}

async fn read(blobs: &dyn Blobs) -> Result<Option<String>> {
    let Some(stored) = blobs.get(&mark()).await? else { return Ok(None) };
    let parts: Vec<Bytes> = stored.body.try_collect().await?;
    Ok(Some(String::from_utf8_lossy(&parts.concat()).into_owned()))
}

/// A store's name as the mark has it: JSON, as blobs are.
fn written(store: &str) -> String {
    format!("\"{store}\"")
}

fn compare(blobs: &dyn Blobs, store: &str, owner: &str) -> Result<()> {
    if owner == written(store) {
        return Ok(());
    }
    Err(BlobError::Unavailable(format!(
        "the blobs at {} belong to the store {owner}, and this one is {}: it would sweep away what that one refers to; give each \
         store a place of its own (`blobs.url`); if that one is no more, remove its place",
        blobs.describe(),
        written(store)
    )))
}
