//! A coordinator's side of one task, in memory: it keeps what a store would, and fails on demand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use futures_util::{StreamExt as _, stream};
use redrive_shared::blob::{BlobId, BlobRef, Content, Sha256Sum};
use redrive_shared::checkpoint::{Checkpoint, Progress, Refused, Saved};
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::id::TaskId;
use redrive_shared::lock::{Lost, Token};
use redrive_shared::wire::{
    CheckpointReply, CheckpointRequest, LockGrant, LockRefs, LockRequest, LockResult, LockResults,
};
use sha2::{Digest as _, Sha256};

use crate::client::{ClientError, Download};
use crate::link::AttemptLink;

/// Pieces of a download.
pub(crate) const PIECES: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) progress: Progress,
    pub(crate) blobs: HashMap<BlobId, Bytes>,
    /// Every checkpoint that arrived, in order.
    pub(crate) arrived: Vec<CheckpointRequest>,
    /// So many calls are not answered; they are carried out if `carried_out`.
    pub(crate) away: u32,
    pub(crate) carried_out: bool,
    /// The lease is over.
    pub(crate) stale: bool,
    /// So many downloads come, and uploads are kept, garbled.
    pub(crate) garbled: u32,
    /// So many downloads are refused, since there are too many, with this time to wait.
    pub(crate) busy: u32,
    pub(crate) busy_for: Duration,
    /// Between any two pieces of a download, of which there are [`PIECES`].
    pub(crate) pause: Duration,
    /// Downloads and uploads that were asked for.
    pub(crate) transfers: u32,
    pub(crate) lock_busy: bool,
    pub(crate) lock_lost: bool,
    pub(crate) granted: i64,
    pub(crate) released: Vec<Token>,
}

#[derive(Debug, Default)]
pub(crate) struct FakeAttempts(Mutex<State>);

impl FakeAttempts {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

fn no_answer() -> ClientError {
    ClientError::Protocol {
        url: "http://nobody".to_owned(),
        status: Some(503),
        detail: "on demand".to_owned(),
        retry_after: None,
    }
}

fn refuse(code: ErrorCode, detail: impl Into<String>) -> ClientError {
    ClientError::Problem(Box::new(Problem::new(code, detail)))
}

impl State {
    /// Whether this call is one of those that are not answered.
    fn is_away(&mut self) -> bool {
        let away = self.away > 0;
        self.away = self.away.saturating_sub(1);
        away
    }

    fn is_garbled(&mut self) -> bool {
        let garbled = self.garbled > 0;
        self.garbled = self.garbled.saturating_sub(1);
        garbled
    }

    fn save(&mut self, request: &CheckpointRequest) -> Result<CheckpointReply, ClientError> {
        let CheckpointRequest { seq, step, completed, state, state_ref, pending, .. } = request.clone();
        if let Some(blob) = &state_ref
            && !self.blobs.contains_key(&blob.blob)
        {
            return Err(refuse(ErrorCode::UnknownBlob, "upload it first"));
        }
        let state = Content::of(state, state_ref);
        match self.progress.save(Checkpoint { seq, step, completed, state, pending }, 1) {
            Ok(saved) => Ok(CheckpointReply { seq, repeated: saved == Saved::Before }),
            Err(error @ Refused::TooLarge { .. }) => {
                Err(refuse(ErrorCode::PayloadTooLarge, error.to_string()))
            }
            Err(error @ Refused::Behind { .. }) => Err(refuse(ErrorCode::StaleCheckpoint, error.to_string())),
            Err(error @ Refused::TooManySteps) => Err(refuse(ErrorCode::InvalidValue, error.to_string())),
        }
    }
}

#[async_trait]
impl AttemptLink for FakeAttempts {
    async fn save_checkpoint(
        &self,
        _task: &TaskId,
        request: &CheckpointRequest,
    ) -> Result<CheckpointReply, ClientError> {
        let mut state = self.state();
        state.arrived.push(request.clone());
        if state.is_away() {
            if state.carried_out {
                let _ = state.save(request);
            }
            return Err(no_answer());
        }
        if state.stale {
            return Err(refuse(ErrorCode::StaleEpoch, "somebody else has it"));
        }
        state.save(request)
    }

    async fn upload_blob(&self, _task: &TaskId, contents: Bytes) -> Result<BlobRef, ClientError> {
        let mut state = self.state();
        state.transfers += 1;
        if state.is_away() {
            return Err(no_answer());
        }
        if state.is_garbled() {
            let (url, detail) = ("http://nobody".to_owned(), "on demand".to_owned());
            return Err(ClientError::Garbled { url, detail });
        }
        let blob = BlobId::new(1, rand::random());
        let sha256 = Sha256Sum(Sha256::digest(&contents).into());
        let reference = BlobRef { blob, bytes: contents.len() as u64, sha256 };
        state.blobs.insert(blob, contents);
        Ok(reference)
    }

    async fn download_blob(&self, _task: &TaskId, blob: &BlobRef) -> Result<Download, ClientError> {
        let mut state = self.state();
        state.transfers += 1;
        if state.is_away() {
            return Err(no_answer());
        }
        if state.busy > 0 {
            state.busy -= 1;
            let wait_ms = state.busy_for.as_millis() as u64;
            let problem = Problem::new(ErrorCode::Overloaded, "on demand").retry_after_ms(wait_ms);
            return Err(ClientError::Problem(Box::new(problem)));
        }
        let Some(mut contents) = state.blobs.get(&blob.blob).cloned() else {
            return Err(refuse(ErrorCode::UnknownBlob, "no such blob"));
        };
        if state.is_garbled() {
            contents = contents.slice(1..);
        }
        let (pause, piece) = (state.pause, contents.len().div_ceil(PIECES).max(1));
        let pieces: Vec<_> = contents.chunks(piece).map(Bytes::copy_from_slice).collect();
        let body = stream::iter(pieces).then(move |piece| async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            Ok::<_, std::io::Error>(piece)
        });
        let response = axum::http::Response::new(reqwest::Body::wrap_stream(body));
        Ok(Download::new("http://nobody".parse().unwrap(), response.into(), blob))
    }

    async fn acquire_lock(
        &self,
        request: &LockRequest,
        _wait_ms: u64,
    ) -> Result<Option<LockGrant>, ClientError> {
        let mut state = self.state();
        if state.lock_busy {
            return Err(refuse(ErrorCode::LockBusy, "somebody else has it"));
        }
        state.granted += 1;
        Ok(Some(LockGrant {
            token: Token(state.granted),
            exclusive: request.exclusive.clone(),
            shared: request.shared.clone(),
            ttl_ms: request.ttl_ms.unwrap_or(30_000),
            until_ms: 0,
        }))
    }

    async fn renew_locks(&self, locks: &LockRefs) -> Result<LockResults, ClientError> {
        let lost = self.state().lock_lost.then_some(Lost::Expired);
        let one = |token| LockResult { token, until_ms: Some(1), lost };
        Ok(LockResults { locks: locks.locks.iter().map(|lock| one(lock.token)).collect() })
    }

    async fn release_locks(&self, locks: &LockRefs) -> Result<LockResults, ClientError> {
        let tokens: Vec<_> = locks.locks.iter().map(|lock| lock.token).collect();
        self.state().released.extend(&tokens);
        let one = |token| LockResult { token, until_ms: None, lost: None };
        Ok(LockResults { locks: tokens.into_iter().map(one).collect() })
    }
}
