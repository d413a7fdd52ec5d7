//! Blobs in object storage: `<prefix>/<task>/<blob>.json`, by the crate object_store.
//!
//! A blob of one part is put in one request. A larger one is an upload of several parts, which S3 shows to nobody before it is
//! complete, but keeps for ever when it is not: so its name is put beside the blob first, and whoever removes the blob ends it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, MultipartId, ObjectStore, ObjectStoreExt as _, PutPayload, RetryConfig,
};

use super::pieces::{cut, read};
use super::{BlobError, BlobKey, BlobStream, Blobs, Result, Stored, layout};

/// Bytes of a part: the fewest that S3 takes. 5 GiB have 1,024 of them, of 10,000 that S3 takes.
pub(super) const PART_BYTES: usize = 5 * 1024 * 1024;
/// Bytes of one request for a part of a blob.
pub(super) const READ_BYTES: u64 = 2 * 1024 * 1024;
/// Requests at once where many blobs are removed.
const REMOVALS_AT_ONCE: usize = 8;
/// For a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For one request, to its last byte: each carries a part at most.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A request that failed in passing is repeated so often, for so long in all.
const RETRIES_MAX: usize = 3;
/// See [`RETRIES_MAX`].
const RETRY_TIMEOUT: Duration = Duration::from_secs(15);

/// A bucket that keeps blobs.
pub(super) struct S3Blobs {
    store: Arc<AmazonS3>,
    prefix: String,
    shown: String,
}

impl S3Blobs {
    /// Tries the bucket with a small object, which it removes. Endpoint, region and credentials are those of the environment
    /// that is given.
    pub(super) async fn open(bucket: &str, prefix: &str, environment: &[(String, String)]) -> Result<Self> {
        let blobs = Self::reach(bucket, prefix, environment)?;
        // No task's part begins with a dot.
        let probe = blobs.at(&[format!(".probe-{:016x}", rand::random::<u64>())])?;
        blobs.store.put(&probe, PutPayload::from_static(b"{}")).await.map_err(failed)?;
        blobs.store.get_range(&probe, 0..2).await.map_err(failed)?;
        blobs.store.delete(&probe).await.map_err(failed)?;
        Ok(blobs)
    }

    /// Nothing is asked yet.
    pub(super) fn reach(bucket: &str, prefix: &str, environment: &[(String, String)]) -> Result<Self> {
        super::open::choose_tls_provider();
        let options =
            ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_timeout(REQUEST_TIMEOUT);
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIMEOUT,
        };
        let mut builder = AmazonS3Builder::new().with_client_options(options).with_retry(retry);
        for (name, value) in environment.iter().filter(|(name, _)| name.starts_with("AWS_")) {
            if let Ok(key) = name.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
        let store = builder.with_bucket_name(bucket).build().map_err(failed)?;
        let slash = if prefix.is_empty() { "" } else { "/" };
        Ok(Self {
            store: Arc::new(store),
            prefix: prefix.to_owned(),
            shown: format!("s3://{bucket}{slash}{prefix}"),
        })
    }

    fn at(&self, parts: &[String]) -> Result<Path> {
        let mut path = vec![self.prefix.as_str()];
        path.extend(parts.iter().map(String::as_str));
        path.retain(|part| !part.is_empty());
        Path::parse(path.join("/")).map_err(|error| BlobError::Unavailable(error.to_string()))
    }

    /// Where a blob is, and where the name of its upload is.
    fn places(&self, key: &BlobKey) -> Result<(Path, Path)> {
        let mut parts = layout::path(key);
        let whole = self.at(&parts)?;
        if let Some(file) = parts.last_mut() {
            file.push_str(layout::UPLOAD);
        }
        Ok((whole, self.at(&parts)?))
    }

    /// What a key of the bucket is to us.
    fn key(&self, path: &Path) -> Option<BlobKey> {
        let inner = match self.prefix.as_str() {
            "" => path.as_ref(),
            prefix => path.as_ref().strip_prefix(prefix)?.strip_prefix('/')?,
        };
        let (task, file) = inner.rsplit_once('/')?;
        Some(BlobKey { task: layout::task(task.split('/'))?, blob: layout::blob(file)? })
    }

    async fn put_parts(
        &self,
        whole: &Path,
        id: &MultipartId,
        first: Bytes,
        mut rest: BlobStream,
    ) -> Result<()> {
        let mut parts: Vec<PartId> = Vec::new();
        let mut next = Some(first);
        while let Some(piece) = next {
            let part = self.store.put_part(whole, id, parts.len(), piece.into()).await.map_err(failed)?;
            parts.push(part);
            next = rest.try_next().await?;
        }
        self.store.complete_multipart(whole, id, parts).await.map_err(failed).map(|_| ())
    }

    /// Ends the upload that has its name there, if there is one.
    async fn end_upload(&self, whole: &Path, upload: &Path) -> Result<()> {
        let id = match self.store.get(upload).await {
            Ok(found) => found.bytes().await.map_err(failed)?,
            Err(object_store::Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        match self.store.abort_multipart(whole, &String::from_utf8_lossy(&id).into_owned()).await {
            // It was complete, or ended before.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
        self.store.delete(upload).await.map_err(failed)
    }

    async fn remove_one(&self, key: &BlobKey) -> Result<()> {
        let (whole, upload) = self.places(key)?;
        self.end_upload(&whole, &upload).await?;
        match self.store.delete(&whole).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

#[async_trait]
impl Blobs for S3Blobs {
    async fn put(&self, key: &BlobKey, body: BlobStream) -> Result<()> {
        let (whole, upload) = self.places(key)?;
        let mut pieces = cut(body, PART_BYTES);
        let first = pieces.try_next().await?.unwrap_or_default();
        let second = if first.len() < PART_BYTES { None } else { pieces.try_next().await? };
        let Some(second) = second else {
            return self.store.put(&whole, first.into()).await.map_err(failed).map(|_| ());
        };
        let id = self.store.create_multipart(&whole).await.map_err(failed)?;
        if let Err(error) = self.store.put(&upload, PutPayload::from(id.clone())).await {
            // Nobody else would ever know of it.
            let _ended = self.store.abort_multipart(&whole, &id).await;
            return Err(failed(error));
        }
        let rest = stream::iter([Ok(second)]).chain(pieces).boxed();
        let put = self.put_parts(&whole, &id, first, rest).await;
        // Where this fails, or is not come to, the next sweep finds the name. A blob that is whole stays.
        let ended = match put {
            Ok(()) => self.store.delete(&upload).await.map_err(failed),
            Err(_) => self.end_upload(&whole, &upload).await,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, %whole, "the name of an upload is left to the sweep");
        }
        put
    }

    async fn get(&self, key: &BlobKey) -> Result<Option<Stored>> {
        let Some(bytes) = self.length(key).await? else { return Ok(None) };
        let (whole, _) = self.places(key)?;
        let store = Arc::clone(&self.store);
        // In requests of their own: a slow reader of the blob holds none of them open.
        Ok(Some(read(bytes, READ_BYTES, move |range| {
            let (store, whole) = (Arc::clone(&store), whole.clone());
            async move { store.get_range(&whole, range).await.map_err(failed) }
        })))
    }

    async fn length(&self, key: &BlobKey) -> Result<Option<u64>> {
        match self.store.head(&self.places(key)?.0).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    async fn remove(&self, keys: &[BlobKey]) -> Result<()> {
        stream::iter(keys.iter().map(Ok))
            .try_for_each_concurrent(REMOVALS_AT_ONCE, |key| self.remove_one(key))
            .await
    }

    async fn list(&self, after: Option<&BlobKey>, most: usize) -> Result<Vec<BlobKey>> {
        let below = self.at(&[])?;
        let below = Some(&below).filter(|path| !path.as_ref().is_empty());
        let mut listed = match after {
            // Behind the blob and the name of its upload.
            Some(key) => self.store.list_with_offset(below, &self.places(key)?.1),
            None => self.store.list(below),
        };
        let mut found: Vec<BlobKey> = Vec::new();
        while found.len() < most {
            let Some(object) = listed.try_next().await.map_err(failed)? else { break };
            let key = self.key(&object.location);
            // A blob and the name of its upload are one.
            found.extend(key.filter(|key| found.last() != Some(key)));
        }
        Ok(found)
    }

    async fn check(&self) -> Result<()> {
        // One that is not there: asking is the cheapest request there is.
        match self.store.head(&self.at(&[".probe".to_owned()])?).await {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    fn describe(&self) -> String {
        self.shown.clone()
    }
}

/// What object storage said, as short as it can be told.
pub(super) fn failed(error: object_store::Error) -> BlobError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return super::tree::failed(io);
        }
        cause = inner.source();
    }
    BlobError::Unavailable(error.to_string())
}
