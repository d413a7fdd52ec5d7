use redrive_shared::error::ErrorCode;

use super::*;
use crate::test_server::{TestServer, nobody, response};

fn client(server: &TestServer) -> Client {
    Client::new(&server.url).unwrap()
}

fn problem_json(code: ErrorCode) -> String {
    serde_json::to_string(&Problem::new(code, "because")).unwrap()
}

#[tokio::test]
async fn ids_are_encoded_in_paths() {
    let mut server =
        TestServer::answering(response("404 Not Found", "", &problem_json(ErrorCode::UnknownTask))).await;
    let id = TaskId::new("a/b#c+ü").unwrap();
    let error = client(&server).task(&id, Some(250)).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownTask));
    assert!(!error.is_retryable());
    let request = server.request().await;
    assert!(request.starts_with("GET /v1/tasks/a%2Fb%23c+%C3%BC?wait_ms=250 HTTP/1.1"), "{request}");
}

#[tokio::test]
async fn a_list_asks_for_what_was_given() {
    let mut server = TestServer::answering(response("200 OK", "", r#"{"tasks": []}"#)).await;
    let query = ListQuery {
        queue: Some(Name::new("a+b").unwrap()),
        state: Some(TaskState::Dead),
        cursor: None,
        limit: Some(5),
    };
    let page = client(&server).tasks(&query).await.unwrap();
    assert!(page.tasks.is_empty() && page.next_cursor.is_none());
    let request = server.request().await;
    assert!(request.starts_with("GET /v1/tasks?queue=a%2Bb&state=dead&limit=5 HTTP/1.1"), "{request}");
}

#[tokio::test]
async fn a_path_in_the_address_is_kept() {
    let mut server = TestServer::answering(response("200 OK", "", r#"{"queues": []}"#)).await;
    for base in ["/redrive", "/redrive/"] {
        Client::new(&format!("{}{base}", server.url)).unwrap().queues().await.unwrap();
        assert!(server.request().await.starts_with("GET /redrive/v1/queues HTTP/1.1"));
    }
}

#[tokio::test]
async fn a_refusal_carries_its_hint() {
    let body = problem_json(ErrorCode::Overloaded);
    let server = TestServer::answering(response("429 Too Many Requests", "retry-after: 3\r\n", &body)).await;
    let error = client(&server).queues().await.unwrap_err();
    assert!(error.is_retryable() && !error.is_outcome_unknown());
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
    assert_eq!(error.to_string(), "overloaded: because");
}

#[tokio::test]
async fn other_programs_are_not_taken_for_a_coordinator() {
    let server = TestServer::answering(response("502 Bad Gateway", "", "<html>nginx</html>")).await;
    let error = client(&server).agents().await.unwrap_err();
    assert!(matches!(error, ClientError::Protocol { status: Some(502), .. }) && error.is_retryable());
    let server = TestServer::answering(response("200 OK", "", "<html>hello</html>")).await;
    let error = client(&server).agents().await.unwrap_err();
    assert!(error.to_string().contains("hello") && !error.is_retryable());
}

#[tokio::test]
async fn no_answer_is_told_from_nobody_there() {
    let error = Client::new(&nobody().await).unwrap().queues().await.unwrap_err();
    assert!(error.is_retryable() && !error.is_outcome_unknown(), "it cannot have been carried out");
    assert!(error.chain().to_lowercase().contains("refused"), "{}", error.chain());
    let server = TestServer::answering("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{").await;
    let error = client(&server).queues().await.unwrap_err();
    assert!(error.is_retryable() && error.is_outcome_unknown(), "{error:?}");
    assert!(!Client::new(&nobody().await).unwrap().ready().await);
}

#[tokio::test]
async fn presence_ends_with_its_connection() {
    let (agent, boot) = (Name::new("a/1").unwrap(), Name::new("boot").unwrap());
    let open = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n\n\r\n";
    let mut broken = TestServer::answering(open).await;
    let mut presence = client(&broken).presence(&agent, &boot).await.unwrap();
    assert!(presence.beat().await.unwrap());
    assert!(presence.closed().await.is_err());
    assert!(broken.request().await.starts_with("GET /v1/agents/a%2F1/presence?boot_id=boot HTTP/1.1"));
    let closed = TestServer::answering(format!("{open}0\r\n\r\n")).await;
    client(&closed).presence(&agent, &boot).await.unwrap().closed().await.unwrap();
}

#[test]
fn an_address_is_checked_before_anything_is_sent() {
    for wrong in ["", "127.0.0.1:7878", "ftp://host", "http://"] {
        assert!(matches!(Client::new(wrong), Err(ClientError::Address { .. })), "{wrong}");
    }
    assert!(is_loopback(&Url::parse("http://[::1]:1/").unwrap()));
    assert!(is_loopback(&Url::parse("http://localhost/").unwrap()));
    assert!(!is_loopback(&Url::parse("http://10.0.0.1/").unwrap()));
}
