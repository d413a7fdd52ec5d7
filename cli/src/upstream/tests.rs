//! Every reply, limit and count, seen over real sockets.

mod client;

use std::io::ErrorKind;
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::limits;
use super::log::{Log, Record};
use super::{Entry, Options, Outcome, Reply, ScheduledOutage, Step, UpstreamHandle};
use client::{Client, Response, Server};

const SOON: Duration = Duration::from_millis(50);
/// Longer than any test runs.
const NEVER: Duration = Duration::from_secs(60);

async fn answer(reply: &str) -> Response {
    Server::start().await.call("k", &[reply]).await.unwrap()
}

#[test]
fn replies_and_steps_survive_being_written_and_read() {
    let texts = [
        "ok",
        "length",
        "429_retry_after:2",
        "429_reset:1s",
        "429_reset:500ms",
        "429_reset:1.5s",
        "429_reset:6m0s",
        "429_reset:1h0m2.25s",
        "429_reset:0ms",
        "429_quota",
        "402",
        "529",
        "500",
        "503",
        "401",
        "400_context",
        "404",
        "422",
        "hang",
        "reset",
        "cut",
        "ok@120",
        "429_reset:1m30s@1",
        "429_retry_after:0@600000",
    ];
    for text in texts {
        assert_eq!(text.parse::<Step>().unwrap().to_string(), text);
    }
    assert_eq!("429_reset:90s".parse(), Ok(Reply::RateLimitedReset(Duration::from_secs(90))));
    assert_eq!(serde_json::to_value(Reply::Overloaded).unwrap(), json!("529"));
    assert_eq!(serde_json::from_value::<Reply>(json!("cut")).unwrap(), Reply::Cut);
}

#[test]
fn malformed_replies_are_refused_with_their_reason() {
    for (text, reason) in [
        ("530", "unknown reply"),
        ("", "unknown reply"),
        ("ok:1", "unknown reply"),
        ("429_retry_after", "whole seconds"),
        ("429_retry_after:-1", "whole seconds"),
        ("429_retry_after:1.5", "whole seconds"),
        ("429_reset", "duration"),
        ("429_reset:", "duration"),
        ("429_reset:5", "duration"),
        ("429_reset:s", "duration"),
        ("429_reset:+1s", "duration"),
        ("429_reset:1s1m", "duration"),
        ("429_reset:1.2345s", "duration"),
        ("429_reset:1.5m", "duration"),
        ("429_reset:99999999999999999h", "duration"),
        ("ok@", "milliseconds"),
        ("ok@-1", "milliseconds"),
        ("ok@600001", "milliseconds"),
    ] {
        let error = text.parse::<Step>().unwrap_err().to_string();
        assert!(error.contains(reason), "{text:?}: {error}");
    }
}

#[tokio::test]
async fn ok_is_a_completion_that_echoes_its_request() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let body = json!({ "key": "invoice-17", "model": "m-1", "input": { "n": 7 } }).to_string();
    client.post(&[("content-type", "application/json")], &body).await.unwrap();
    let response = client.response().await.unwrap();
    assert_eq!((response.status, response.header("content-type")), (200, "application/json"));
    let body = response.json();
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    assert_eq!(body["model"], "m-1");
    assert_eq!(body["result"], json!({ "key": "invoice-17", "call": 1, "input": { "n": 7 } }));
}

#[tokio::test]
async fn length_ends_early_and_is_no_completed_work() {
    let server = Server::start().await;
    let response = server.call("k", &["length"]).await.unwrap();
    assert_eq!((response.status, &response.json()["choices"][0]["finish_reason"]), (200, &json!("length")));
    assert!(server.handle.effects().is_empty());
}

#[tokio::test]
async fn rate_limits_carry_their_hints() {
    let response = answer("429_retry_after:2").await;
    assert_eq!((response.status, response.header("retry-after")), (429, "2"));
    assert_eq!(response.json()["error"]["type"], "rate_limit_error");

    let response = answer("429_reset:1s").await;
    assert_eq!((response.status, response.header("retry-after")), (429, ""));
    assert_eq!(response.header("x-ratelimit-reset-requests"), "1s");
    assert_eq!(response.header("x-ratelimit-remaining-requests"), "0");
    assert_eq!(response.json()["error"]["code"], "rate_limit_exceeded");
}

#[tokio::test]
async fn errors_have_the_status_and_code_of_real_ones() {
    for (reply, status, pointer, value) in [
        ("429_quota", 429, "/error/code", "insufficient_quota"),
        ("402", 402, "/error/code", "insufficient_quota"),
        ("529", 529, "/error/type", "overloaded_error"),
        ("500", 500, "/error/type", "server_error"),
        ("401", 401, "/error/type", "authentication_error"),
        ("400_context", 400, "/error/code", "context_length_exceeded"),
        ("404", 404, "/error/code", "model_not_found"),
        ("422", 422, "/detail/0/type", "missing"),
    ] {
        let response = answer(reply).await;
        assert_eq!(
            (response.status, response.header("content-type")),
            (status, "application/json"),
            "{reply}"
        );
        let body = response.json();
        assert_eq!(body.pointer(pointer).unwrap(), value, "{reply}");
        assert!(response.complete && response.header("retry-after").is_empty(), "{reply}");
    }
    let response = answer("503").await;
    assert_eq!((response.status, response.header("content-type")), (503, "text/html"));
    assert!(response.body.starts_with("<html>"), "{}", response.body);
}

#[tokio::test]
async fn a_reset_is_seen_as_a_reset() {
    let server = Server::start().await;
    let error = server.call("k", &["reset"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let log = server.handle.log();
    assert_eq!((log[0].outcome, log[0].status), (Some(Outcome::BrokenOff), None));
}

#[tokio::test]
async fn a_cut_stream_ends_before_its_terminal_event() {
    let response = answer("cut").await;
    assert_eq!((response.status, response.complete), (200, false));
    assert!(response.header("content-type").starts_with("text/event-stream"));
    assert!(response.body.starts_with("event: message_start\ndata: {"), "{}", response.body);
    assert!(response.body.contains("content_block_delta") && !response.body.contains("message_stop"));
}

#[tokio::test]
async fn a_hang_lasts_until_the_client_gives_up() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.post(&[("idempotency-key", "k")], r#"{"script": ["hang"]}"#).await.unwrap();
    server.arrived(1).await;
    assert!(timeout(SOON, client.response()).await.is_err(), "nothing was to come");
    drop(client);
    server.ended(1).await;
    let entry = &server.handle.log()[0];
    assert_eq!((entry.outcome, entry.status), (Some(Outcome::ClientGone), None));
    assert!(entry.ended_ms.unwrap() >= entry.started_ms + 49, "{entry:?}");
}

#[tokio::test]
async fn a_hang_that_outlasts_its_bound_is_closed_without_an_answer() {
    let server = Server::start_with(Options { hang_max: SOON, ..Options::default() }).await;
    let error = server.call("k", &["hang"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert_eq!(server.handle.log()[0].outcome, Some(Outcome::BrokenOff));
}

#[tokio::test]
async fn each_key_walks_through_its_own_script_and_then_gets_ok() {
    let server = Server::start().await;
    let script = ["429_retry_after:2", "529", "ok"];
    let mut seen = Vec::new();
    for _ in 0..4 {
        for key in ["a", "b"] {
            seen.push(server.call(key, &script).await.unwrap().status);
        }
    }
    assert_eq!(seen, [429, 429, 529, 529, 200, 200, 200, 200]);
    assert_eq!((server.handle.calls(), server.handle.calls_of("a"), server.handle.calls_of("c")), (8, 4, 0));
    assert_eq!(server.handle.effects(), [("a".to_owned(), 2), ("b".to_owned(), 2)].into());
}

#[tokio::test]
async fn a_task_that_a_worker_posts_has_its_script_in_the_payload() {
    let mut client = Server::start().await.client().await;
    let task = r#"{"id": "a", "payload": {"script": ["500"], "input": 7}, "attempt": 1}"#;
    client.post(&[("idempotency-key", "a")], task).await.unwrap();
    assert_eq!(client.response().await.unwrap().status, 500);
}

#[tokio::test]
async fn a_delayed_reply_takes_its_time_and_the_work_of_a_client_that_leaves_is_not_done() {
    let server = Server::start().await;
    assert_eq!(server.call("slow", &["ok@60"]).await.unwrap().status, 200);
    let mut client = server.client().await;
    client.post(&[("idempotency-key", "left")], r#"{"script": ["ok@60000"]}"#).await.unwrap();
    server.arrived(2).await;
    drop(client);
    server.ended(2).await;
    let log = server.handle.log();
    assert!(log[0].ended_ms.unwrap() >= log[0].started_ms + 59, "{:?}", log[0]);
    assert_eq!(log[1].outcome, Some(Outcome::ClientGone));
    assert_eq!(server.handle.effects(), [("slow".to_owned(), 1)].into());
}

#[tokio::test]
async fn requests_without_a_key_belong_to_their_connection() {
    let server = Server::start().await;
    let (mut one, mut two) = (server.client().await, server.client().await);
    let mut seen = Vec::new();
    for client in [&mut one, &mut two] {
        for _ in 0..2 {
            client.post(&[], r#"{"script": ["500"]}"#).await.unwrap();
            seen.push(client.response().await.unwrap().status);
        }
    }
    assert_eq!(seen, [500, 200, 500, 200]);
    assert!(server.handle.log().iter().all(|entry| entry.key.starts_with("connection:")));
}

#[tokio::test]
async fn a_bad_request_is_told_why_and_advances_nothing() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for (body, reason) in [
        (r#"{"script": ["500", "418"]}"#, "script[1]: unknown reply \"418\""),
        (r#"{"script": [5]}"#, "script[0] is not text"),
        (r#"{"script": "ok"}"#, "`script` must be an array"),
        ("{", "the body is not JSON"),
    ] {
        client.post(&[("idempotency-key", "k")], body).await.unwrap();
        let response = client.response().await.unwrap();
        let message = response.json()["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!(response.status, 400);
        assert!(message.contains(reason), "{message}");
    }
    client.post(&[], r#"{"key": 5}"#).await.unwrap();
    assert_eq!(client.response().await.unwrap().status, 400);
    assert_eq!(client.get("/v1/models").await.status, 405);
    assert_eq!(client.call("k", &["500"]).await.unwrap().status, 500);
    let log = server.handle.log();
    assert_eq!((log[0].reply, log[0].step, log[0].status), (None, None, Some(400)));
    assert_eq!((log.last().unwrap().step, log.last().unwrap().call), (Some(0), 5));
}

#[tokio::test]
async fn an_outage_takes_every_request_and_advances_no_script() {
    let server = Server::start().await;
    assert_eq!(server.call("k", &["500", "404"]).await.unwrap().status, 500);
    server.handle.begin_outage(Reply::Overloaded);
    for key in ["k", "k", "other"] {
        assert_eq!(server.call(key, &["500", "404"]).await.unwrap().status, 529);
    }
    assert_eq!(server.client().await.get("/health").await.status, 200);
    server.handle.end_outage();
    assert_eq!(server.call("k", &["500", "404"]).await.unwrap().status, 404);
    let log = server.handle.log();
    let seen: Vec<_> = log.iter().map(|entry| (entry.in_outage, entry.call, entry.step)).collect();
    let k = [(false, 1, Some(0)), (true, 2, None), (true, 3, None), (true, 1, None), (false, 4, Some(1))];
    assert_eq!(seen, k);
}

#[tokio::test]
async fn a_scheduled_outage_counts_from_the_first_request() {
    let first = ScheduledOutage { from: Duration::ZERO, to: SOON, reply: Reply::Unavailable };
    let later = ScheduledOutage { from: NEVER, to: NEVER * 2, reply: Reply::ServerError };
    let server = Server::start_with(Options { outages: vec![later, first], ..Options::default() }).await;
    let mut client = server.client().await;
    let begun = tokio::time::Instant::now();
    assert_eq!(client.call("k", &[]).await.unwrap().status, 503);
    while client.call("k", &[]).await.unwrap().status == 503 {
        tokio::task::yield_now().await;
    }
    assert!(begun.elapsed() >= SOON - Duration::from_millis(5));
    assert!(begun.elapsed() < NEVER);
}

#[tokio::test]
async fn the_log_tells_who_called_and_how_it_ended() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let headers = [
        ("Idempotency-Key", "k"),
        ("x-redrive-task", "t-1"),
        ("X-Redrive-Attempt", "2"),
        ("x-redrive-epoch", "77"),
    ];
    client.post(&headers, r#"{"key": "ignored", "script": ["529"]}"#).await.unwrap();
    assert_eq!(client.response().await.unwrap().status, 529);
    let response = client.get("/log").await;
    assert_eq!(response.header("content-type"), "application/x-ndjson");
    let lines: Vec<Entry> = response.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, server.handle.log());
    let entry = &lines[0];
    assert_eq!((entry.key.as_str(), entry.task.as_deref()), ("k", Some("t-1")));
    assert_eq!((entry.attempt, entry.epoch, entry.status), (Some(2), Some(77), Some(529)));
    assert_eq!((entry.reply, entry.outcome), (Some(Reply::Overloaded), Some(Outcome::Answered)));
    assert!(entry.ended_ms >= Some(entry.started_ms));
    assert_eq!(lines.len(), 1, "neither /log nor /health is logged");
}

#[tokio::test]
async fn two_calls_of_one_key_at_once_are_an_overlap() {
    let server = Server::start().await;
    let script = ["ok@200", "ok@20", "ok"];
    let (one, two, other) =
        tokio::join!(server.call("k", &script), server.call("k", &script), server.call("other", &script));
    for response in [one, two, other, server.call("k", &script).await] {
        assert_eq!(response.unwrap().status, 200);
    }
    let overlaps = server.handle.overlaps();
    assert_eq!(overlaps.len(), 1, "{overlaps:?}");
    assert_eq!((overlaps[0].first.key.as_str(), overlaps[0].second.key.as_str()), ("k", "k"));
    assert!(overlaps[0].first.seq < overlaps[0].second.seq);
    assert!(overlaps[0].lasted >= Duration::from_millis(15), "{overlaps:?}");
    assert_eq!(server.handle.effects()["k"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_one_after_the_other_never_look_like_an_overlap() {
    let server = Server::start().await;
    for _ in 0..300 {
        assert_eq!(server.call("k", &[]).await.unwrap().status, 200);
        let progress = *server.handle.progress().borrow();
        assert_eq!(progress.ended, progress.arrived, "an answer was sent before its call had ended");
    }
    assert_eq!((server.handle.calls(), server.handle.overlaps().len()), (300, 0));
}

fn record(key: &str, started_ms: u64, ended_ms: Option<u64>) -> Record {
    let ended = ended_ms.map(Duration::from_millis);
    Record {
        key: key.into(),
        call: 1,
        step: None,
        task: None,
        attempt: None,
        epoch: None,
        started: Duration::from_millis(started_ms),
        ended,
        reply: None,
        status: None,
        in_outage: false,
        outcome: None,
    }
}

#[test]
fn overlaps_are_pairs_and_unfinished_calls_last_until_now() {
    let mut log = Log::new(10);
    for (key, started_ms, ended_ms) in [
        ("a", 0, Some(10)),
        ("b", 1, None),
        ("a", 2, Some(5)),
        ("a", 4, Some(6)),
        ("a", 10, Some(12)),
        ("b", 20, Some(30)),
    ] {
        log.push(record(key, started_ms, ended_ms));
    }
    let overlaps = log.overlaps(Duration::from_millis(25));
    let pairs: Vec<_> = overlaps.iter().map(|o| (o.first.seq, o.second.seq, o.lasted.as_millis())).collect();
    assert_eq!(pairs, [(0, 2, 3), (0, 3, 2), (2, 3, 1), (1, 5, 5)]);
}

#[tokio::test]
async fn a_full_log_drops_the_oldest_and_still_counts() {
    let server = Server::start_with(Options { log_entries_max: 2, ..Options::default() }).await;
    let mut client = server.client().await;
    for _ in 0..5 {
        client.call("k", &[]).await.unwrap();
    }
    let seqs: Vec<_> = server.handle.log().iter().map(|entry| entry.seq).collect();
    assert_eq!((seqs, server.handle.log_dropped(), server.handle.calls()), (vec![3, 4], 3, 5));
    assert_eq!(server.handle.effects()["k"], 5);
}

#[tokio::test]
async fn a_connection_serves_many_requests_also_when_sent_ahead() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.post(&[("idempotency-key", "a")], r#"{"script": ["500@30"]}"#).await.unwrap();
    client.post(&[("idempotency-key", "b")], "").await.unwrap();
    for status in [500, 200] {
        let response = client.response().await.unwrap();
        assert_eq!((response.status, response.header("connection")), (status, "keep-alive"));
    }
    client.post(&[("connection", "close")], "").await.unwrap();
    assert_eq!(client.response().await.unwrap().header("connection"), "close");
    assert_eq!(client.rest().await.unwrap(), b"");
}

#[tokio::test]
async fn chunked_bodies_and_expect_continue_are_understood() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let head = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n";
    client.raw(head.as_bytes()).await.unwrap();
    assert_eq!(client.response().await.unwrap().status, 100);
    client.raw(b"b;x=1\r\n{\"script\": [\r\n8\r\n\"404\"]} \r\n0\r\ntrailer: x\r\n\r\n").await.unwrap();
    assert_eq!(client.response().await.unwrap().status, 400, "11 bytes do not fit what was sent");

    let mut client = server.client().await;
    let chunks = "c\r\n{\"script\": [\r\n7\r\n\"404\"]}\r\n0\r\ntrailer: x\r\n\r\n";
    client.raw(format!("{}{chunks}", head.replace("expect: 100-continue\r\n", "")).as_bytes()).await.unwrap();
    assert_eq!(client.response().await.unwrap().status, 404);
    assert_eq!(client.get("/health").await.body, "ok\n", "the next request is in step");
}

async fn refused(client: &mut Client, request: &[u8]) -> u16 {
    client.raw(request).await.unwrap();
    let response = client.response().await.unwrap();
    assert_eq!(response.header("connection"), "close");
    assert!(response.json()["error"]["message"].is_string());
    assert_eq!(client.rest().await.unwrap(), b"");
    response.status
}

#[tokio::test]
async fn what_is_too_large_or_malformed_is_refused_and_the_connection_closed() {
    let server = Server::start().await;
    let padding = "x".repeat(limits::HEAD_BYTES_MAX);
    let many = "a: b\r\n".repeat(limits::HEADERS_MAX + 1);
    // More than the sockets hold: the client is still sending when it is refused.
    let body = "x".repeat(limits::DRAIN_BYTES_MAX);
    for (request, status) in [
        (format!("POST / HTTP/1.1\r\npadding: {padding}\r\n\r\n"), 431),
        (format!("POST / HTTP/1.1\r\npadding: {padding}"), 431),
        (format!("POST / HTTP/1.1\r\n{many}\r\n"), 431),
        (format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}", body.len()), 413),
        (format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}", body.len()), 413),
        ("POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n".to_owned(), 501),
        ("nonsense\r\n\r\n".to_owned(), 400),
    ] {
        let start = &request[..request.len().min(70)];
        assert_eq!(refused(&mut server.client().await, request.as_bytes()).await, status, "{start}");
    }
    let largest = format!("\"{}\"", "x".repeat(limits::BODY_BYTES_MAX - 2));
    let mut client = server.client().await;
    client.post(&[], &largest).await.unwrap();
    assert_eq!(client.response().await.unwrap().status, 200);
}

#[tokio::test]
async fn a_head_that_does_not_end_times_out_and_silence_is_closed_in_silence() {
    let server = Server::start_with(Options { head_timeout: SOON, ..Options::default() }).await;
    assert_eq!(refused(&mut server.client().await, b"POST / HTTP/1.1\r\n").await, 408);
    assert_eq!(server.client().await.rest().await.unwrap(), b"");
    assert_eq!(server.handle.calls(), 0, "no request had arrived");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_room() {
    let server = Server::start_with(Options { connections_max: 1, ..Options::default() }).await;
    let mut first = server.client().await;
    assert_eq!(first.call("a", &[]).await.unwrap().status, 200);
    let mut second = server.client().await;
    assert!(timeout(SOON, second.call("b", &[])).await.is_err(), "served beyond the limit");
    drop(first);
    assert_eq!(second.response().await.unwrap().status, 200);
}

#[tokio::test]
async fn shutdown_ends_what_is_hanging() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.post(&[("idempotency-key", "k")], r#"{"script": ["hang"]}"#).await.unwrap();
    server.arrived(1).await;
    server.shutdown.cancel();
    server.task.await.unwrap();
    assert!(client.rest().await.unwrap().is_empty());
    let handle: UpstreamHandle = server.handle;
    assert_eq!(handle.log()[0].outcome, Some(Outcome::Stopped));
    assert!(tokio::net::TcpStream::connect(server.addr).await.is_err(), "still listening");
}
