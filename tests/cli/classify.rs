//! `redrive classify` on labelled samples, and the score that it gives itself.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::support::process::redrive;

const SAMPLES: &str = include_str!("../vectors/failures.jsonl");
const OWN_SAMPLES: &str = include_str!("../vectors/failures_own.jsonl");

/// What came out on stdout and stderr, and the exit code.
async fn run(arguments: &[&str], input: &str) -> (String, i32, String) {
    let mut child = redrive()
        .arg("classify")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let text = input.to_owned();
    let write = tokio::spawn(async move { stdin.write_all(text.as_bytes()).await });
    let output = child.wait_with_output().await.unwrap();
    // It may stop reading early only by failing, which the exit code tells.
    let _ = write.await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap(), said)
}

async fn classify(input: &str) -> (Vec<Value>, i32, String) {
    let (lines, code, said) = run(&[], input).await;
    (lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), code, said)
}

#[tokio::test]
async fn every_sample_gets_an_answer_with_its_id_and_a_fingerprint() {
    let (answers, code, said) = classify(SAMPLES).await;
    assert_eq!(code, 0, "{said}");
    let samples: Vec<Value> = SAMPLES.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), samples.len());
    for (sample, answer) in samples.iter().zip(&answers) {
        assert_eq!(sample["id"], answer["id"]);
        assert_eq!(answer["fingerprint"].as_str().unwrap().len(), 16);
    }
}

#[tokio::test]
async fn an_answer_says_what_it_rests_on_where_that_is_asked_for() {
    let line = r#"{"id": 1, "exception": "shard relocation under way, node is warming"}"#;
    let (lines, code, said) = run(&["--explain"], line).await;
    assert_eq!(code, 0, "{said}");
    let answer: Value = serde_json::from_str(&lines).unwrap();
    assert_eq!(answer["because"]["by"], "words", "{answer}");
    assert!(answer["because"]["words"][0][1].as_i64().unwrap() > 0, "{answer}");
    let (plain, ..) = classify(line).await;
    assert_eq!(plain[0].get("because"), None);
    assert_eq!(plain[0]["class"], answer["class"]);
}

/// The floors stand a little under what was reached when they were set: they catch a change that costs more than it brings.
#[tokio::test]
async fn both_sets_of_samples_score_above_their_floors() {
    for (name, samples, floors) in [
        ("given", SAMPLES, "standard=0.99,hard=0.99,retryable=0.99,hint=0.99,macro_f1=0.99"),
        ("own", OWN_SAMPLES, "standard=0.99,hard=0.98,retryable=0.99,hint=0.99,macro_f1=0.98"),
    ] {
        let (table, code, said) = run(&["--eval", "-", "--misses", "30", "--min", floors], samples).await;
        assert_eq!(code, 0, "{name}: {said}\n{table}");
    }
}

#[tokio::test]
async fn a_floor_that_is_missed_and_a_bad_line_fail_the_evaluation() {
    let right = r#"{"id": "a", "http_status": 401, "label": "auth", "retryable": false}"#;
    let wrong = r#"{"id": "b", "http_status": 401, "label": "network", "retryable": true, "hard": true}"#;
    let both = format!("{right}\n{wrong}\n");
    let (table, code, said) = run(&["--eval", "-"], &both).await;
    assert_eq!(code, 0, "{said}");
    assert!(
        table.contains("CLASS") && table.contains("WANTED") && !table.contains("MEASURE   ID"),
        "{table}"
    );
    let (_, code, said) = run(&["--eval", "-", "--min", "standard=1,hard=0.5"], &both).await;
    assert_eq!(code, 1);
    assert!(said.contains("hard") && said.contains("at least 0.5") && !said.contains("standard:"), "{said}");
    let (_, code, said) = run(&["--eval", "-"], &format!("{right}\n{{\"id\": 1}}\n")).await;
    assert_eq!(code, 1);
    assert!(said.contains("line 2") && said.contains("missing field `label`"), "{said}");
    let (_, code, said) = run(&["--eval", "-", "--min", "soft=1"], &both).await;
    assert_eq!(code, 2, "{said}");
}

#[tokio::test]
async fn machines_read_the_score_as_one_object() {
    let sample = r#"{"id": "a", "http_status": 429, "headers": {"retry-after": "7"}, "label": "rate_limited", "retryable": true, "retry_after_ms": 9000}"#;
    let (text, code, said) = run(&["--eval", "-", "--misses", "1", "--json"], sample).await;
    assert_eq!(code, 0, "{said}");
    let score: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(score["measures"]["standard"]["share"], 1.0);
    assert_eq!(score["measures"]["hint"]["right"], 0);
    assert_eq!(score["misses"][0]["got"]["retry_after_ms"], 7_000.0);
}

#[tokio::test]
async fn a_bad_line_is_named_and_the_others_are_answered() {
    let good = r#"{"id": "a", "http_status": 429, "headers": {"retry-after": "7"}}"#;
    let (answers, code, said) = classify(&format!("{good}\nnonsense\n{good}\n")).await;
    assert_eq!((answers.len(), code), (2, 1));
    assert!(said.contains('2'), "{said}");
    assert_eq!(
        (&answers[0]["class"], &answers[0]["retry_after_ms"]),
        (&"rate_limited".into(), &7_000.into())
    );
}
