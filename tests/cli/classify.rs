//! `redrive classify` on the labelled samples, scored as their README says.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::support::process::redrive;

const SAMPLES: &str = include_str!("../vectors/failures.jsonl");

async fn classify(input: &str) -> (Vec<Value>, i32, String) {
    let mut child = redrive()
        .arg("classify")
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
    let lines = String::from_utf8(output.stdout).unwrap();
    let objects = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (objects, output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn every_sample_gets_an_answer_and_nearly_all_the_right_one() {
    let (answers, code, said) = classify(SAMPLES).await;
    assert_eq!(code, 0, "{said}");
    let samples: Vec<Value> = SAMPLES.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), samples.len());
    let (mut right, mut judged) = (0, 0);
    for (sample, answer) in samples.iter().zip(&answers) {
        assert_eq!(sample["id"], answer["id"]);
        assert_eq!(answer["fingerprint"].as_str().unwrap().len(), 16);
        if sample["ambiguous"] == true {
            continue;
        }
        let also = sample["alt_labels"].as_array().is_some_and(|labels| labels.contains(&answer["class"]));
        judged += 1;
        right += u32::from(sample["label"] == answer["class"] || also);
    }
    assert!(f64::from(right) >= 0.97 * f64::from(judged), "{right} of {judged}");
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
