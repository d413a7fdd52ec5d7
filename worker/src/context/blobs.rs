//! What is too large for the store: kept as a blob, and checked when it is fetched.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use redrive_shared::blob::BlobRef;
use redrive_shared::error::ErrorCode;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{ContextError, TaskContext};
use crate::client::ClientError;
use crate::heavy;

/// How often a blob is sent or fetched that comes garbled: what was garbled on its way may come whole.
const TRIES: u32 = 3;

impl TaskContext {
    /// Keeps JSON as a blob of the task; durable on return. `what` is for errors.
    pub(crate) async fn keep(&self, what: &str, json: Box<RawValue>) -> Result<BlobRef, ContextError> {
        let contents = Bytes::from(String::from(Box::<str>::from(json)));
        self.check_length(what, contents.len() as u64)?;
        let (link, task) = (&self.inner.surroundings.link, &self.inner.task);
        self.until_whole(what, "upload", || link.upload_blob(task, contents.clone())).await
    }

    /// A blob of the task, as it was kept. `what` is for errors.
    pub(crate) async fn fetch(&self, what: &str, blob: &BlobRef) -> Result<Box<RawValue>, ContextError> {
        self.fetch_heard(what, blob, &Heard::now()).await
    }

    /// As [`TaskContext::fetch`], but unavailable when nothing came for so long, however often it was asked for. A download may
    /// take as long as it goes on, and a wait as long as the coordinator asks for.
    pub(crate) async fn fetch_unless_silent(
        &self,
        what: &str,
        blob: &BlobRef,
        silence: Duration,
    ) -> Result<Box<RawValue>, ContextError> {
        let heard = Heard::now();
        tokio::select! {
            fetched = self.fetch_heard(what, blob, &heard) => fetched,
            () = heard.nothing_for(silence) => {
                Err(ContextError::Unavailable(format!("nothing of {what} came for {} s", silence.as_secs())))
            }
        }
    }

    async fn fetch_heard(
        &self,
        what: &str,
        blob: &BlobRef,
        heard: &Heard,
    ) -> Result<Box<RawValue>, ContextError> {
        self.check_length(what, blob.bytes)?;
        let contents = self.until_whole(what, "download", || self.download(blob, heard)).await?;
        read(what, contents).await
    }

    async fn download(&self, blob: &BlobRef, heard: &Heard) -> Result<Vec<u8>, ClientError> {
        let (link, task) = (&self.inner.surroundings.link, &self.inner.task);
        let begun = link.download_blob(task, blob).await;
        if let Err(error) = &begun
            && error.code() == Some(ErrorCode::Overloaded)
        {
            heard.until(Instant::now() + error.retry_after().unwrap_or_default());
        }
        let mut download = begun?;
        // No more than this worker takes: that was checked.
        let mut contents = Vec::with_capacity(usize::try_from(blob.bytes).unwrap_or_default());
        while let Some(chunk) = download.chunk().await? {
            heard.until(Instant::now());
            contents.extend_from_slice(&chunk);
        }
        Ok(contents)
    }

    /// Calls [patiently](TaskContext::patiently), but only a few times for what comes garbled: waiting does not mend that.
    async fn until_whole<T, F>(
        &self,
        what: &str,
        call_name: &'static str,
        mut call: impl FnMut() -> F,
    ) -> Result<T, ContextError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let mut why = String::new();
        for _ in 0..TRIES {
            let whole = self.patiently(call_name, || {
                let answer = call();
                async move {
                    match answer.await {
                        Err(garbled @ ClientError::Garbled { .. }) => Ok(Err(garbled)),
                        answer => answer.map(Ok),
                    }
                }
            });
            match whole.await? {
                Ok(whole) => return Ok(whole),
                Err(garbled) => why = garbled.to_string(),
            }
        }
        Err(ContextError::Unreadable { what: what.to_owned(), why })
    }

    fn check_length(&self, what: &str, bytes: u64) -> Result<(), ContextError> {
        let max = self.max_blob_bytes();
        if bytes > max {
            return Err(ContextError::TooLarge { what: what.to_owned(), bytes, max });
        }
        Ok(())
    }
}

/// Until when the other side was heard, or asked not to be.
struct Heard(Mutex<Instant>);

impl Heard {
    fn now() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    fn until(&self, at: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Returns when there was nothing for so long.
    async fn nothing_for(&self, silence: Duration) {
        loop {
            let over = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + silence;
            if over <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(over).await;
        }
    }
}

async fn read(what: &str, contents: Vec<u8>) -> Result<Box<RawValue>, ContextError> {
    let parsed = heavy::work_on(contents.len(), || {
        let text = String::from_utf8(contents).map_err(|error| error.to_string())?;
        RawValue::from_string(text).map_err(|error| error.to_string())
    });
    parsed.await.map_err(|why| ContextError::Unreadable {
        what: what.to_owned(),
        why: format!("it is no JSON: {why}"),
    })
}
