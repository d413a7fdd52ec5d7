//! `redrive simulate`: good scenarios give tables, JSON and pictures; bad ones are told what is wrong, and on which line.

use std::path::Path;

use serde_json::Value;

use crate::support::process::redrive;

const SCENARIO: &str = "\
title = \"A short outage\"
[clients]
count = 200
arrival = \"poisson\"
per_s = 20
[dependency]
service_ms = { mean = 100, sd = 20 }
[[dependency.outages]]
from_ms = 2000
to_ms = 5000
[cost]
per_call_usd = 0.01
[retry]
strategy = \"full_jitter\"
";

/// Exit code, stdout and stderr.
async fn simulate(arguments: &[&str], directory: &Path) -> (i32, String, String) {
    let output =
        redrive().arg("simulate").args(arguments).current_dir(directory).output().await.expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn a_scenario_gives_a_table_an_object_and_a_picture_and_the_same_each_time() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("outage.toml"), SCENARIO).unwrap();
    let (code, table, said) = simulate(&["outage.toml", "--svg", "outage.svg"], directory.path()).await;
    assert_eq!((code, said.as_str()), (0, ""));
    assert!(table.starts_with("A short outage (seed 1)\nVARIANT"), "{table}");
    assert!(table.contains("full_jitter") && table.contains("RECOVERED") && table.contains('$'), "{table}");
    assert!(
        !table.contains("SHUT") && !table.contains("REPEATED"),
        "what is zero everywhere is left out: {table}"
    );
    let svg = std::fs::read_to_string(directory.path().join("outage.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains("retries a second"), "{svg}");

    let (code, first, _) = simulate(&["outage.toml", "--json"], directory.path()).await;
    let (_, again, _) = simulate(&["outage.toml", "--json"], directory.path()).await;
    let (_, other, _) = simulate(&["outage.toml", "--json", "--seed", "2"], directory.path()).await;
    assert_eq!((code, &first), (0, &again));
    assert_ne!(first, other);
    let report: Value = serde_json::from_str(&first).unwrap();
    let figures = &report["variants"][0]["figures"];
    assert_eq!(figures["succeeded"].as_f64().unwrap() + figures["dead"].as_f64().unwrap(), 200.0);
    assert!(figures["recovered"].as_f64().unwrap() > 30.0, "{figures}");
    assert!(!report["variants"][0]["curve"]["points"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn gates_and_workflows_are_shown_and_their_mistakes_told_with_their_line() {
    let directory = tempfile::tempdir().unwrap();
    let more =
        "[workflow]\nsteps = 3\ncalls_at = 2\nresume = false\n[gate]\nrequests_per_minute = 900\n[retry]";
    let text = SCENARIO.replace("[retry]", more);
    std::fs::write(directory.path().join("gate.toml"), &text).unwrap();
    let (code, table, said) = simulate(&["gate.toml"], directory.path()).await;
    assert_eq!((code, said.as_str()), (0, ""));
    assert!(table.contains("SHUT") && table.contains("REPEATED"), "{table}");
    let (_, object, _) = simulate(&["gate.toml", "--json"], directory.path()).await;
    let object: Value = serde_json::from_str(&object).unwrap();
    let figures = &object["variants"][0]["figures"];
    assert_eq!(figures["succeeded"], 200.0, "who waits behind a gate loses no attempt: {figures}");
    assert!(figures["gate_shuts"].as_f64().unwrap() >= 1.0, "{figures}");

    std::fs::write(directory.path().join("gate.toml"), text.replace("= 900", "= 0")).unwrap();
    let (code, _, said) = simulate(&["gate.toml"], directory.path()).await;
    assert_eq!(code, 2);
    assert!(said.contains("gate.toml:18: `gate.requests_per_minute` is 0, but must be 1 to"), "{said}");
}

#[tokio::test]
async fn two_scenarios_are_compared_side_by_side() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.toml"), SCENARIO).unwrap();
    std::fs::write(directory.path().join("b.toml"), SCENARIO.replace("full_jitter", "exponential")).unwrap();
    let (code, table, _) = simulate(&["--compare", "a.toml", "b.toml"], directory.path()).await;
    assert_eq!(code, 0);
    assert!(table.contains("a: full_jitter") && table.contains("b: exponential"), "{table}");
    let (_, object, _) = simulate(&["--json", "--compare", "a.toml", "b.toml"], directory.path()).await;
    let object: Value = serde_json::from_str(&object).unwrap();
    assert_eq!(object["reports"][1]["file"], "b.toml");
    assert_eq!(object["reports"][1]["report"]["variants"][0]["strategy"], "exponential");
}

#[tokio::test]
async fn a_bad_scenario_is_told_what_is_wrong_on_which_line_and_what_to_write() {
    let directory = tempfile::tempdir().unwrap();
    let more = "[[dependency.outages]]\nfrom_ms = 4000\nto_ms = 9000\n[cost]";
    let cases = [
        ("full_jitter", "ful_jitter", "bad.toml:14: `retry.strategy` is \"ful_jitter\"", "\"full_jitter\"?"),
        ("count = 200", "count = -200", "bad.toml:3: `clients.count` is -200;", "from 1 to 100000"),
        ("count = 200", "count = 1e5", "bad.toml:3: `clients.count` is 100000.0;", "a whole number"),
        ("per_s = 20", "per_s = \"fast\"", "bad.toml:5: `clients.per_s` is \"fast\";", "a number"),
        ("service_ms", "servise_ms", "bad.toml:7: `dependency.servise_ms` is unknown;", "`service_ms`?"),
        ("[cost]", more, "bad.toml:12: `dependency.outages[1].from_ms` overlaps", "line 8"),
        ("to_ms = 5000", "to_ms = 1000", "bad.toml:10: `dependency.outages[0].to_ms` is 1000;", "2000"),
        ("title = ", "title = = ", "bad.toml:1: not valid TOML", ""),
    ];
    for (good, bad, place, advice) in cases {
        std::fs::write(directory.path().join("bad.toml"), SCENARIO.replace(good, bad)).unwrap();
        let (code, shown, said) = simulate(&["bad.toml"], directory.path()).await;
        assert_eq!((code, shown.as_str()), (2, ""), "{said}");
        assert!(said.contains(place) && said.contains(advice), "{bad}: {said}");
    }
    let (code, _, said) = simulate(&["nowhere.toml"], directory.path()).await;
    assert_eq!(code, 2);
    assert!(said.contains("cannot read the scenario nowhere.toml"), "{said}");
    let (code, _, said) = simulate(&["--json", "bad.toml"], directory.path()).await;
    let object: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &object["code"]), (2, &"usage".into()));
}
