//! Large bodies: how many at once, and for how long.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::{StreamExt as _, stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

use super::super::body::{SILENCE, raw, read};
use super::*;
use crate::link::AttemptLink as _;

const LARGE: usize = STATES_MAX_BYTES + 1;

fn the_attempt(scene: &Scene) -> Arc<Attempt> {
    scene.opening.attempts.find(&scene.opening.secret).unwrap()
}

/// Every place for a large body, taken.
async fn all_places(scene: &Scene) -> OwnedSemaphorePermit {
    let places = Arc::clone(&the_attempt(scene).large_bodies);
    places.acquire_many_owned(LARGE_BODIES_MAX as u32).await.unwrap()
}

fn free_places(scene: &Scene) -> usize {
    the_attempt(scene).large_bodies.available_permits()
}

/// A body in pieces, with as much time before each.
fn pieces(count: usize, pause: Duration) -> Body {
    let piece = Bytes::from(vec![b'1'; LARGE / count + 1]);
    let pieces = stream::iter(vec![piece; count]).then(move |piece| async move {
        sleep(pause).await;
        Ok::<_, Infallible>(piece)
    });
    Body::from_stream(pieces)
}

fn large_json() -> Box<RawValue> {
    RawValue::from_string(format!("\"{}\"", "x".repeat(MAX_BLOB_BYTES as usize))).unwrap()
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_place_is_not_silent() {
    let scene = Scene::new().await;
    let attempt = the_attempt(&scene);
    let places = all_places(&scene).await;
    let began = Instant::now();
    let (body, ()) = tokio::join!(read(pieces(3, Duration::ZERO), 2 * LARGE, &attempt), async {
        sleep(Duration::from_secs(3_600)).await;
        drop(places);
    });
    let (body, place) = body.unwrap();
    assert!(body.len() > LARGE && place.is_some());
    assert!(began.elapsed() >= Duration::from_secs(3_600));
}

#[tokio::test(start_paused = true)]
async fn a_body_may_come_slowly_but_not_stand_still() {
    let scene = Scene::new().await;
    let attempt = the_attempt(&scene);
    read(pieces(30, SILENCE - Duration::from_secs(1)), 2 * LARGE, &attempt).await.unwrap();
    let began = Instant::now();
    let stalled = stream::once(async { Ok::<_, Infallible>(Bytes::from(vec![b'1'; LARGE])) });
    let stalled = Body::from_stream(stalled.chain(stream::pending()));
    let refused = read(stalled, 2 * LARGE, &attempt).await.unwrap_err();
    assert_eq!((refused.0.status, began.elapsed().as_secs()), (408, SILENCE.as_secs()));
    assert_eq!(free_places(&scene), LARGE_BODIES_MAX);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_takes_gives_its_place_back_and_is_cut_off() {
    for ends in [false, true] {
        let scene = Scene::new().await;
        let attempt = the_attempt(&scene);
        let place = attempt.place_for(MAX_BLOB_BYTES).await;
        let mut taken = raw(large_json(), place, &attempt).into_body().into_data_stream();
        let first = taken.next().await.unwrap().unwrap();
        assert_eq!(free_places(&scene), LARGE_BODIES_MAX - 1, "it is held while it is taken");
        if ends {
            drop(scene.opening);
            tokio::task::yield_now().await;
        } else {
            sleep(SILENCE + Duration::from_secs(1)).await;
        }
        tokio::task::yield_now().await;
        assert_eq!(attempt.large_bodies.available_permits(), LARGE_BODIES_MAX);
        let rest: usize = taken.map(|piece| piece.unwrap().len()).collect::<Vec<_>>().await.iter().sum();
        assert!(first.len() + rest < MAX_BLOB_BYTES as usize, "{rest}");
    }
}

#[tokio::test]
async fn large_payloads_and_states_wait_for_a_place_and_come_whole() {
    crate::client::install_tls_provider();
    let payload = format!("\"{}\"", "x".repeat(LARGE));
    let link = FakeAttempts::new();
    let task = lease("null");
    let blob = link.upload_blob(&task.id, payload.clone().into()).await.unwrap();
    let scene = Scene::of(Lease { payload_ref: Some(blob), ..task }).await;
    scene.link.state().blobs.clone_from(&link.state().blobs);
    assert_eq!(scene.put("/steps/fetch", payload.clone()).await.0, StatusCode::OK);
    for path in ["/payload", "/steps/fetch"] {
        let places = all_places(&scene).await;
        let before = scene.link.state().transfers;
        let asked = async {
            let answer = scene.get(path).await;
            assert_eq!(answer, (StatusCode::OK, payload.clone()));
        };
        tokio::join!(asked, async {
            sleep(Duration::from_millis(200)).await;
            assert_eq!(scene.link.state().transfers, before, "it is not even fetched");
            drop(places);
        });
        while free_places(&scene) < LARGE_BODIES_MAX {
            sleep(Duration::from_millis(5)).await;
        }
    }
}
