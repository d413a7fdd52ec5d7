//! Enqueue, work and look, with processes as handlers: the documented examples among them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::support::process::{Coordinator, redrive, terminate};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a client command with `--json`; returns its exit code, stdout and stderr.
async fn client(coordinator: &Coordinator, arguments: &[&str], input: Option<&str>) -> (i32, String, String) {
    let mut command = redrive();
    command.args(["--json", "--url", &coordinator.url()]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.unwrap_or("").as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn exec_worker(coordinator: &Coordinator, queue: &str, command: &str) -> Child {
    redrive()
        .args(["--url", &coordinator.url(), "worker", "--agent", "cli", "--queues", queue, "--exec", command])
        .current_dir(repository())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

async fn finished(coordinator: &Coordinator, id: &str) -> Value {
    let (code, out, said) = client(coordinator, &["tasks", "show", id, "--wait", "30s"], None).await;
    assert_eq!(code, 0, "{said}");
    serde_json::from_str(&out).unwrap()
}

#[tokio::test]
async fn lines_on_stdin_become_tasks_and_a_bad_line_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(directory.path()).await;
    let mut lines: String =
        (0..2_500).map(|n| format!("{{\"id\": \"line-{n}\", \"payload\": {n}}}\n")).collect();
    lines.insert_str(0, "not json\n");
    let (code, _, said) = client(&coordinator, &["enqueue", "--jsonl"], Some(&lines)).await;
    assert_eq!(code, 1, "a bad line is a failure in the end");
    assert!(said.contains("line 1"), "{said}");
    let (_, out, _) = client(&coordinator, &["queues", "show", "default"], None).await;
    let queue: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(queue["counts"]["scheduled"], 2_500);
}

#[tokio::test]
async fn a_shell_handler_succeeds_fails_and_gives_up_by_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(directory.path()).await;
    let policy = r#"{"overrides": {"unknown": {"strategy": {"strategy": "fixed", "delay_ms": 50}},
        "tool_error": {"strategy": {"strategy": "fixed", "delay_ms": 50}}}}"#;
    client(&coordinator, &["queues", "create", "shell", "--policy", policy], None).await;
    for (id, payload) in [("good", "\"ok\""), ("again", "\"once\""), ("wrong", "\"data\"")] {
        let arguments = ["enqueue", "--queue", "shell", "--id", id, "--payload", payload];
        assert_eq!(client(&coordinator, &arguments, None).await.0, 0);
    }
    let marker = directory.path().join("marker");
    let script = format!(
        r#"case "$(cat)" in
             *'"payload":"ok"'*) echo "{{\"result\": {{\"attempt\": $REDRIVE_ATTEMPT}}}}" ;;
             *'"payload":"once"'*) [ -e {0} ] && exit 0; touch {0}; echo 'later' >&2; exit 75 ;;
             *) echo 'bad data' >&2; exit 65 ;;
           esac"#,
        marker.display()
    );
    let _worker = exec_worker(&coordinator, "shell", &script);
    let good = finished(&coordinator, "good").await;
    assert_eq!((&good["state"], &good["result"]["attempt"]), (&"succeeded".into(), &1.into()));
    let again = finished(&coordinator, "again").await;
    assert_eq!((&again["state"], &again["ledger"]["failed"]), (&"succeeded".into(), &1.into()));
    let wrong = finished(&coordinator, "wrong").await;
    assert_eq!(
        (&wrong["state"], &wrong["last_failure"]["class"]),
        (&"dead".into(), &"invalid_request".into())
    );
}

#[tokio::test]
async fn the_documented_examples_work() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(directory.path()).await;
    let model = model_server().await;
    let python = format!("MODEL_URL={model} python3 docs/examples/handler.py");
    let at_once = r#"{"overrides": {"overloaded": {"strategy": {"strategy": "fixed", "delay_ms": 20}}}}"#;
    for (id, payload, handler, failures) in [
        ("python", serde_json::json!({ "prompt": "hello" }), python.as_str(), 1),
        (
            "shell",
            serde_json::json!({ "url": format!("{}/livez", coordinator.url()) }),
            "sh docs/examples/handler.sh",
            0,
        ),
    ] {
        client(&coordinator, &["queues", "create", id, "--policy", at_once], None).await;
        let arguments = ["enqueue", "--queue", id, "--id", id, "--payload", &payload.to_string()];
        assert_eq!(client(&coordinator, &arguments, None).await.0, 0);
        let _worker = exec_worker(&coordinator, id, handler);
        let task = finished(&coordinator, id).await;
        assert_eq!(
            (&task["state"], &task["ledger"]["failed"]),
            (&"succeeded".into(), &failures.into()),
            "{task:#}"
        );
    }
}

/// A model's API that has no capacity for the first call and answers the others.
async fn model_server() -> String {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/v1/chat/completions", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let busy = ("503 Service Unavailable", r#"{"error": {"message": "overloaded"}}"#);
        let good = ("200 OK", r#"{"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}"#);
        for (status, body) in std::iter::once(busy).chain(std::iter::repeat(good)) {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 8 * 1024];
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut head).await;
            let reply = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(reply.as_bytes()).await;
        }
    });
    url
}

#[tokio::test]
async fn a_second_signal_ends_the_worker_and_its_handlers_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(directory.path()).await;
    assert_eq!(client(&coordinator, &["enqueue", "--queue", "slow", "--payload", "1"], None).await.0, 0);
    // The handler says its process id through a pipe that stays open for as long as it lives.
    let pipe = directory.path().join("alive");
    assert!(Command::new("mkfifo").arg(&pipe).status().await.unwrap().success());
    let mut worker =
        exec_worker(&coordinator, "slow", &format!("exec 9>{}; echo here >&9; sleep 600", pipe.display()));
    let alive = tokio::spawn(async move {
        let mut alive = tokio::io::BufReader::new(tokio::fs::File::open(pipe).await.unwrap());
        let mut line = String::new();
        tokio::io::AsyncBufReadExt::read_line(&mut alive, &mut line).await.unwrap();
        (line, alive)
    });
    let (line, mut alive) = soon(alive).await.unwrap();
    assert_eq!(line, "here\n");
    // The first lets it drain, which takes as long as the handler does; the second is for those who will not wait. Signals
    // that come while one is pending are one, so it is repeated until it is heard.
    let ended = async {
        loop {
            terminate(&worker);
            if let Ok(status) = tokio::time::timeout(Duration::from_millis(200), worker.wait()).await {
                return status.unwrap();
            }
        }
    };
    assert_eq!(soon(ended).await.code(), Some(130));
    let mut rest = Vec::new();
    soon(tokio::io::AsyncReadExt::read_to_end(&mut alive, &mut rest)).await.expect("its handler is gone");
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("it comes soon")
}

#[tokio::test]
async fn errors_say_what_to_do_and_exit_codes_tell_them_apart() {
    let nobody = redrive().args(["--url", "http://127.0.0.1:9", "tasks", "list"]).output().await.unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(said.contains("redrive dev"), "{said}");
    let usage = redrive().args(["tasks", "lst"]).output().await.unwrap();
    assert_eq!(usage.status.code(), Some(2));
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), "[coordinator]\nlisten_on = \"127.0.0.1:1\"\n").unwrap();
    let unknown = redrive().arg("--config").arg(config.path()).arg("coordinator").output().await.unwrap();
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(2), "{said}");
    assert!(
        said.contains("listen_on") && said.contains("`coordinator.listen`") && said.contains(":2"),
        "{said}"
    );
    let open =
        redrive().args(["coordinator", "--listen", "0.0.0.0:0", "--in-memory"]).output().await.unwrap();
    assert_eq!(open.status.code(), Some(2), "an open address is refused at start");
}
