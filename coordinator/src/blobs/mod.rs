//! Where blobs are kept: payloads, results and states that are too large for the store.
//!
//! The store has the truth: a blob that no task refers to is nothing, whoever wrote it. So a blob is written first and
//! referred to afterwards, under the fence of whoever refers to it; what was never referred to, and what no task refers to
//! any more, is removed by [the sweep](crate::duties::Sweeper). Storage needs no fences, no transactions and no order: it keeps what it was
//! given until it is told to remove it.

pub mod address;
mod depot;
pub mod doctor;
mod files;
mod layout;
#[cfg(feature = "object-store")]
mod local;
#[cfg(feature = "object-store")]
mod objects;
mod open;
pub mod owner;
mod pieces;
#[cfg(feature = "postgres")]
mod postgres;
mod sqlite;
mod tree;

use async_trait::async_trait;
use axum::body::Bytes;
use futures_util::stream::BoxStream;
use redrive_shared::blob::BlobId;
use redrive_shared::id::TaskId;

pub use self::depot::{BLOB_GRACE_MS, Depot};
pub use self::open::open;

/// A blob's bytes, as they come.
pub type BlobStream = BoxStream<'static, Result<Bytes>>;

/// What storage answers with.
pub type Result<T> = std::result::Result<T, BlobError>;

/// Why storage did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// It does not answer, or it failed; whether it did it is not known.
    #[error("{0}")]
    Unavailable(String),
    /// It has no room.
    #[error("{0}")]
    Full(String),
    /// More bytes than a blob may have.
    #[error("a blob may have up to {limit} bytes")]
    TooLarge {
        /// So many it may have.
        limit: u64,
    },
    /// Its bytes stopped coming before it was whole.
    #[error("the upload ended before it was complete: {0}")]
    Interrupted(String),
}

/// Names one blob.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobKey {
    /// The task that it belongs to.
    pub task: TaskId,
    /// Which of its blobs.
    pub blob: BlobId,
}

impl BlobKey {
    /// As databases keep it.
    fn read(task: String, blob: &str) -> Result<Self> {
        let damaged =
            || BlobError::Unavailable(format!("there is something else among the blobs: {task:?}, {blob:?}"));
        let blob = blob.parse().map_err(|_| damaged())?;
        Ok(Self { task: TaskId::new(task.clone()).map_err(|_| damaged())?, blob })
    }
}

/// A blob that is there.
pub struct Stored {
    /// Its length.
    pub bytes: u64,
    /// As many bytes, or an error: what ends early is never taken for whole.
    pub body: BlobStream,
}

/// A place that keeps blobs. One suite runs against every implementation (`tests/blobs`).
#[async_trait]
pub trait Blobs: Send + Sync + 'static {
    /// Keeps a new blob; durable on return. When the stream or the storage fails, or the call is dropped, nobody sees
    /// anything of it: neither [`Blobs::get`] nor [`Blobs::length`].
    async fn put(&self, key: &BlobKey, body: BlobStream) -> Result<()>;
    /// A blob, as it was put. `None`: there is no such blob.
    async fn get(&self, key: &BlobKey) -> Result<Option<Stored>>;
    /// How many bytes a blob has. `None`: there is no such blob.
    async fn length(&self, key: &BlobKey) -> Result<Option<u64>>;
    /// Removes blobs, with whatever an upload that was cut off left of them. Those that are not there are removed already.
    async fn remove(&self, keys: &[BlobKey]) -> Result<()>;
    /// Up to `most` blobs above `after`, in the storage's own order, which stays the same; uploads that were cut off are among
    /// them, so that they can be removed. Fewer than `most`: these were the last.
    async fn list(&self, after: Option<&BlobKey>, most: usize) -> Result<Vec<BlobKey>>;
    /// Whether it answers now: cheap, asked with every `/readyz`. That it can be written and read is tried when it is opened.
    async fn check(&self) -> Result<()>;
    /// What it is and where, for people; no secrets.
    fn describe(&self) -> String;
}
