use std::path::PathBuf;

use redrive_shared::classify::classify;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use super::super::document::tests::lease;
use super::*;
use crate::context::Stop;
use crate::context::tests::{MAX_BLOB_BYTES, attempt, fake::FakeAttempts};
use crate::heavy::tests::{HEAVY_BYTES, leaves_its_thread};

/// A context of agent `agent-1` with a time-out of 9 s.
fn context() -> (TaskContext, Stop) {
    attempt(&FakeAttempts::new(), &lease("1"))
}

async fn run_with(command: &str, payload: &str) -> Outcome {
    ProcessHandler::new(command).run(&lease(payload), &context().0).await
}

async fn run(command: &str) -> Outcome {
    run_with(command, "1").await
}

async fn result(command: &str) -> Option<String> {
    match run(command).await {
        Outcome::Done { result, .. } => result.map(|json| json.get().to_owned()),
        other => panic!("{command}: {other:?}"),
    }
}

async fn failure_of(command: &str) -> FailureSignal {
    match run(command).await {
        Outcome::Retry { failure, .. } => failure,
        other => panic!("{command}: {other:?}"),
    }
}

/// A named pipe that tells when everyone who holds its other end is gone.
struct Witness {
    _dir: TempDir,
    path: PathBuf,
}

impl Witness {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        Self { _dir: dir, path }
    }

    /// The command with `FIFO` replaced by the pipe's path.
    fn command(&self, command: &str) -> String {
        command.replace("FIFO", self.path.to_str().unwrap())
    }

    /// Waits for the first line; then `first`; then for the end of everyone who could write.
    async fn watch(&self, first: impl FnOnce()) {
        let mut lines = BufReader::new(tokio::fs::File::open(&self.path).await.unwrap());
        lines.read_line(&mut String::new()).await.unwrap();
        first();
        lines.read_to_end(&mut Vec::new()).await.unwrap();
    }
}

/// Runs the command, stops it for that reason as soon as it has written a line, and waits for the end of its group.
async fn stopped(command: &str, reason: CancelReason) -> Outcome {
    let (witness, (ctx, stop)) = (Witness::new(), context());
    let handler = ProcessHandler::new(witness.command(command));
    let task = lease("1");
    tokio::join!(handler.run(&task, &ctx), witness.watch(|| stop.now(reason))).0
}

#[tokio::test]
async fn the_document_comes_on_standard_input_and_the_rest_in_the_environment() {
    let echoed = result("cat").await.unwrap();
    assert!(echoed.contains(r#""id":"order-17/charge""#) && echoed.contains(r#""payload":1"#), "{echoed}");
    let environment = result(
        r#"printf '%s|' "$REDRIVE_TASK_ID" "$REDRIVE_ATTEMPT" "$REDRIVE_EPOCH" "$REDRIVE_NONCE" "$REDRIVE_ROUTE" \
           "$REDRIVE_DEPENDENCY" "$REDRIVE_QUEUE" "$REDRIVE_AGENT" "$REDRIVE_API_URL" "$TRACEPARENT""#,
    );
    assert_eq!(
        environment.await.unwrap(),
        "\"order-17/charge|2|1700000000000001|0000000000000007|1|stripe/acct/charges|default|agent-1|http://127.0.0.1:7878|\
         00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01|\""
    );
}

#[tokio::test]
async fn standard_output_is_the_result() {
    assert_eq!(result("true").await, None);
    assert_eq!(result("echo hello").await.unwrap(), "\"hello\"");
    assert_eq!(result("echo '[1,  2]'").await.unwrap(), "[1,  2]");
    assert_eq!(result(r#"echo '{"result": {"ok": true}}'"#).await.unwrap(), r#"{"ok": true}"#);
}

#[tokio::test]
async fn what_is_said_in_so_many_words_counts_whatever_the_exit_code() {
    let failure = failure_of(r#"echo '{"failure": {"http_status": 503}}'; exit 3"#).await;
    assert_eq!((failure.http_status, failure.exit_code), (Some(503), None));
    assert!(matches!(run(r#"echo '{"snooze_ms": 10}'; exit 1"#).await, Outcome::Snooze { delay_ms: 10 }));
    assert!(matches!(run(r#"echo '{"dead": {}}'"#).await, Outcome::Dead { .. }));
    assert!(matches!(run(r#"echo '{"escalate": {}}'"#).await, Outcome::Escalate { .. }));
    let Outcome::Retry { failure, .. } = run(r#"echo '{"result": 1}'; exit 3"#).await else {
        panic!("a retry")
    };
    assert_eq!(failure.exit_code, Some(3), "a result counts only with exit code 0");
}

#[tokio::test]
async fn exit_codes_have_their_usual_meaning() {
    for code in [64, 65] {
        let Outcome::Dead { failure, .. } = run(&format!("exit {code}")).await else { panic!("{code}") };
        assert_eq!((failure.class, failure.exit_code), (Some(FailureClass::InvalidRequest), Some(code)));
    }
    let Outcome::Escalate { failure, .. } = run("exit 77").await else { panic!("77") };
    assert_eq!(failure.class, Some(FailureClass::Permission));
    assert!(matches!(run("exit 78").await, Outcome::Escalate { .. }));
    assert_eq!(failure_of("exit 124").await.class, Some(FailureClass::Timeout));
    let lost = failure_of("echo 'error: lock: it was lost' >&2; exit 76").await;
    assert_eq!(classify(&lost, None, 0).class, FailureClass::LockTimeout, "{lost:?}");
    for code in [69, 75] {
        let failure = failure_of(&format!("exit {code}")).await;
        assert!(classify(&failure, None, 0).retryable, "{failure:?}");
    }
    let failure = failure_of("echo 'ConnectionResetError: reset by peer' >&2; exit 1").await;
    assert_eq!(failure.exit_code, Some(1));
    assert!(failure.exception.as_ref().unwrap().ends_with("ConnectionResetError: reset by peer"));
    assert_eq!(classify(&failure, None, 0).class, FailureClass::Network);
}

#[tokio::test]
async fn a_signal_is_named() {
    for command in ["kill -9 $$", "sh -c 'kill -9 $$'; exit $?"] {
        let failure = failure_of(command).await;
        assert_eq!(failure.exit_code, Some(137));
        assert!(failure.exception.as_ref().unwrap().contains("SIGKILL"), "{failure:?}");
        assert_eq!(classify(&failure, None, 0).class, FailureClass::WorkerLost);
    }
}

#[tokio::test]
async fn only_the_end_of_standard_error_is_kept() {
    let failure = failure_of("yes noise | head -c 100000 >&2; echo the-end >&2; exit 9").await;
    let text = failure.exception.unwrap();
    assert!(text.len() < 2_200 && text.ends_with("the-end"), "{} bytes", text.len());
}

#[tokio::test]
async fn too_much_output_ends_the_process() {
    let failure = failure_of("yes").await;
    assert_eq!(failure.class, Some(FailureClass::BadOutput));
    assert!(failure.exception.unwrap().contains(&format!("more than {MAX_BLOB_BYTES} bytes")));
}

#[tokio::test]
async fn a_handler_need_not_read_its_input() {
    let payload = format!("\"{}\"", "x".repeat(200_000));
    assert!(matches!(run_with("exit 0", &payload).await, Outcome::Done { result: None, .. }));
    assert!(matches!(run_with("exec 0<&-; exit 0", &payload).await, Outcome::Done { result: None, .. }));
    let Outcome::Done { result: Some(result), .. } = run_with("wc -c", &payload).await else {
        panic!("done")
    };
    assert!(result.get().parse::<usize>().unwrap() > 200_000);
}

#[tokio::test]
async fn a_time_out_ends_the_whole_group() {
    let command = "echo partial; (trap '' TERM; echo up; exec sleep 1000) > FIFO & wait";
    let Outcome::Retry { failure, .. } = stopped(command, CancelReason::Timeout).await else {
        panic!("a retry")
    };
    assert_eq!(failure.class, Some(FailureClass::Timeout));
    assert!(failure.exception.unwrap().contains("time-out of 9000 ms"));
}

#[tokio::test]
async fn a_process_that_ignores_sigterm_is_killed() {
    let command = "trap '' TERM; exec 9> FIFO; echo up >&9; sleep 1000; sleep 1000";
    assert!(matches!(stopped(command, CancelReason::Draining).await, Outcome::Release { .. }));
}

#[tokio::test]
async fn a_lost_lease_ends_it_without_grace() {
    let command =
        "trap 'echo not done; exit 0' TERM; exec 9> FIFO; echo up >&9; while :; do sleep 1000; done";
    assert!(matches!(stopped(command, CancelReason::LeaseLost).await, Outcome::Release { .. }));
}

#[tokio::test]
async fn an_exit_with_0_after_sigterm_is_no_result_unless_it_says_so() {
    let quiet = "trap 'exit 0' TERM; (echo up; exec sleep 1000) > FIFO & wait";
    assert!(matches!(stopped(quiet, CancelReason::Draining).await, Outcome::Release { .. }));
    let done = r#"trap 'echo "{\"result\": 5}"; exit 0' TERM; (echo up; exec sleep 1000) > FIFO & wait"#;
    assert!(matches!(stopped(done, CancelReason::Draining).await, Outcome::Done { result: Some(_), .. }));
}

#[tokio::test]
async fn nothing_that_it_left_behind_outlives_it() {
    let witness = Witness::new();
    // The pipe is open before the leader ends, in the leader and in what it leaves behind.
    let command = witness.command("exec 9> FIFO; echo up >&9; sleep 1000 & echo done");
    let handler = ProcessHandler::new(command);
    let (task, (ctx, _)) = (lease("1"), context());
    let (outcome, ()) = tokio::join!(handler.run(&task, &ctx), witness.watch(|| ()));
    let Outcome::Done { result: Some(result), .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(result.get(), "\"done\"");
}

#[tokio::test]
async fn dropping_the_run_ends_the_group() {
    let witness = Witness::new();
    let handler = ProcessHandler::new(witness.command("(echo up; exec sleep 1000) > FIFO & wait"));
    let running = tokio::spawn(async move { handler.run(&lease("1"), &context().0).await });
    witness.watch(|| running.abort()).await;
}

#[tokio::test]
async fn what_it_paid_counts_however_it_ends() {
    let costs = |outcome: &Outcome| outcome.cost().usd();
    for (code, said) in [(75, r#"{"cost_usd": 0.5}"#), (1, r#"{"result": 1, "cost_usd": 0.5}"#)] {
        for code in [code, 65, 77] {
            let ended = run(&format!("echo '{said}'; exit {code}")).await;
            assert_eq!(costs(&ended), 0.5, "{said} and exit code {code}: {ended:?}");
        }
    }
    let says = r#"trap 'echo "{\"cost_usd\": 0.5}"; exit 1' TERM; (echo up; exec sleep 1000) > FIFO & wait"#;
    for reason in [CancelReason::Draining, CancelReason::Timeout] {
        let ended = stopped(says, reason).await;
        assert_eq!(costs(&ended), 0.5, "{reason:?}: {ended:?}");
    }
}

#[test]
fn a_large_answer_is_read_beside_the_other_tasks() {
    let print = format!("head -c {HEAVY_BYTES} /dev/zero | tr '\\0' x");
    assert!(leaves_its_thread(async { result(&print).await }));
    assert!(!leaves_its_thread(async { result("echo 1").await }));
}
