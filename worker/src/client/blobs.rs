//! Blobs, up and down, as streams: never whole in memory, and never waited for without end.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use futures_util::stream;
use redrive_shared::blob::{BlobRef, Sha256Sum};
use redrive_shared::id::TaskId;
use reqwest::{Body, Method, Response, Url, header};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{Client, ClientError, excerpt, protocol, unreachable};

/// How long no byte may go up or come down. The coordinator itself gives up an upload after 10 s of silence, unless it is told
/// otherwise.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the answer to an upload may take after its last byte: storage makes it durable first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes that are read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// What went up so far.
#[derive(Default)]
struct Sent {
    bytes: AtomicU64,
    ended: AtomicBool,
    hasher: Mutex<Sha256>,
}

impl Client {
    /// Keeps a blob for a task, which need not be there yet, and answers with what refers to it; it is to be referred to within
    /// half an hour. An upload that fails leaves nothing.
    ///
    /// # Errors
    /// A problem `body_too_large`, `no_blobs`, `overloaded` or `blobs_unavailable`; nothing within the time-outs; the reader's
    /// own error, which ends the upload; [`ClientError::Garbled`] where other bytes were kept than were sent.
    pub async fn upload_blob(
        &self,
        task: &TaskId,
        reader: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<BlobRef, ClientError> {
        let url = self.endpoint(&["v1", "tasks", task, "blobs"])?;
        let sent = Arc::<Sent>::default();
        let call = self
            .request(Method::POST, &url)
            // Only silence ends it.
            .timeout(Duration::MAX)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::wrap_stream(body(reader, Arc::clone(&sent))));
        let asking = async {
            let response = self.send(call, &url).await?;
            let status = response.status().as_u16();
            let answer = response.bytes().await.map_err(|source| unreachable(&url, source))?;
            serde_json::from_slice::<BlobRef>(&answer)
                .map_err(|error| protocol(&url, Some(status), format!("{error} in {:?}", excerpt(&answer))))
        };
        tokio::pin!(asking);
        let (mut seen, mut patience) = (0, IDLE_TIMEOUT);
        let kept = loop {
            match tokio::time::timeout(patience, &mut asking).await {
                Ok(answer) => break answer?,
                Err(_) => {
                    let now = sent.bytes.load(Ordering::Relaxed);
                    if now == seen {
                        let detail = format!("the upload stood still after {now} bytes");
                        return Err(protocol(&url, None, detail));
                    }
                    seen = now;
                    let ended = sent.ended.load(Ordering::Relaxed);
                    patience = if ended { ANSWER_TIMEOUT } else { IDLE_TIMEOUT };
                }
            }
        };
        let hasher = sent.hasher.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (bytes, sha256) = (sent.bytes.load(Ordering::Relaxed), Sha256Sum(hasher.finalize().into()));
        if (kept.bytes, kept.sha256) != (bytes, sha256) {
            let detail = format!(
                "{bytes} bytes of SHA-256 {sha256} were sent, and {} of {} kept",
                kept.bytes, kept.sha256
            );
            return Err(ClientError::Garbled { url: url.to_string(), detail });
        }
        Ok(kept)
    }

    /// A blob of a task, as it comes: its length and hash are compared with the reference's.
    ///
    /// # Errors
    /// A problem `unknown_blob`, `no_blobs`, `overloaded` or `blobs_unavailable`; no answer within the time-outs.
    pub async fn download_blob(&self, task: &TaskId, blob: &BlobRef) -> Result<Download, ClientError> {
        let url = self.endpoint(&["v1", "tasks", task, "blobs", &blob.blob.to_string()])?;
        // Only its beginning has a time-out; later on, each chunk has.
        let call = self.request(Method::GET, &url).timeout(Duration::MAX);
        let response = match tokio::time::timeout(IDLE_TIMEOUT, self.send(call, &url)).await {
            Ok(answer) => answer?,
            Err(_) => return Err(protocol(&url, None, "the download did not begin in time".to_owned())),
        };
        Ok(Download::new(url, response, blob))
    }
}

/// The bytes of a reader, counted and hashed as they go.
fn body(
    reader: impl AsyncRead + Send + Unpin + 'static,
    sent: Arc<Sent>,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::try_unfold((reader, sent), |(mut reader, sent)| async move {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let read = reader.read_buf(&mut chunk).await?;
        sent.bytes.fetch_add(read as u64, Ordering::Relaxed);
        if read == 0 {
            sent.ended.store(true, Ordering::Relaxed);
            return Ok(None);
        }
        sent.hasher.lock().unwrap_or_else(PoisonError::into_inner).update(&chunk);
        Ok(Some((Bytes::from(chunk), (reader, sent))))
    })
}

/// A blob that is coming.
#[derive(Debug)]
pub struct Download {
    url: Url,
    response: Response,
    /// What should come.
    expected: BlobRef,
    /// Bytes that came.
    came: u64,
    hasher: Sha256,
}

impl Download {
    pub(crate) fn new(url: Url, response: Response, expected: &BlobRef) -> Self {
        Self { url, response, expected: *expected, came: 0, hasher: Sha256::new() }
    }

    /// The next bytes; `None`: these were all, and they are what was uploaded.
    ///
    /// # Errors
    /// Silence, a connection that broke, or other bytes than were uploaded ([`ClientError::Garbled`]): what came is not to be
    /// used then.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        let chunk = match tokio::time::timeout(IDLE_TIMEOUT, self.response.chunk()).await {
            Ok(chunk) => chunk.map_err(|source| unreachable(&self.url, source))?,
            Err(_) => {
                let detail =
                    format!("the download stood still after {} of {} bytes", self.came, self.expected.bytes);
                return Err(protocol(&self.url, None, detail));
            }
        };
        let Some(chunk) = chunk else {
            let sum = Sha256Sum(self.hasher.clone().finalize().into());
            if (self.came, sum) != (self.expected.bytes, self.expected.sha256) {
                return Err(self.garbled(&format!("{} of SHA-256 {sum} came", self.came)));
            }
            return Ok(None);
        };
        self.came += chunk.len() as u64;
        if self.came > self.expected.bytes {
            return Err(self.garbled("more came"));
        }
        self.hasher.update(&chunk);
        Ok(Some(chunk))
    }

    /// All of it, which is compared with the reference; for blobs that are known to fit into memory.
    ///
    /// # Errors
    /// As [`Download::chunk`].
    pub async fn whole(mut self) -> Result<Vec<u8>, ClientError> {
        let mut whole = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            whole.extend_from_slice(&chunk);
        }
        Ok(whole)
    }

    fn garbled(&self, what_came: &str) -> ClientError {
        let BlobRef { bytes, sha256, .. } = self.expected;
        let detail = format!("it should have {bytes} bytes of SHA-256 {sha256}, and {what_came}");
        ClientError::Garbled { url: self.url.to_string(), detail }
    }
}
