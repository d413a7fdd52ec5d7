//! Blobs over the API, through real sockets and the typed client.

use std::io::Cursor;
use std::time::Duration;

use futures_util::future::join_all;
use redrive_coordinator::blobs::owner;
use redrive_coordinator::{BlobsConfig, CoordinatorConfig};
use redrive_shared::blob::{BlobRef, Sha256Sum};
use redrive_shared::error::ErrorCode;
use redrive_worker::client::{Client, ClientError};
use reqwest::{Body, Method};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::bed::{MIB, Place, bytes};
use crate::support::id;
use crate::support::server::{Server, read};
use crate::support::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(20);
/// Most bytes of a blob in these tests.
const MAX: usize = 3 * MIB;
const PATH: &str = "/v1/tasks/a%2Fb/blobs";

async fn server(place: &Place) -> Server {
    server_of(place, 500).await
}

async fn server_of(place: &Place, body_timeout_ms: u64) -> Server {
    let blobs = BlobsConfig {
        url: Some(place.address("one").parse().unwrap()),
        max_bytes: MAX as u64,
        ..BlobsConfig::default()
    };
    let config =
        CoordinatorConfig { in_memory: true, body_timeout_ms, blobs, ..CoordinatorConfig::default() };
    Server::with(config).await
}

fn client(server: &Server) -> Client {
    Client::new(&server.url("")).unwrap()
}

/// JSON of about so many bytes.
fn json_of(length: usize) -> Vec<u8> {
    let letters: String = bytes(length).iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    json!({ "context": letters }).to_string().into_bytes()
}

async fn nothing_is_left(place: &Place) {
    let blobs = place.open("one").await.unwrap();
    eventually("nothing is left", PATIENCE, async || {
        // But for what says whose it is.
        let left = blobs.list(None, 10).await.unwrap();
        left.iter().all(|key| *key == owner::mark()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_was_uploaded_comes_down_again() {
    let place = Place::files();
    let server = server(&place).await;
    let client = client(&server);
    for length in [0, 1, 300_000, 2 * MIB] {
        let json = json_of(length);
        let blob = client.upload_blob(&id("a/b"), Cursor::new(json.clone())).await.unwrap();
        assert_eq!(blob.bytes, json.len() as u64);
        let whole = client.download_blob(&id("a/b"), &blob).await.unwrap().whole().await.unwrap();
        assert!(whole == json, "{length}");
        // For whoever speaks plain HTTP.
        let url = server.url(&format!("{PATH}/{}", blob.blob));
        let answer = reqwest::get(url).await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/json");
        assert_eq!(answer.content_length(), Some(blob.bytes));
        assert_eq!(answer.bytes().await.unwrap(), json);
        // It is that task's.
        let error = client.download_blob(&id("other"), &blob).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::UnknownBlob));
    }
}

#[tokio::test]
async fn a_reference_that_is_not_the_blobs_is_noticed() {
    let place = Place::files();
    let server = server(&place).await;
    let client = client(&server);
    let blob = client.upload_blob(&id("t"), Cursor::new(json_of(100_000))).await.unwrap();
    for wrong in [
        BlobRef { sha256: Sha256Sum([7; 32]), ..blob },
        BlobRef { bytes: blob.bytes + 1, ..blob },
        BlobRef { bytes: blob.bytes - 1, ..blob },
    ] {
        let got = client.download_blob(&id("t"), &wrong).await.unwrap().whole().await;
        assert!(matches!(got, Err(ClientError::Garbled { .. })), "{got:?}");
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_however_it_comes() {
    let place = Place::files();
    let server = server(&place).await;
    let large = vec![b'1'; MAX + 1];
    let declared = server.post_raw(PATH, large.clone()).await;
    let pieces =
        large.chunks(100_000).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect::<Vec<_>>();
    let streamed = Body::wrap_stream(futures_util::stream::iter(pieces));
    let streamed =
        server.request(Method::POST, PATH).header("content-type", "application/json").body(streamed);
    for reply in [declared, read(streamed).await] {
        assert_eq!((reply.status, reply.code()), (413, "body_too_large"), "{:#}", reply.json);
        let detail = reply.json["detail"].as_str().unwrap();
        assert!(
            detail.contains(&MAX.to_string()) && detail.contains("coordinator.blobs.max_bytes"),
            "{detail}"
        );
    }
    nothing_is_left(&place).await;
    assert_eq!(server.post_raw(PATH, vec![b'1'; MAX]).await.status, 201);
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_a_code() {
    let place = Place::files();
    let server = server(&place).await;
    let form = server.request(Method::POST, PATH).header("content-type", "text/plain").body("{}");
    let reply = read(form).await;
    assert_eq!((reply.status, reply.code()), (415, "unsupported_media_type"));
    let reply = server.get(&format!("{PATH}/01975cc4-6c00-7a3e-b1f5-3d1c5a0e9b42")).await;
    assert_eq!((reply.status, reply.code()), (404, "unknown_blob"));
    for blob in ["x", "9f86d081-884c-4d65-9a2f-eaa0c55ad015", "..%2f..%2fetc"] {
        let reply = server.get(&format!("{PATH}/{blob}")).await;
        assert_eq!((reply.status, reply.code()), (422, "invalid_value"), "{blob}");
    }
    nothing_is_left(&place).await;

    let without = Server::start().await;
    let (up, down) = (
        without.post(PATH, &json!({})).await,
        without.get(&format!("{PATH}/01975cc4-6c00-7a3e-b1f5-3d1c5a0e9b42")).await,
    );
    for reply in [up, down] {
        assert_eq!((reply.status, reply.code()), (422, "no_blobs"), "{:#}", reply.json);
    }
}

/// An upload that says how long it is, and comes to half of it.
async fn half_an_upload(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        2 * MIB
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'1'; MIB]).await.unwrap();
    stream
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let place = Place::files();
    let server = server(&place).await;
    drop(half_an_upload(&server).await);
    nothing_is_left(&place).await;
    let mut silent = half_an_upload(&server).await;
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, silent.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("request_timeout"), "{answer}");
    nothing_is_left(&place).await;
}

#[tokio::test]
async fn uploads_at_once_are_bounded() {
    let place = Place::files();
    let server = server_of(&place, 60_000).await;
    let under_way = join_all((0..16).map(|_| half_an_upload(&server))).await;
    let (refused, _) = eventually("there is no place", PATIENCE, async || {
        let reply = server.post(PATH, &json!({})).await;
        (reply.status != 201).then_some(reply)
    })
    .await;
    assert_eq!((refused.status, refused.code()), (429, "overloaded"), "{:#}", refused.json);
    drop(under_way);
    eventually("there is again", PATIENCE, async || {
        (server.post(PATH, &json!({})).await.status == 201).then_some(())
    })
    .await;
}

#[tokio::test]
async fn storage_that_is_away_is_told_and_holds_up_nothing_else() {
    let mut place = Place::postgres().await;
    let server = server(&place).await;
    assert_eq!(server.get("/readyz").await.json, "ok\n");
    let client = client(&server);
    let blob = client.upload_blob(&id("t"), Cursor::new(json_of(MIB))).await.unwrap();
    let Place::Postgres(postgres) = &mut place else { unreachable!() };
    postgres.kill();
    let ready = server.get("/readyz").await;
    assert_eq!(ready.status, 200);
    let said = ready.json.as_str().unwrap();
    assert!(said.starts_with("ok\ndegraded: blobs: postgres://postgres@127.0.0.1:"), "{said}");
    let up = client.upload_blob(&id("t"), Cursor::new(json_of(10))).await.unwrap_err();
    let down = client.download_blob(&id("t"), &blob).await.unwrap_err();
    for error in [up, down] {
        assert!(error.code() == Some(ErrorCode::BlobsUnavailable) && error.is_retryable(), "{error}");
        assert!(error.retry_after().is_some());
    }
    let enqueued = server.post("/v1/tasks", &json!({"tasks": [{"id": "t", "payload": 1}]})).await;
    assert_eq!(enqueued.status, 200, "tasks without blobs go on");
    postgres.restart().await;
    let again = client.download_blob(&id("t"), &blob).await.unwrap().whole().await.unwrap();
    assert_eq!(again.len() as u64, blob.bytes);
}

#[tokio::test]
async fn a_download_that_breaks_off_is_an_error() {
    let place = Place::files();
    let server = server(&place).await;
    let client = client(&server);
    let blob = client.upload_blob(&id("t"), Cursor::new(json_of(2 * MIB))).await.unwrap();
    let file = place.directory().unwrap().join(format!("one/t/{}.json", blob.blob));
    std::fs::File::options().write(true).open(&file).unwrap().set_len(MIB as u64 + 10).unwrap();
    let got = client.download_blob(&id("t"), &blob).await.unwrap().whole().await;
    assert!(got.is_err(), "half of it is not the whole");
}

#[tokio::test]
async fn the_document_has_both() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.json;
    let upload = &document["paths"]["/v1/tasks/{id}/blobs"]["post"];
    assert!(upload["responses"]["201"].is_object(), "{upload:#}");
    assert!(document["paths"]["/v1/tasks/{id}/blobs/{blob}"]["get"].is_object());
}
