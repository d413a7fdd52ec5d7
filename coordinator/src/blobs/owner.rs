//! Whose storage it is. What one store refers to, another knows nothing of, and would sweep away: so each has storage of its own,
//! and a mark in it says whose it is.

use futures_util::{StreamExt, TryStreamExt, stream};
use redrive_shared::blob::BlobId;
use redrive_shared::id::TaskId;

use super::{BlobError, BlobKey, Blobs, Result};

/// Under which task the mark lies. Blobs of a task of that name are others: none is as old as the mark.
const TASK: &str = "redrive/owner";

/// The mark's place among the blobs. It is none, though it is kept and listed as if it were.
pub fn mark() -> Option<BlobKey> {
    Some(BlobKey { task: TaskId::new(TASK).ok()?, blob: BlobId::new(0, [0; 10]) })
}

/// Marks storage as that store's, unless it is.
///
/// # Errors
/// It is another store's, or it does not answer.
pub(super) async fn take_for(blobs: &dyn Blobs, store: &str) -> Result<()> {
    let Some(mark) = mark() else { return Ok(()) };
    if read(blobs, &mark).await?.is_none() {
        let owner = axum::body::Bytes::from(format!("\"{store}\""));
        blobs.put(&mark, stream::iter([Ok(owner)]).boxed()).await?;
    }
    // What is there counts: two that come at once find one of them.
    match read(blobs, &mark).await? {
        Some(owner) if owner == format!("\"{store}\"") => Ok(()),
        Some(owner) => Err(BlobError::Unavailable(format!(
            "the blobs at {} belong to the store {owner}, and this one is \"{store}\": it would sweep away what that one refers to; \
             give each store a place of its own (`blobs.url`); if that one is no more, remove its place",
            blobs.describe()
        ))),
        None => Err(BlobError::Unavailable(format!("what was written to {} is not there", blobs.describe()))),
    }
}

async fn read(blobs: &dyn Blobs, mark: &BlobKey) -> Result<Option<String>> {
    let Some(stored) = blobs.get(mark).await? else { return Ok(None) };
    let parts: Vec<_> = stored.body.try_collect().await?;
    Ok(Some(String::from_utf8_lossy(&parts.concat()).into_owned()))
}
