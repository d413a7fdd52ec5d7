//! `redrive commit-file`, and writers that come too late.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::process::redrive;
use crate::support::signal;
use crate::support::wait::eventually;

fn command(path: &Path, arguments: &[&str]) -> tokio::process::Command {
    let mut command = redrive();
    command.args(["--json", "commit-file", "--path"]).arg(path).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("FENCE_TOKEN");
    command
}

async fn commit(path: &Path, arguments: &[&str], contents: &str) -> Output {
    let mut child = command(path, arguments).spawn().unwrap();
    // One that is refused may not read it.
    let _ = child.stdin.take().unwrap().write_all(contents.as_bytes()).await;
    child.wait_with_output().await.unwrap()
}

fn error(output: &Output) -> Value {
    serde_json::from_slice(&output.stderr).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[tokio::test]
async fn it_says_what_it_committed_and_what_it_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("report.md");
    let made = commit(&path, &["--token", "5", "--expected-sha256", "absent"], "one").await;
    assert_eq!(made.status.code(), Some(0));
    let value: Value = serde_json::from_slice(&made.stdout).unwrap();
    let sha256 = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
    assert_eq!((&value["bytes"], &value["sha256"], &value["token"]), (&json!(3), &json!(sha256), &json!(5)));

    let stale = commit(&path, &["--token", "4"], "late").await;
    let told = error(&stale);
    assert_eq!((stale.status.code(), &told["code"]), (Some(3), &json!("stale_token")));
    assert!(
        told["detail"].as_str().unwrap().contains("committed under the token 5, and 4 is older"),
        "{told}"
    );

    let changed = commit(&path, &["--token", "6", "--expected-sha256", "absent"], "x").await;
    assert_eq!((changed.status.code(), &error(&changed)["code"]), (Some(3), &json!("file_changed")));
    let large = commit(&path, &["--token", "6", "--max-bytes", "2"], "123").await;
    assert_eq!((large.status.code(), &error(&large)["code"]), (Some(1), &json!("file_too_large")));
    for arguments in
        [&["--token", "0"][..], &["--token", "x"], &[], &["--token", "6", "--expected-sha256", "ab"]]
    {
        assert_eq!(commit(&path, arguments, "").await.status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(commit(scratch.path(), &["--token", "6"], "").await.status.code(), Some(2), "a directory");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
    let next = commit(&path, &["--token", "6", "--expected-sha256", sha256], "two").await;
    assert_eq!(next.status.code(), Some(0));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
}

#[tokio::test]
async fn the_token_may_come_from_the_environment() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("f");
    let mut child = command(&path, &[]).env("FENCE_TOKEN", "9").spawn().unwrap();
    drop(child.stdin.take());
    assert!(child.wait().await.unwrap().success());
    assert_eq!(commit(&path, &["--token", "8"], "").await.status.code(), Some(3));
}

#[tokio::test]
async fn a_writer_that_sleeps_past_its_lock_and_wakes_up_writing_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("report.md");
    assert!(commit(&path, &["--token", "1"], "begun").await.status.success());
    // It has looked at the fence and written half of what it is to write, and then it is stopped.
    let mut late = command(&path, &["--token", "2"]).spawn().unwrap();
    let mut input = late.stdin.take().unwrap();
    let stage = scratch.path().join(".report.md.fence.0.new");
    input.write_all(b"late, ").await.unwrap();
    eventually("it writes", Duration::from_secs(30), async || {
        std::fs::metadata(&stage).ok().filter(|found| found.len() > 0)
    })
    .await;
    signal::suspend(late.id().unwrap());
    // Its lock expires; the next holder commits.
    assert!(commit(&path, &["--token", "3"], "the next one's").await.status.success());
    signal::resume(late.id().unwrap());
    input.write_all(b"and wrong").await.unwrap();
    drop(input);
    let output = late.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), &error(&output)["code"]), (Some(3), &json!("stale_token")));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "the next one's");
}
