//! `redrive bench` on a real Redis.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::process::{redrive, terminate};
use crate::support::redis::{AppendFsync, RedisOptions, RedisServer};
use crate::support::wait::eventually;

/// Its sizes take some ten seconds; this is for a machine that is very busy.
const PATIENCE: Duration = Duration::from_secs(150);

/// Small sizes.
const SMALL: [&str; 10] =
    ["--tasks", "500", "--batch", "100", "--storm", "200", "--seconds", "1", "--memory", "1000"];

fn positive(report: &Value, path: &str) -> f64 {
    let value = report.pointer(path).and_then(Value::as_f64);
    let value = value.unwrap_or_else(|| panic!("no {path} in {report:#}"));
    assert!(value > 0.0, "{path} is {value}");
    value
}

#[tokio::test]
async fn the_benchmark_has_every_figure_of_redis_and_leaves_nothing_there() {
    let server = RedisServer::with(RedisOptions::default().append_only(AppendFsync::Everysec)).await;
    server.command(&["SET", "somebody:elses", "key"]).await;
    let mut bench = redrive();
    bench.args(["--json", "bench", "--store", &server.url(), "--coordinators", "2"]).args(SMALL);
    let output = tokio::time::timeout(PATIENCE, bench.output()).await.expect("bounded").unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for layer in ["ceiling", "store", "service"] {
        positive(&report, &format!("/layers/{layer}/per_s"));
        positive(&report, &format!("/layers/{layer}/redis_us"));
    }
    // The system counts processor time in hundredths of a second: so few tasks may need less.
    for figure in ["/layers/service/coordinator_us", "/layers/service/load_us", "/layers/store/load_us"] {
        assert!(report.pointer(figure).is_some_and(Value::is_number), "no {figure} in {report:#}");
    }
    let figures = ["/cycles_per_s", "/lateness_ms/p50", "/lateness_ms/p99", "/lateness_ms/max", "/storm_ms"];
    let ratios =
        ["/layers/store_to_ceiling", "/layers/service_to_ceiling", "/memory/ratio", "/memory/failed_ratio"];
    let memory = ["/memory/plain_bytes", "/memory/parked_bytes", "/memory/failed_bytes"];
    let claims =
        ["/claims/time_ratio", "/claims/redis_ratio", "/claims/sizes/1/claim_us", "/claims/sizes/1/redis_us"];
    for figure in figures.iter().chain(&ratios).chain(&memory).chain(&claims) {
        positive(&report, figure);
    }
    assert!(report["idle_cpu_percent"].is_number(), "{report:#}");
    for (place, coordinators) in [1, 3].into_iter().enumerate() {
        let spread = &report["spread"][place];
        assert_eq!(spread["coordinators"], coordinators);
        positive(spread, "/lateness_ms/max");
        positive(spread, "/storm_ms");
    }
    assert_eq!(report["layers"]["coordinators"], 2);
    assert_eq!(report["memory"]["tasks"], 1_000);
    assert_eq!(
        (&report["claims"]["sizes"][0]["parked"], &report["claims"]["sizes"][1]["parked"]),
        (&100.into(), &1_000.into())
    );
    assert!(report["memory"]["stored"].as_array().is_some_and(|parts| parts.len() >= 5), "{report:#}");
    let durability = report["settings"]["durability"].as_str().unwrap();
    assert!(durability.contains("appendonly yes, appendfsync everysec"), "{durability}");
    assert_eq!(server.command(&["KEYS", "*"]).await, "somebody:elses");
}

#[tokio::test]
async fn what_needs_redis_is_refused_without_one_and_a_run_cut_short_leaves_nothing() {
    let refused = redrive().args(["bench", "--only", "memory"]).output().await.unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--store URL or --redis"));

    let server = RedisServer::start().await;
    let mut bench = redrive();
    bench.args(["--json", "bench", "--store", &server.url(), "--only", "cycles", "--tasks", "1000000"]);
    let mut child = bench.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    eventually("the benchmark has written something", PATIENCE, async || {
        (server.command(&["DBSIZE"]).await.parse::<u64>().unwrap() > 2_000).then_some(())
    })
    .await;
    terminate(&child);
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.expect("bounded").unwrap();
    assert_eq!(status.code(), Some(1));
    assert_eq!(server.command(&["KEYS", "*"]).await, "");
}
