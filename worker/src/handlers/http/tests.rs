use redrive_shared::classify::classify;
use redrive_shared::lock::Resource;

use super::super::document::tests::lease;
use super::*;
use crate::context::tests::{MAX_BLOB_BYTES, attempt, fake::FakeAttempts};
use crate::context::{Stop, Wanted};
use crate::heavy::tests::{HEAVY_BYTES, leaves_its_thread};
use crate::test_server::{TestServer, nobody, response};

fn context() -> (TaskContext, Stop) {
    attempt(&FakeAttempts::new(), &lease("1"))
}

async fn post(url: &str) -> Outcome {
    let handler = HttpHandler::new(url).unwrap();
    handler.run(&lease(r#"{"a": 1}"#), &context().0).await
}

async fn outcome_of(bytes: impl Into<Vec<u8>>) -> Outcome {
    post(&TestServer::answering(bytes).await.url).await
}

async fn failure_of(bytes: impl Into<Vec<u8>>) -> FailureSignal {
    match outcome_of(bytes).await {
        Outcome::Retry { failure, .. } => failure,
        other => panic!("{other:?}"),
    }
}

async fn result_of(body: &str) -> Option<String> {
    match outcome_of(response("200 OK", "", body)).await {
        Outcome::Done { result, .. } => result.map(|json| json.get().to_owned()),
        other => panic!("{other:?}"),
    }
}

fn class_of(failure: &FailureSignal) -> FailureClass {
    classify(failure, None, 0).class
}

#[tokio::test]
async fn the_task_is_posted_with_the_headers_that_fence_it() {
    let mut server = TestServer::answering(response("200 OK", "", "")).await;
    assert!(matches!(post(&server.url).await, Outcome::Done { result: None, .. }));
    let request = server.request().await;
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    for header in [
        "POST / HTTP/1.1",
        "content-type: application/json",
        "idempotency-key: order-17/charge",
        "x-redrive-task: order-17/charge",
        "x-redrive-attempt: 2",
        "x-redrive-epoch: 1700000000000001",
        "x-redrive-route: 1",
        "x-redrive-dependency: stripe/acct/charges",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ] {
        assert!(head.contains(header), "{header} in {head}");
    }
    assert!(body.contains(r#""payload":{"a": 1}"#), "{body}");
}

#[tokio::test]
async fn a_whole_good_body_is_the_result() {
    assert_eq!(result_of(r#"{"charged":  true}"#).await.unwrap(), r#"{"charged":  true}"#);
    assert_eq!(result_of("thanks").await.unwrap(), r#""thanks""#);
    assert_eq!(result_of(r#"{"result": 7}"#).await.unwrap(), "7");
}

#[tokio::test]
async fn a_body_can_say_how_it_ended() {
    let snoozed = outcome_of(response("200 OK", "", r#"{"snooze_ms": 500}"#)).await;
    assert!(matches!(snoozed, Outcome::Snooze { delay_ms: 500 }));
    let dead = outcome_of(response("200 OK", "", r#"{"dead": {"exception": "gone"}}"#)).await;
    assert!(matches!(dead, Outcome::Dead { .. }));
}

#[tokio::test]
async fn a_failure_is_passed_on_as_it_was_seen() {
    let failure = failure_of(response("429 Too Many Requests", "Retry-After: 7\r\n", "slow down")).await;
    assert_eq!(failure.http_status, Some(429));
    assert_eq!(failure.headers["retry-after"], "7");
    assert_eq!(failure.body.as_deref(), Some("slow down"));
    let judged = classify(&failure, None, 0);
    assert_eq!((judged.class, judged.retry_after_ms), (FailureClass::RateLimited, Some(7_000)));
    // Not even for a request that is wrong does the handler decide.
    assert_eq!(failure_of(response("400 Bad Request", "", "no")).await.http_status, Some(400));
    assert_eq!(failure_of(response("302 Found", "location: /x\r\n", "")).await.http_status, Some(302));
}

#[tokio::test]
async fn a_body_cut_in_the_middle_is_a_partial_response() {
    let by_length = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"answer\": \"4";
    let by_chunk = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nd\r\n{\"answer\": \"4\r\n";
    for cut in [by_length, by_chunk] {
        let failure = failure_of(cut).await;
        assert_eq!(failure.http_status, Some(200));
        assert_eq!(failure.body.as_deref(), Some("{\"answer\": \"4"));
        assert!(failure.exception.is_some());
        assert_eq!(class_of(&failure), FailureClass::PartialResponse, "{failure:?}");
    }
}

#[tokio::test]
async fn a_good_status_does_not_hide_a_bad_answer() {
    let failure = failure_of(response("200 OK", "", r#"{"choices": [{"finish_reason": "length"}]}"#)).await;
    assert_eq!(failure.finish_reason.as_deref(), Some("length"));
    assert_eq!(class_of(&failure), FailureClass::BadOutput);
}

#[tokio::test]
async fn bodies_are_bounded() {
    let large = "x".repeat(MAX_BLOB_BYTES as usize + 1);
    let failure = failure_of(response("200 OK", "", &large)).await;
    assert!(failure.exception.unwrap().contains(&format!("more than {MAX_BLOB_BYTES} bytes")));
    let failure = failure_of(response("500 Internal Server Error", "", &large)).await;
    assert_eq!((failure.http_status, failure.exception), (Some(500), None));
    assert_eq!(failure.body.unwrap().len(), SIGNAL_TEXT_MAX_BYTES);
}

#[tokio::test]
async fn nobody_there_is_a_network_failure() {
    let Outcome::Retry { failure, .. } = post(&nobody().await).await else { panic!("a retry") };
    assert_eq!(class_of(&failure), FailureClass::Network, "{failure:?}");
    let broken = failure_of("HTTP/1.1 200").await;
    assert_eq!(broken.http_status, None);
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_left_alone_in_time() {
    let mut server = TestServer::answering("").await;
    for reason in [CancelReason::Timeout, CancelReason::Draining] {
        let handler = HttpHandler::new(&server.url).unwrap();
        let (task, (ctx, stop)) = (lease("1"), context());
        let (outcome, ()) = tokio::join!(handler.run(&task, &ctx), async {
            server.request().await;
            stop.now(reason);
        });
        match (reason, outcome) {
            (CancelReason::Timeout, Outcome::Retry { failure, .. }) => {
                assert_eq!(failure.class, Some(FailureClass::Timeout));
            }
            (CancelReason::Draining, Outcome::Release { .. }) => {}
            (reason, outcome) => panic!("{reason:?}: {outcome:?}"),
        }
    }
}

#[test]
fn only_addresses_that_can_be_posted_to_are_taken() {
    assert!(HttpHandler::new("ftp://host/").is_err());
    assert!(HttpHandler::new("not an address").is_err());
}

#[tokio::test]
async fn what_it_paid_counts_whatever_the_status() {
    for (status, body) in [
        ("500 Internal Server Error", r#"{"error": "oh", "cost_usd": 0.5}"#),
        ("200 OK", r#"{"error": {"type": "overloaded_error", "message": "Overloaded"}, "cost_usd": 0.5}"#),
    ] {
        let outcome = outcome_of(response(status, "", body)).await;
        assert!(matches!(outcome, Outcome::Retry { .. }), "{outcome:?}");
        assert_eq!(outcome.cost().usd(), 0.5, "{status}");
    }
}

/// A connection that breaks says nothing of the endpoint.
#[tokio::test]
async fn where_the_answer_does_not_arrive_whole_its_locks_are_not_given_back() {
    for (answer, given_back) in [
        (response("200 OK", "", "1"), 1),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx".to_owned(), 0),
        ("HTTP/".to_owned(), 0),
    ] {
        let (link, task) = (FakeAttempts::new(), lease("1"));
        let (ctx, _) = attempt(&link, &task);
        let wanted = Wanted { exclusive: vec![Resource::new("report.md").unwrap()], ..Wanted::default() };
        ctx.lock(wanted).await.unwrap();
        let server = TestServer::answering(answer.clone()).await;
        HttpHandler::new(&server.url).unwrap().run(&task, &ctx).await;
        ctx.release_locks().await;
        assert_eq!(link.state().released.len(), given_back, "{answer}");
    }
}

#[test]
fn a_large_answer_is_read_beside_the_other_tasks() {
    let answer = format!("\"{}\"", "x".repeat(HEAVY_BYTES));
    assert!(leaves_its_thread(async { result_of(&answer).await }));
    assert!(!leaves_its_thread(async { result_of("1").await }));
}
