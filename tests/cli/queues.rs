//! Policies by file: what is shown before it is applied, who is told of a conflict, and the way back into a file.

use std::net::SocketAddr;
use std::path::Path;

use redrive_worker::client::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::name;
use crate::support::process::{Coordinator, redrive};

const FILE: &str = "\
[queues.payments]
risk = \"high\"
deadline = \"2h\"

[queues.payments.classes.timeout]
max_attempts = 1
when_exhausted = \"escalate\"
";

/// Exit code, stdout and stderr of `redrive queues …`.
async fn queues(url: &str, directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = redrive()
        .args(["--url", url, "queues"])
        .args(arguments)
        .env("REDRIVE_ACTOR", "ada@laptop")
        .current_dir(directory)
        .output()
        .await
        .expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn a_file_is_shown_then_applied_and_then_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&directory.path().join("data")).await;
    let queues = async |arguments: &[&str]| queues(&coordinator.url(), directory.path(), arguments).await;
    std::fs::write(directory.path().join("q.toml"), FILE).unwrap();

    let (code, shown, said) = queues(&["apply", "q.toml", "--dry-run"]).await;
    assert_eq!((code, said.as_str()), (0, "nothing was changed: this was a dry run\n"));
    let expected = "\
payments  new; what is not shown has its default
  risk                            not stated -> high
  max_attempts                    5 -> 3
  deadline                        1d -> 2h
  retention                       2d -> 1d
  classes.timeout.max_attempts    3 (default) -> 1
  classes.timeout.when_exhausted  dead (default) -> escalate
not in the file, left as they are: default
";
    assert_eq!(shown, expected);
    // Nobody is there to ask.
    let (code, _, said) = queues(&["apply", "q.toml"]).await;
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("pass --yes"), "{said}");
    assert!(coordinator.client().queue(&name("payments")).await.is_err(), "it was not made");

    let (code, _, said) = queues(&["apply", "q.toml", "--yes", "--reason", "double charges"]).await;
    assert_eq!((code, said.as_str()), (0, "applied: payments is at version 1\n"));
    let (code, shown, said) = queues(&["apply", "q.toml"]).await;
    assert_eq!((code, said.as_str()), (0, "nothing to change\n"));
    assert!(shown.starts_with("payments  unchanged, version 1\n"), "{shown}");

    std::fs::write(directory.path().join("q.toml"), FILE.replace("2h", "3h")).unwrap();
    let (code, shown, said) = queues(&["--json", "apply", "q.toml", "--yes"]).await;
    assert_eq!(code, 0, "{said}");
    let change = json!({"setting": "deadline", "old": "2h", "new": "3h"});
    let queue = json!({"name": "payments", "status": "changed", "version": 2, "changes": [change]});
    assert_eq!(json_of(&shown), json!({"queues": [queue], "untouched": ["default"], "applied": true}));

    let (code, shown, said) = queues(&["--json", "history", "payments"]).await;
    assert_eq!(code, 0, "{said}");
    let history = json_of(&shown);
    let [second, first] = &history["versions"].as_array().unwrap()[..] else { panic!("{history:#}") };
    assert_eq!((&second["version"], &second["actor"]), (&json!(2), &json!("ada@laptop")));
    assert_eq!((&second["changes"], second.get("reason")), (&json!([change]), None));
    assert_eq!((&first["version"], &first["reason"]), (&json!(1), &json!("double charges")));
    assert_eq!(first["changes"].as_array().unwrap().len(), 6, "of the defaults");
    let (_, shown, _) = queues(&["history", "payments"]).await;
    assert!(
        shown.contains("ada@laptop  double charges\n") && shown.contains("  deadline  2h -> 3h\n"),
        "{shown}"
    );
    let (code, shown, said) = queues(&["history", "default"]).await;
    assert_eq!((code, shown.as_str()), (0, ""));
    assert_eq!(said, "the policy of queue default was never changed\n");
}

#[tokio::test]
async fn what_is_exported_is_what_is_in_force() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&directory.path().join("data")).await;
    let queues = async |arguments: &[&str]| queues(&coordinator.url(), directory.path(), arguments).await;
    // Also what a file may not say by itself: a lease that outlives the attempt.
    let policy = r#"{"strategy": {"strategy": "schedule", "delays_ms": [0, 1500]}, "lease_ms": 3600000,
        "overrides": {"conflict": {"retryable": false, "strategy": {"strategy": "decorrelated"}}}}"#;
    assert_eq!(queues(&["create", "a/b", "--policy", policy]).await.0, 0);
    std::fs::write(directory.path().join("q.toml"), FILE).unwrap();
    assert_eq!(queues(&["apply", "q.toml", "--yes"]).await.0, 0);

    let (code, file, _) = queues(&["export"]).await;
    assert_eq!(code, 0);
    for part in [
        "[queues.\"a/b\"]  # version 1\n",
        "delays = [\"0s\", \"1s500ms\"]\n",
        "[queues.default]  # version 0\n",
    ] {
        assert!(file.contains(part), "{part}: {file}");
    }
    std::fs::write(directory.path().join("all.toml"), &file).unwrap();
    let (code, shown, said) = queues(&["apply", "all.toml"]).await;
    assert_eq!((code, said.as_str()), (0, "nothing to change\n"), "{shown}");
    assert!(!shown.contains("left as they are"), "{shown}");
    let (_, one, _) = queues(&["--json", "export", "payments"]).await;
    let one = json_of(&one)["file"].as_str().unwrap().to_owned();
    assert!(one.contains("[queues.payments.classes.timeout]\n") && !one.contains("default"), "{one}");

    // The contradiction is told where it is to come into force.
    std::fs::write(directory.path().join("all.toml"), file.replace("1s500ms", "2s")).unwrap();
    let (code, _, said) = queues(&["apply", "all.toml", "--yes"]).await;
    let line = file.lines().position(|line| line == "lease = \"1h\"").unwrap() + 1;
    assert_eq!(code, 2, "{said}");
    assert!(said.contains(&format!("all.toml:{line}: `queues.a/b.lease` is 3600000 ms")), "{said}");
    assert!(said.ends_with("all.toml has 1 mistake; nothing was applied\n"), "{said}");
}

#[tokio::test]
async fn a_bad_file_is_told_all_its_mistakes_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&directory.path().join("data")).await;
    let queues = async |arguments: &[&str]| queues(&coordinator.url(), directory.path(), arguments).await;
    let before = serde_json::to_string(&coordinator.client().queues().await.unwrap()).unwrap();
    let bad = "[queues.good]\nmax_attempts = 3\n[queues.bad]\nrisk = \"high\"\nmax_attempts = 5\nlease_ms = 1000\n\
               deadline = -1\n[queues.bad.classes.timeuot]\n";
    std::fs::write(directory.path().join("bad.toml"), bad).unwrap();
    let (code, shown, said) = queues(&["apply", "bad.toml", "--yes"]).await;
    assert_eq!((code, shown.as_str()), (2, ""));
    let expected = [
        "error: bad.toml:5: `queues.bad.max_attempts` is 5, with risk = \"high\" 1 to 3 are allowed",
        "error: bad.toml:6: `queues.bad.lease_ms` is unknown; durations have units here: write `lease = \"1s\"`",
        "error: bad.toml:7: `queues.bad.deadline` is -1: `-1` is negative",
        "error: bad.toml:8: `queues.bad.classes.timeuot` is no failure class; did you mean `timeout`?",
        "error: bad.toml has 4 mistakes; nothing was applied",
    ];
    assert_eq!(said.lines().count(), expected.len(), "{said}");
    for (line, expected) in said.lines().zip(expected) {
        assert!(line.starts_with(expected), "{line}");
    }
    let (code, _, said) = queues(&["--json", "apply", "bad.toml", "--yes"]).await;
    let told: Vec<Value> = said.lines().map(json_of).collect();
    assert_eq!((code, told.len()), (2, 5), "{said}");
    assert_eq!((&told[0]["at"], &told[4]["code"]), (&json!("bad.toml:5"), &json!("usage")));
    let (code, _, said) = queues(&["apply", "nowhere.toml"]).await;
    assert_eq!(code, 2);
    assert!(said.contains("cannot read the file nowhere.toml"), "{said}");
    assert_eq!(serde_json::to_string(&coordinator.client().queues().await.unwrap()).unwrap(), before);
}

/// A way to the coordinator on which somebody else is faster with a change: it is made when `PUT /v1/queues` comes by.
async fn overtaken(coordinator: &Coordinator) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let to: SocketAddr = coordinator.url().trim_start_matches("http://").parse().expect("an address");
    let other = coordinator.client();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(to).await.expect("the coordinator listens");
            tokio::spawn(pass(client, server, other.clone()));
        }
    });
    url
}

async fn pass(client: TcpStream, server: TcpStream, other: Client) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut bytes = [0; 65_536];
    while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
        if bytes.starts_with(b"PUT /v1/queues ") {
            let policy = serde_json::from_value(json!({"max_attempts": 9})).expect("a policy");
            let put = redrive_shared::wire::QueueCreate { policy, ..<_>::default() };
            other.put_queue(&name("payments"), &put).await.expect("faster");
        }
        if to_server.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn who_is_overtaken_is_told_and_nothing_is_applied() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&directory.path().join("data")).await;
    let more = format!("{FILE}\n[queues.another]\nrisk = \"low\"\n");
    std::fs::write(directory.path().join("q.toml"), more).unwrap();
    let way = overtaken(&coordinator).await;
    let (code, _, said) = queues(&way, directory.path(), &["apply", "q.toml", "--yes"]).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("version_conflict: `payments` is at version 1 by now"), "{said}");
    assert!(said.contains("docs/errors/version_conflict.md"), "{said}");
    let all = coordinator.client().queues().await.unwrap().queues;
    let known: Vec<(&str, u32)> =
        all.iter().map(|queue| (queue.name.as_str(), queue.policy.max_attempts)).collect();
    assert_eq!(known, [("default", 5), ("payments", 9)]);
    // What is in force is looked at anew.
    let (code, shown, said) =
        queues(&coordinator.url(), directory.path(), &["apply", "q.toml", "--yes"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(shown.contains("payments  changes from version 1\n") && shown.contains("9 -> 3\n"), "{shown}");
}

#[tokio::test]
async fn the_documented_file_can_be_applied() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&directory.path().join("data")).await;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/queues.toml");
    let (code, shown, said) = queues(&coordinator.url(), directory.path(), &["apply", file, "--yes"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(shown.contains("default  unchanged, version 0\n"), "it says the defaults: {shown}");
    assert!(said.contains("payments is at version 1, reports is at version 1"), "{said}");
}
