//! Storage under test, and short ways to say things.

use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use redrive_coordinator::blobs::address::BlobsAddress;
use redrive_coordinator::blobs::{BlobError, BlobKey, BlobStream, Blobs, open};
use redrive_shared::blob::BlobId;
use tempfile::TempDir;

use crate::support::postgres::PostgresServer;
use crate::support::s3::S3Server;
use crate::support::{START_MS, fast_directory, id};

/// One MiB.
pub const MIB: usize = 1024 * 1024;

/// Where blobs are kept in a test, and what must stay as long as they are.
pub enum Place {
    Files(TempDir),
    Sqlite(TempDir),
    Local(TempDir),
    Postgres(PostgresServer),
    S3(S3Server),
}

impl Place {
    pub fn files() -> Self {
        Self::Files(fast_directory())
    }

    pub fn sqlite() -> Self {
        Self::Sqlite(fast_directory())
    }

    pub fn local() -> Self {
        Self::Local(fast_directory())
    }

    pub async fn postgres() -> Self {
        Self::Postgres(PostgresServer::start().await)
    }

    pub async fn s3() -> Self {
        Self::S3(S3Server::start().await)
    }

    /// An address in it, apart from those of other names.
    pub fn address(&self, name: &str) -> String {
        let at = |directory: &TempDir| directory.path().join(name).display().to_string();
        match self {
            Self::Files(directory) => format!("files:{}", at(directory)),
            Self::Sqlite(directory) => format!("sqlite:{}.sqlite", at(directory)),
            Self::Local(directory) => format!("file://{}", at(directory)),
            // It cuts longer names of schemas.
            Self::Postgres(server) => format!("{}?schema={}", server.url(), &name[..name.len().min(60)]),
            Self::S3(_) => S3Server::url(name),
        }
    }

    /// The directory that it is in, where it is in one.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Files(directory) | Self::Sqlite(directory) | Self::Local(directory) => {
                Some(directory.path())
            }
            Self::Postgres(_) | Self::S3(_) => None,
        }
    }

    pub async fn open(&self, name: &str) -> Result<Arc<dyn Blobs>, BlobError> {
        let environment = match self {
            Self::S3(server) => server.environment(),
            _ => Vec::new(),
        };
        open(&self.address(name).parse::<BlobsAddress>().expect("an address"), &environment).await
    }
}

/// Storage to play with.
pub struct Bed<'a> {
    pub place: &'a Place,
    pub name: &'static str,
    pub blobs: Arc<dyn Blobs>,
}

impl<'a> Bed<'a> {
    pub async fn open(place: &'a Place, name: &'static str) -> Self {
        Self { place, name, blobs: place.open(name).await.expect("it opens") }
    }

    pub async fn put(&self, key: &BlobKey, bytes: &[u8]) {
        self.blobs.put(key, body(bytes.to_vec())).await.expect("it is put");
    }

    /// The whole blob.
    pub async fn get(&self, key: &BlobKey) -> Option<Vec<u8>> {
        let found = self.blobs.get(key).await.expect("an answer")?;
        let chunks: Vec<_> = found.body.try_collect().await.expect("all of it");
        let whole = chunks.concat();
        assert_eq!(found.bytes, whole.len() as u64);
        assert_eq!(self.blobs.length(key).await.expect("an answer"), Some(found.bytes));
        Some(whole)
    }

    /// Everything that is listed, in pages of so many.
    pub async fn list(&self, page: usize) -> Vec<BlobKey> {
        let mut all: Vec<BlobKey> = Vec::new();
        loop {
            let more = self.blobs.list(all.last(), page).await.expect("a list");
            assert!(more.len() <= page, "{}", more.len());
            let last = more.len() < page;
            all.extend(more);
            if last {
                return all;
            }
        }
    }

    /// Nobody sees anything of it, and nothing is left when it was removed.
    pub async fn assert_nothing(&self, key: &BlobKey) {
        assert!(self.blobs.get(key).await.expect("an answer").is_none());
        assert_eq!(self.blobs.length(key).await.expect("an answer"), None);
    }
}

/// A blob of a task; each number is another one.
pub fn key(task: &str, number: u8) -> BlobKey {
    BlobKey { task: id(task), blob: BlobId::new(START_MS + i64::from(number), [number; 10]) }
}

/// So many bytes that do not repeat.
pub fn bytes(length: usize) -> Vec<u8> {
    let mut state = length as u64 | 1;
    let mut next = move || {
        // xorshift64 (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&next());
    }
    bytes.truncate(length);
    bytes
}

/// These bytes, as they may come over a network: in chunks of no size in particular.
pub fn body(bytes: Vec<u8>) -> BlobStream {
    const CHUNK: usize = 60_000;
    let chunks: Vec<_> = bytes.chunks(CHUNK).map(|chunk| Ok(chunk.to_vec().into())).collect();
    stream::iter(chunks).boxed()
}

/// These bytes, and then nothing for ever.
pub fn body_that_stops(bytes: Vec<u8>) -> BlobStream {
    body(bytes).chain(stream::pending()).boxed()
}
