//! Bodies of requests and of answers. Of large ones only a few are in memory at once, over all attempts, and who falls silent in the
//! middle of one does not hold its place for long.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use redrive_shared::checkpoint::STATES_MAX_BYTES;
use redrive_shared::error::ErrorCode;
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::Attempt;
use super::reply::{Refusal, with_type};
use crate::heavy;

/// How long no byte of a body may come, or be taken.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer that are handed over at once.
const PIECE_BYTES: usize = 64 * 1024;

impl Attempt {
    /// Waits for a place for a body of so many bytes. `None`: it needs none. The place is for who holds the body.
    pub(super) async fn place_for(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        if bytes <= STATES_MAX_BYTES as u64 {
            return None;
        }
        // Nobody closes it.
        Arc::clone(&self.large_bodies).acquire_owned().await.ok()
    }
}

/// A body within its bound, and its place. It may wait for that for as long as others need theirs: that is not its sender's silence.
pub(super) async fn read(
    body: Body,
    max_bytes: usize,
    attempt: &Attempt,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Refusal> {
    let (mut chunks, mut bytes, mut place) = (body.into_data_stream(), Vec::new(), None);
    let silent = |_| {
        let detail = format!("nothing of the body came for {} s", SILENCE.as_secs());
        Refusal::new(ErrorCode::RequestTimeout, detail)
    };
    while let Some(chunk) = tokio::time::timeout(SILENCE, chunks.next()).await.map_err(silent)? {
        let chunk = chunk.map_err(|error| {
            Refusal::new(ErrorCode::MalformedJson, format!("the body did not arrive whole: {error}"))
        })?;
        let length = bytes.len() + chunk.len();
        if length > max_bytes {
            let detail = format!(
                "up to {max_bytes} bytes are taken: put the rest elsewhere and keep a reference to it"
            );
            return Err(Refusal::new(ErrorCode::BodyTooLarge, detail));
        }
        if place.is_none() {
            place = attempt.place_for(length as u64).await;
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok((Bytes::from(bytes), place))
}

/// A state as it was sent; nothing at all is no state.
pub(super) async fn parse(body: Bytes) -> Result<Option<Box<RawValue>>, Refusal> {
    let parsed = heavy::work_on(body.len(), || {
        let text = String::from_utf8(body.into()).map_err(|error| {
            Refusal::new(ErrorCode::InvalidUtf8, format!("{error}; what is not text can be sent in base64"))
        })?;
        if text.trim_ascii().is_empty() {
            return Ok(None);
        }
        RawValue::from_string(text).map(Some).map_err(|error| {
            Refusal::new(ErrorCode::MalformedJson, format!("{error}; a state is any JSON, such as \"text\""))
        })
    });
    parsed.await
}

/// JSON as it is. A large one goes in pieces: when nobody takes the next, or the attempt ends, the rest and its place are free, and the
/// answer is cut off.
pub(super) fn raw(json: Box<RawValue>, place: Option<OwnedSemaphorePermit>, attempt: &Attempt) -> Response {
    let contents = String::from(Box::<str>::from(json)).into_bytes();
    let Some(place) = place else { return with_type("application/json", contents.into()) };
    let length = HeaderValue::from(contents.len());
    let (pieces, mut taken) = mpsc::channel(1);
    tokio::spawn(hand_over(contents, pieces, place, attempt.ended.clone()));
    let stream = stream::poll_fn(move |context| taken.poll_recv(context));
    let body = Body::from_stream(stream.map(Ok::<Bytes, Infallible>));
    let mut response = with_type("application/json", body);
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    response
}

async fn hand_over(
    contents: Vec<u8>,
    pieces: mpsc::Sender<Bytes>,
    _place: OwnedSemaphorePermit,
    ended: CancellationToken,
) {
    let all = async {
        for piece in contents.chunks(PIECE_BYTES) {
            // Copied: one that nobody takes must not hold the rest.
            let piece = pieces.send(Bytes::copy_from_slice(piece));
            if !matches!(tokio::time::timeout(SILENCE, piece).await, Ok(Ok(()))) {
                return;
            }
        }
    };
    tokio::select! {
        () = ended.cancelled() => {}
        () = all => {}
    }
}
