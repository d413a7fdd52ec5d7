//! A coordinator's side of one task, in memory: it keeps what a store would, and fails on demand.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use futures_util::{StreamExt as _, stream};
use redrive_shared::blob::{BlobId, BlobRef, Content, Sha256Sum};
use redrive_shared::checkpoint::{Checkpoint, Progress, Refused, Saved};
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::id::TaskId;
use redrive_shared::lock::{Lost, Resource, TTL_DEFAULT_MS, Token};
use redrive_shared::wire::{
    CheckpointReply, CheckpointRequest, LockGrant, LockRef, LockRefs, LockRequest, LockResult, LockResults,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tokio::time::Instant;

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
    /// Inline states of so many bytes are kept as blobs, and the attempt is not told.
    pub(crate) states_from_bytes: Option<usize>,
    /// So many downloads are refused, since there are too many, with this time to wait.
    pub(crate) busy: u32,
    pub(crate) busy_for: Duration,
    /// Between any two pieces of a download, of which there are [`PIECES`].
    pub(crate) pause: Duration,
    /// Downloads and uploads that were asked for.
    pub(crate) transfers: u32,
    pub(crate) lock_busy: bool,
    /// Somebody else has it, and keeps it.
    pub(crate) lock_waits: bool,
    pub(crate) lock_lost: bool,
    pub(crate) granted: i64,
    /// What is held, or was until its time was over.
    pub(crate) holds: BTreeMap<Token, Hold>,
    pub(crate) released: Vec<Token>,
    /// So many releases are not answered; they are not carried out.
    pub(crate) releases_away: u32,
    /// So many renewals are not answered. They are carried out.
    pub(crate) renewals_hang: u32,
    /// So many grants are answered only once the attempt's next release was carried out.
    pub(crate) slow_grants: u32,
}

/// A lock as the coordinator has it. All are of one attempt.
#[derive(Debug)]
pub(crate) struct Hold {
    resources: Vec<Resource>,
    ttl: Duration,
    until: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct FakeAttempts {
    state: Mutex<State>,
    released: Notify,
}

impl FakeAttempts {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
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

    fn keep(&mut self, contents: Bytes) -> BlobRef {
        let blob = BlobId::new(1, rand::random());
        let sha256 = Sha256Sum(Sha256::digest(&contents).into());
        let reference = BlobRef { blob, bytes: contents.len() as u64, sha256 };
        self.blobs.insert(blob, contents);
        reference
    }

    /// What an attempt holds is granted to it again, and lasts as long as it said last.
    fn grant(&mut self, request: &LockRequest) -> LockGrant {
        let ttl_ms = request.ttl_ms.unwrap_or(TTL_DEFAULT_MS);
        let (ttl, now) = (Duration::from_millis(ttl_ms), Instant::now());
        let wanted: Vec<_> = request.exclusive.iter().chain(&request.shared).cloned().collect();
        let covers = |hold: &Hold| wanted.iter().all(|wish| hold.resources.contains(wish));
        self.holds.retain(|_, hold| hold.until > now);
        let held = self.holds.iter().find(|(_, hold)| covers(hold)).map(|(token, _)| *token);
        let token = held.unwrap_or_else(|| {
            self.granted += 1;
            Token(self.granted)
        });
        let hold = self.holds.entry(token).or_insert(Hold { resources: wanted, ttl, until: now });
        (hold.ttl, hold.until) = (ttl, now + ttl);
        LockGrant { token, exclusive: hold.resources.clone(), shared: Vec::new(), ttl_ms, until_ms: 0 }
    }

    /// Whether the attempt has it now.
    pub(crate) fn is_held(&self, token: i64) -> bool {
        self.holds.get(&Token(token)).is_some_and(|hold| hold.until > Instant::now())
    }

    /// Never after its end.
    fn renew(&mut self, token: Token) -> Option<Lost> {
        let now = Instant::now();
        match self.holds.get_mut(&token) {
            Some(hold) if hold.until > now && !self.lock_lost => {
                hold.until = now + hold.ttl;
                None
            }
            Some(_) => Some(Lost::Expired),
            None => Some(Lost::Unknown),
        }
    }

    /// Also after its end; but then it says so.
    fn release(&mut self, token: Token) -> Option<Lost> {
        self.released.push(token);
        match self.holds.remove(&token) {
            Some(hold) if hold.until > Instant::now() => None,
            Some(_) => Some(Lost::Expired),
            None => Some(Lost::Unknown),
        }
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
        let mut state = Content::of(state, state_ref);
        if let Some(Content::Inline(json)) = &state
            && self.states_from_bytes.is_some_and(|bytes| json.get().len() >= bytes)
        {
            state = Some(Content::Blob(self.keep(json.get().to_owned().into())));
        }
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
        Ok(state.keep(contents))
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
        wait_ms: u64,
    ) -> Result<Option<LockGrant>, ClientError> {
        if self.state().lock_waits {
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            return Ok(None);
        }
        let (granted, slow) = {
            let mut state = self.state();
            if state.stale {
                return Err(refuse(ErrorCode::StaleEpoch, "somebody else has it"));
            }
            if state.lock_busy {
                return Err(refuse(ErrorCode::LockBusy, "somebody else has it"));
            }
            let slow = state.slow_grants > 0;
            state.slow_grants = state.slow_grants.saturating_sub(1);
            (state.grant(request), slow)
        };
        if slow {
            self.released.notified().await;
        }
        Ok(Some(granted))
    }

    async fn renew_locks(&self, locks: &LockRefs) -> Result<LockResults, ClientError> {
        let (results, hangs) = {
            let mut state = self.state();
            let results = results(locks, |token| state.renew(token));
            let hangs = state.renewals_hang > 0;
            state.renewals_hang = state.renewals_hang.saturating_sub(1);
            (results, hangs)
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        Ok(results)
    }

    async fn release_locks(&self, locks: &LockRefs) -> Result<LockResults, ClientError> {
        let mut state = self.state();
        if state.releases_away > 0 {
            state.releases_away -= 1;
            return Err(no_answer());
        }
        let results = results(locks, |token| state.release(token));
        self.released.notify_waiters();
        Ok(results)
    }
}

fn results(locks: &LockRefs, mut verb: impl FnMut(Token) -> Option<Lost>) -> LockResults {
    let one = |lock: &LockRef| LockResult { token: lock.token, until_ms: None, lost: verb(lock.token) };
    LockResults { locks: locks.locks.iter().map(one).collect() }
}
