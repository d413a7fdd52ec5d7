//! `redrive bench` on a real Redis, and with a real RabbitMQ.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::process::{redrive, terminate};
use crate::support::rabbit::{SharedRabbit, shared};
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
    let memory =
        ["/memory/plain_bytes", "/memory/parked_bytes", "/memory/failed_bytes", "/memory/finished_bytes"];
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

#[tokio::test]
async fn push_has_every_figure_and_leaves_nothing_in_rabbitmq() {
    let (server, rabbit) = tokio::join!(RedisServer::start(), shared());
    let mut bench = redrive();
    bench.args(["--json", "bench", "--store", &server.url(), "--amqp", &rabbit.url(), "--only", "push"]);
    bench.args([
        "--tasks",
        "400",
        "--batch",
        "100",
        "--callers",
        "2",
        "--outstanding",
        "150",
        "--seconds",
        "1",
    ]);
    // Settings for other coordinators, which those under measurement must not hear of: this one would keep them from starting.
    bench.env("REDRIVE__COORDINATOR__AMQP__QUEUE_TYPE", "nonsense");
    let output = tokio::time::timeout(PATIENCE, bench.output()).await.expect("bounded").unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for figure in
        ["ceiling/per_s", "dispatch/per_s", "cycles/per_s", "dispatch_to_ceiling", "cycles_to_ceiling"]
    {
        positive(&report, &format!("/push/{figure}"));
    }
    for figure in ["latency_ms/p50", "latency_ms/p99", "latency_ms/max"] {
        positive(&report, &format!("/push/{figure}"));
    }
    // The system counts processor time in hundredths of a second: so few tasks may need less.
    for figure in ["ceiling/load_us", "dispatch/load_us", "dispatch/coordinator_us", "cycles/coordinator_us"]
    {
        let value = report.pointer(&format!("/push/{figure}"));
        assert!(value.is_some_and(Value::is_number), "no {figure} in {report:#}");
    }
    assert_eq!((&report["push"]["tasks"], &report["push"]["outstanding"]), (&400.into(), &150.into()));
    assert!(positive(&report, "/push/message_bytes") > 512.0, "a payload and what a lease says beside it");
    assert!(report["cycles_per_s"].is_null(), "{report:#}");
    assert_eq!(left(&rabbit).await, "");
    assert_eq!(server.command(&["KEYS", "*"]).await, "");
}

#[tokio::test]
async fn push_without_a_rabbitmq_is_refused_and_a_run_cut_short_leaves_nothing() {
    for (arguments, says, code) in [
        (["--only", "push"], "add --amqp URL", 2),
        (["--amqp", "127.0.0.1"], "begins with a scheme", 2),
        (["--amqp", "amqp://127.0.0.1:1"], "cannot connect to RabbitMQ at 127.0.0.1:1", 1),
    ] {
        let refused = redrive().arg("bench").args(arguments).output().await.unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(code), "{said}");
        assert!(said.contains(says), "{said}");
    }

    let rabbit = shared().await;
    let mut bench = redrive();
    bench.args(["--json", "bench", "--amqp", &rabbit.url(), "--only", "push", "--tasks", "90000"]);
    let mut child = bench.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    eventually("the benchmark consumes", PATIENCE, async || {
        left(&rabbit).await.contains(".q.bench-dispatch-0\t1").then_some(())
    })
    .await;
    terminate(&child);
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.expect("bounded").unwrap();
    assert_eq!(status.code(), Some(1));
    assert_eq!(left(&rabbit).await, "");
}

/// The benchmark's queues, each with its consumers, and its exchanges.
async fn left(rabbit: &SharedRabbit) -> String {
    let list = async |what, columns: [&'static str; 2]| {
        rabbit.ctl(&["--silent", what, "--vhost", rabbit.vhost(), columns[0], columns[1]]).await
    };
    let listed =
        [list("list_queues", ["name", "consumers"]).await, list("list_exchanges", ["name", "type"]).await];
    listed.concat().lines().filter(|line| line.contains("bench-")).collect::<Vec<_>>().join("\n")
}
