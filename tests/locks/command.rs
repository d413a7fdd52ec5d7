//! `redrive lock` and `redrive locks`.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use redrive_shared::lock::Token;
use redrive_shared::wire::LockBreak;
use serde_json::Value;

use super::{PATIENCE, take, wish};
use crate::support::process::{Coordinator, redrive};
use crate::support::signal;
use crate::support::wait::eventually;

struct Scene {
    coordinator: Coordinator,
    scratch: tempfile::TempDir,
}

impl Scene {
    async fn start() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let coordinator = Coordinator::start(&scratch.path().join("data")).await;
        Self { coordinator, scratch }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        std::fs::canonicalize(self.scratch.path()).unwrap().join(name)
    }

    fn command(&self, verb: &str, arguments: &[&str]) -> tokio::process::Command {
        let mut command = redrive();
        command.args(["--url", &self.coordinator.url(), verb]).args(arguments);
        command.current_dir(self.scratch.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    async fn run(&self, verb: &str, arguments: &[&str]) -> Output {
        self.command(verb, arguments).output().await.unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

async fn is_there(path: &Path) {
    eventually("it is there", PATIENCE, async || path.exists().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_runs_under_its_lock_and_knows_the_token() {
    let scene = Scene::start().await;
    let show = "printf '%s\\n' \"$FENCE_TOKEN\" \"$LOCK_RESOURCES\"; exit 7";
    let ran = scene.run("lock", &["--path", "report.md", "--name", "deploy", "--", "sh", "-c", show]).await;
    assert_eq!(ran.status.code(), Some(7), "{ran:?}");
    let said = text(&ran.stdout);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].parse::<i64>().unwrap() > 0, "{said}");
    let path = scene.path("report.md");
    assert_eq!(lines[1..], [path.to_str().unwrap(), "deploy"], "sorted");
    let listed = scene.run("locks", &["list"]).await;
    assert!(text(&listed.stderr).contains("nobody holds a lock"), "given back: {listed:?}");
    let missing = scene.run("lock", &["--name", "x", "--", "no-such-command"]).await;
    assert_eq!(missing.status.code(), Some(127));
    let killed = scene.run("lock", &["--name", "x", "--", "sh", "-c", "kill -9 $$"]).await;
    assert_eq!(killed.status.code(), Some(128 + 9));
    for bad in [
        &["--", "true"][..],
        &["--name", "../x", "--", "true"],
        &["--path", "no/such/f", "--", "true"],
        &["--name", "x"],
    ] {
        assert_eq!(scene.run("lock", bad).await.status.code(), Some(2), "{bad:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_waits_for_the_first_or_says_who_has_it() {
    let scene = Scene::start().await;
    let began = scene.path("began");
    let first = "touch began; while [ ! -e stop ]; do sleep 0.05; done; echo first >> log";
    let first = scene.command("lock", &["--path", "f", "--", "sh", "-c", first]).spawn().unwrap();
    is_there(&began).await;
    let busy = scene.run("lock", &["--path", "./f", "--", "true"]).await;
    assert_eq!(busy.status.code(), Some(75));
    assert!(text(&busy.stderr).contains("is held by"), "{busy:?}");
    let listed = scene.run("--json", &["locks", "list"]).await;
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed["locks"][0]["exclusive"][0], scene.path("f").to_str().unwrap());
    let shared = scene.run("lock", &["--path", "f", "--shared", "--wait", "50ms", "--", "true"]).await;
    assert_eq!(shared.status.code(), Some(75), "sharing is for those that share");
    let second = ["--path", "f", "--wait", "30s", "--", "sh", "-c", "echo second >> log"];
    let second = scene.command("lock", &second).spawn().unwrap();
    let client = scene.coordinator.client();
    let waits = async || (client.locks().await.unwrap().waiting.len() == 1).then_some(());
    eventually("the second waits", PATIENCE, waits).await;
    let shown = scene.run("locks", &["show", scene.path("f").to_str().unwrap()]).await;
    assert_eq!(text(&shown.stdout).lines().filter(|line| line.contains("/f")).count(), 2, "{shown:?}");
    std::fs::write(scene.path("stop"), "").unwrap();
    assert!(first.wait_with_output().await.unwrap().status.success());
    assert!(second.wait_with_output().await.unwrap().status.success());
    assert_eq!(std::fs::read_to_string(scene.path("log")).unwrap(), "first\nsecond\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_lock_is_lost_is_stopped_with_all_that_it_started() {
    let scene = Scene::start().await;
    let work = "(trap '' TERM; sleep 60) & echo $! > child; touch began; wait";
    let run = scene.command("lock", &["--name", "f", "--ttl", "1s", "--", "sh", "-c", work]).spawn().unwrap();
    is_there(&scene.path("began")).await;
    let client = scene.coordinator.client();
    let token = client.locks().await.unwrap().locks[0].token;
    let broken = scene.run("locks", &["break", &token.to_string(), "--reason", "a test"]).await;
    assert!(broken.status.success(), "{broken:?}");
    let ended = run.wait_with_output().await.unwrap();
    assert_eq!(ended.status.code(), Some(76), "{ended:?}");
    let pid = std::fs::read_to_string(scene.path("child")).unwrap();
    let gone = async || (!Path::new("/proc").join(pid.trim()).exists()).then_some(());
    eventually("what it started is gone, too", PATIENCE, gone).await;
}

/// Nobody is left to renew the lock, or to stop what it guards.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_killed_takes_its_command_along() {
    let scene = Scene::start().await;
    let work = "echo $$ > command; touch began; while :; do sleep 0.05; done";
    let mut run = scene.command("lock", &["--name", "f", "--", "sh", "-c", work]).spawn().unwrap();
    is_there(&scene.path("began")).await;
    run.start_kill().unwrap();
    run.wait().await.unwrap();
    let pid = std::fs::read_to_string(scene.path("command")).unwrap();
    let gone = async || (!Path::new("/proc").join(pid.trim()).exists()).then_some(());
    eventually("the command is gone", PATIENCE, gone).await;
    let busy = scene.run("lock", &["--name", "f", "--", "true"]).await;
    assert_eq!(busy.status.code(), Some(75), "its lock ends by itself: {busy:?}");
}

/// The whole way: a holder is stopped past the end of its lock, another takes the lock and writes, and the first wakes up writing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_sleeps_past_its_lock_and_wakes_up_writing_harms_nothing() {
    let scene = Scene::start().await;
    let file = scene.path("report.md");
    let write = |text: &str| {
        format!("echo {text} | {} commit-file --path report.md", crate::support::process::REDRIVE)
    };
    // It does not die of the signal that it gets once it wakes up: it is in the middle of writing.
    let late = format!(
        "trap '' TERM; touch began; while [ ! -e woken ]; do sleep 0.05; done; {}; echo $? > refused",
        write("late")
    );
    let late = ["--path", "report.md", "--ttl", "1s", "--", "sh", "-c", &late];
    let mut late = scene.command("lock", &late).spawn().unwrap();
    is_there(&scene.path("began")).await;
    let client = scene.coordinator.client();
    let old = client.locks().await.unwrap().locks[0].token;
    // The process that renews; its command goes on, as on a machine whose network is gone.
    signal::suspend(late.id().unwrap());
    let next = ["--path", "report.md", "--wait", "30s", "--", "sh", "-c", &write("next")];
    let next = scene.run("lock", &next).await;
    assert!(next.status.success(), "{next:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "next\n");
    std::fs::write(scene.path("woken"), "").unwrap();
    is_there(&scene.path("refused")).await;
    let refused =
        async || std::fs::read_to_string(scene.path("refused")).ok().filter(|code| !code.is_empty());
    let (refused, _) = eventually("it was refused", PATIENCE, refused).await;
    assert_eq!(refused.trim(), "3", "a stale token");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "next\n");
    signal::resume(late.id().unwrap());
    let code = tokio::time::timeout(PATIENCE, late.wait()).await.expect("it ends").unwrap().code();
    assert!(matches!(code, Some(76 | 0)), "{code:?}");
    let fence = redrive_worker::fenced_file::FencedFile::at(&file).unwrap().token().unwrap();
    assert!(fence > Some(old), "{fence:?} {old}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_elsewhere_can_be_seen_and_broken() {
    let scene = Scene::start().await;
    let client = scene.coordinator.client();
    let grant = take(&client, &wish("somebody", "db/customers", 0)).await;
    let listed = scene.run("locks", &["list"]).await;
    let table = text(&listed.stdout);
    assert!(table.contains("somebody") && table.contains("db/customers"), "{table}");
    let unknown = scene.run("locks", &["break", "7"]).await;
    assert!(text(&unknown.stderr).contains("unknown_lock"), "{unknown:?}");
    client.break_lock(&LockBreak { token: grant.token, reason: None }).await.unwrap();
    let rests = text(&scene.run("locks", &["list"]).await.stdout);
    assert!(rests.contains("rests"), "{rests}");
    assert!(Token(1) < grant.token);
    let waits = ["--name", "db/customers", "--wait", "20s", "--", "true"];
    let waited = tokio::time::timeout(Duration::from_secs(20), scene.run("lock", &waits)).await.unwrap();
    assert!(waited.status.success(), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_a_file_is_named_it_has_one_lock() {
    let scene = Scene::start().await;
    std::fs::create_dir(scene.path("real")).unwrap();
    std::os::unix::fs::symlink(scene.path("real"), scene.path("way")).unwrap();
    std::fs::write(scene.path("real/f"), "").unwrap();
    std::os::unix::fs::symlink(scene.path("real/f"), scene.path("link")).unwrap();
    let client = scene.coordinator.client();
    let path = scene.path("real/f").to_str().unwrap().to_owned();
    take(&client, &wish("somebody", &path, 0)).await;
    for name in ["real/f", "way/f", "link", "./real/../way/f", "real//f", &path] {
        let busy = scene.run("lock", &["--path", name, "--", "true"]).await;
        assert_eq!(busy.status.code(), Some(75), "{name}: {busy:?}");
    }
    // Not there yet, and another file where the disk tells letters apart.
    let other = scene.run("lock", &["--path", "way/F", "--", "sh", "-c", "echo $LOCK_RESOURCES"]).await;
    assert_eq!(text(&other.stdout), scene.path("real/F").to_str().unwrap(), "{other:?}");
    for bad in ["", "nowhere/f", "real/f/g", "/"] {
        let refused = scene.run("lock", &["--path", bad, "--", "true"]).await;
        assert_eq!(refused.status.code(), Some(2), "{bad:?}: {refused:?}");
    }
    let shown = scene.run("locks", &["show", &path]).await;
    assert!(text(&shown.stdout).contains("somebody"), "{shown:?}");
    for bad in ["", "real/../f", "a//b"] {
        assert_eq!(scene.run("locks", &["show", bad]).await.status.code(), Some(2), "{bad:?}");
    }
}
