//! What can be asked for at an attempt's address.
//!
//! ```text
//!  GET    /                  how far the task came: its steps, with their states
//!  GET    /steps/{step}      the state of a step that is done
//!  PUT    /steps/{step}      it is done, or (`?completed=false`) so far; the body is its state; `?pending=a,b`
//!  POST   /locks             takes a lock
//!  DELETE /locks/{token}     gives it back, if it was taken no more often than this was asked for
//!  GET    /payload           the task's payload
//!  GET    /stop              waits until the handler is to stop, and says why
//! ```

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::id::Name;
use redrive_shared::lock::{Resource, Token};
use redrive_shared::wire::CheckpointReply;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::body::{parse, raw, read};
use super::reply::{Refusal, json};
use super::{Attempt, Attempts, Payload, REQUESTS_MAX, WAITS_MAX};
use crate::client::StopReply;
use crate::context::{NewCheckpoint, Released, Wanted};

/// Most bytes of a request for a lock: 64 resources of 1 KiB, and as much again for quotes and escapes.
const LOCK_BODY_MAX_BYTES: usize = 128 * 1024;

type Answer = Result<Response, Refusal>;

pub(super) fn router(attempts: Arc<Attempts>) -> Router {
    Router::new()
        .route("/{secret}", get(progress))
        .route("/{secret}/", get(progress))
        .route("/{secret}/steps/{*step}", get(step).put(save))
        .route("/{secret}/locks", post(lock))
        .route("/{secret}/locks/{token}", delete(unlock))
        .route("/{secret}/payload", get(payload))
        .route("/{secret}/stop", get(stop))
        .fallback(|| async { nowhere() })
        .method_not_allowed_fallback(|| async {
            Refusal::new(
                ErrorCode::MethodNotAllowed,
                "GET and PUT steps, POST and DELETE locks, GET payload and stop",
            )
        })
        .with_state(attempts)
}

fn nowhere() -> Refusal {
    let detail = "there is nothing at this address: that of an attempt (REDRIVE_CONTEXT_URL) is good for as long as it runs";
    Refusal::new(ErrorCode::UnknownPath, detail)
}

/// Answers for an attempt as long as it runs.
async fn within<F: Future<Output = Answer>>(
    attempts: &Attempts,
    secret: &str,
    answer: impl FnOnce(Arc<Attempt>) -> F,
) -> Response {
    bounded(attempts, secret, |attempt| (&attempt.requests, REQUESTS_MAX), answer).await
}

/// [`within`], for what others or the end have to be waited for: it takes the place of nothing that is answered at once.
async fn waiting_within<F: Future<Output = Answer>>(
    attempts: &Attempts,
    secret: &str,
    answer: impl FnOnce(Arc<Attempt>) -> F,
) -> Response {
    bounded(attempts, secret, |attempt| (&attempt.waits, WAITS_MAX), answer).await
}

async fn bounded<F: Future<Output = Answer>>(
    attempts: &Attempts,
    secret: &str,
    places: impl FnOnce(&Attempt) -> (&Semaphore, usize),
    answer: impl FnOnce(Arc<Attempt>) -> F,
) -> Response {
    let Some(attempt) = attempts.find(secret) else { return nowhere().into_response() };
    let (places, most) = places(&attempt);
    let Ok(_permit) = places.try_acquire() else {
        let detail = format!("{most} such requests of this attempt are under way: wait for one of them");
        return Refusal(Problem::new(ErrorCode::Overloaded, detail).retry_after_ms(1_000)).into_response();
    };
    tokio::select! {
        biased;
        () = attempt.ended.cancelled() => nowhere().into_response(),
        answer = answer(Arc::clone(&attempt)) => answer.into_response(),
    }
}

async fn progress(State(attempts): State<Arc<Attempts>>, Path(secret): Path<String>) -> Response {
    within(&attempts, &secret, |attempt| async move { Ok(json(&attempt.ctx.saved())) }).await
}

/// What may be said of a step besides its state.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepQuery {
    /// Whether it is done; to read, `false` also takes one that is not.
    #[serde(default = "yes")]
    completed: bool,
    /// The steps to come, with commas between them.
    pending: Option<String>,
}

const fn yes() -> bool {
    true
}

type StepRequest = Result<Query<StepQuery>, axum::extract::rejection::QueryRejection>;

fn read_query(query: StepRequest) -> Result<StepQuery, Refusal> {
    let Query(query) = query.map_err(|error| {
        let detail =
            format!("{}; it takes completed=true or false, and pending=STEP,STEP", error.body_text());
        Refusal::new(ErrorCode::InvalidValue, detail).at("query")
    })?;
    Ok(query)
}

async fn step(
    State(attempts): State<Arc<Attempts>>,
    Path((secret, step)): Path<(String, String)>,
    query: StepRequest,
) -> Response {
    within(&attempts, &secret, |attempt| async move {
        let StepQuery { completed, .. } = read_query(query)?;
        let found = attempt.ctx.find(&step, completed).ok_or_else(|| {
            let detail = format!("the step {step:?} is not done: do it, and save it with PUT");
            Refusal::new(ErrorCode::UnknownStep, detail)
        })?;
        let place = attempt.place_for(found.state_ref.map_or(0, |blob| blob.bytes)).await;
        Ok(raw(attempt.ctx.state_of(found).await?, place, &attempt))
    })
    .await
}

async fn save(
    State(attempts): State<Arc<Attempts>>,
    Path((secret, step)): Path<(String, String)>,
    query: StepRequest,
    body: Body,
) -> Response {
    within(&attempts, &secret, |attempt| async move {
        let StepQuery { completed, pending } = read_query(query)?;
        let step = name(&step, "step")?;
        let names = |list: String| {
            list.split(',').filter(|step| !step.is_empty()).map(|step| name(step, "pending")).collect()
        };
        let pending: Option<Vec<Name>> = pending.map(names).transpose()?;
        let max_bytes = usize::try_from(attempt.ctx.max_blob_bytes()).unwrap_or(usize::MAX);
        let (body, _place) = read(body, max_bytes, &attempt).await?;
        let state = parse(body).await?;
        let seq = attempt.ctx.save(NewCheckpoint { step, completed, state, pending }).await?;
        Ok(json(&CheckpointReply { seq, repeated: false }))
    })
    .await
}

fn name(text: &str, place: &str) -> Result<Name, Refusal> {
    Name::new(text)
        .map_err(|error| Refusal::new(ErrorCode::InvalidValue, format!("{text:?} {error}")).at(place))
}

/// As the API takes it, but for the owner: that is the attempt.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockBody {
    #[serde(default)]
    exclusive: Vec<Resource>,
    #[serde(default)]
    shared: Vec<Resource>,
    ttl_ms: Option<u64>,
    lock_delay_ms: Option<u64>,
    wait_ms: Option<u64>,
}

async fn lock(State(attempts): State<Arc<Attempts>>, Path(secret): Path<String>, body: Body) -> Response {
    waiting_within(&attempts, &secret, |attempt| async move {
        let (body, _) = read(body, LOCK_BODY_MAX_BYTES, &attempt).await?;
        let wanted: LockBody = serde_json::from_slice(&body).map_err(|error| {
            let syntax = error.is_syntax() || error.is_eof();
            let code = if syntax { ErrorCode::MalformedJson } else { ErrorCode::InvalidValue };
            Refusal::new(
                code,
                format!("{error}; write {{\"exclusive\": [\"report.md\"], \"wait_ms\": 30000}}"),
            )
        })?;
        let wanted = Wanted {
            exclusive: wanted.exclusive,
            shared: wanted.shared,
            wait: Duration::from_millis(wanted.wait_ms.unwrap_or(0)),
            ttl: wanted.ttl_ms.map(Duration::from_millis),
            lock_delay: wanted.lock_delay_ms.map(Duration::from_millis),
        };
        Ok(json(attempt.ctx.lock(wanted).await?.grant()))
    })
    .await
}

async fn unlock(
    State(attempts): State<Arc<Attempts>>,
    Path((secret, token)): Path<(String, String)>,
) -> Response {
    within(&attempts, &secret, |attempt| async move {
        let unknown = || {
            let detail = format!("this attempt holds no lock {token}: it was given back, or lost");
            Refusal::new(ErrorCode::UnknownLock, detail)
        };
        let number = token.parse().map(Token).map_err(|_| unknown())?;
        match attempt.ctx.release_lock(number).await? {
            Released::GivenBack => Ok(json(&serde_json::json!({ "released": true }))),
            Released::StillHeld => Ok(json(&serde_json::json!({ "released": false }))),
            Released::NotHeld => Err(unknown()),
        }
    })
    .await
}

async fn payload(State(attempts): State<Arc<Attempts>>, Path(secret): Path<String>) -> Response {
    within(&attempts, &secret, |attempt| async move {
        match &attempt.payload {
            Payload::Inline(payload) => Ok(raw(payload.clone(), None, &attempt)),
            Payload::Blob(blob) => {
                let place = attempt.place_for(blob.bytes).await;
                Ok(raw(attempt.ctx.fetch("the payload", blob).await?, place, &attempt))
            }
        }
    })
    .await
}

async fn stop(State(attempts): State<Arc<Attempts>>, Path(secret): Path<String>) -> Response {
    waiting_within(&attempts, &secret, |attempt| async move {
        Ok(json(&StopReply { reason: attempt.ctx.cancelled().await }))
    })
    .await
}
