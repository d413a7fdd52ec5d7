//! Tests through the public function. How often it is right on labelled samples is scored by `redrive classify --eval`.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{By, classify, explain};
use crate::failure::{FailureClass as C, FailureSignal};

/// 2026-01-02T03:04:05Z.
const NOW_MS: i64 = 1_767_323_045_000;

fn throttled(headers: &[(&str, &str)], body: &str) -> FailureSignal {
    FailureSignal {
        http_status: Some(429),
        headers: headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        body: Some(body.to_owned()),
        ..FailureSignal::default()
    }
}

fn hint(headers: &[(&str, &str)], body: &str) -> Option<u64> {
    classify(&throttled(headers, body), None, NOW_MS).retry_after_ms
}

#[test]
fn retry_after_headers_are_read_in_every_form() {
    for (name, value, want) in [
        ("Retry-After-MS", "1500", Some(1_500)),
        ("RETRY-AFTER", "20", Some(20_000)),
        ("retry-after", "1.5", Some(1_500)),
        ("retry-after", " 7 ", Some(7_000)),
        ("retry-after", "6m0s", Some(360_000)),
        ("retry-after", "Fri, 02 Jan 2026 03:05:05 GMT", Some(60_000)),
        ("retry-after", "Friday, 02-Jan-26 03:05:05 GMT", Some(60_000)),
        ("retry-after", "Fri Jan  2 03:05:05 2026", Some(60_000)),
        ("retry-after", "2026-01-02T03:05:05Z", Some(60_000)),
        ("retry-after", "1767323105", Some(60_000)),
        ("retry-after", "Fri, 02 Jan 2026 03:03:05 GMT", None),
        ("retry-after", "Fri, 02 Jan 100000 03:03:05 GMT", None),
        ("retry-after", "0", None),
        ("retry-after", "-5", None),
        ("retry-after", "nan", None),
        ("retry-after", "inf", None),
        ("retry-after", "1e9", None),
        ("retry-after", "soon", None),
        ("retry-after", "999999999", None),
        ("retry-after", "99999999999999999999999999", None),
    ] {
        assert_eq!(hint(&[(name, value)], ""), want, "{name}: {value}");
    }
}

#[test]
fn only_exhausted_buckets_give_their_reset() {
    let openai =
        |left| hint(&[("x-ratelimit-remaining-tokens", left), ("x-ratelimit-reset-tokens", "1h2m")], "");
    assert_eq!(openai("0"), Some(3_720_000));
    assert_eq!(openai("12"), None);
    let two = [
        ("anthropic-ratelimit-requests-remaining", "9"),
        ("anthropic-ratelimit-requests-reset", "2026-01-02T09:00:00Z"),
        ("anthropic-ratelimit-tokens-remaining", "0"),
        ("anthropic-ratelimit-tokens-reset", "2026-01-02T03:04:15Z"),
    ];
    assert_eq!(hint(&two, ""), Some(10_000));
    assert_eq!(
        hint(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1767323075")], ""),
        Some(30_000)
    );
    assert_eq!(
        hint(&[("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "12ms")], ""),
        Some(12)
    );
    assert_eq!(hint(&[("ratelimit", "limit=100, remaining=0, reset=50")], ""), Some(50_000));
}

#[test]
fn hints_in_bodies_and_prose_are_read() {
    for (body, want) in [
        (
            r#"{"error":{"details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"31s"}]}}"#,
            Some(31_000),
        ),
        (r#"{"retry_after": 0.529, "message": "slow down"}"#, Some(529)),
        ("Please try again in 20s.", Some(20_000)),
        ("Please try again in 6m0s.", Some(360_000)),
        ("please retry in 900.2ms", Some(900)),
        ("Resets in 6hr 29min.", Some(23_340_000)),
        ("Try again in 1 hour and 5 minutes", Some(3_900_000)),
        ("Too Many Requests: retry after 134", Some(134_000)),
        ("Quota will be replenished in 2.12:00:00.", Some(216_000_000)),
        ("Retrying in 17 seconds (read timeout=600)", None),
        ("The client will retry in 17 seconds", None),
        ("rate limited, backoff time: 12 seconds", Some(12_000)),
        ("please wait a few minutes", None),
        ("try again in 99999 days", None),
    ] {
        assert_eq!(hint(&[], body), want, "{body}");
    }
    assert_eq!(hint(&[("retry-after", "3")], "try again in 20s"), Some(3_000), "headers come first");
}

#[test]
fn the_caller_knows_best() {
    let mut signal = throttled(&[("retry-after", "3")], "rate limit");
    signal.class = Some(C::Overloaded);
    signal.retry_after_ms = Some(77);
    let got = classify(&signal, None, NOW_MS);
    assert_eq!((got.class, got.retryable, got.retry_after_ms), (C::Overloaded, true, Some(77)));
    signal.class = Some(C::Auth);
    let got = classify(&signal, None, NOW_MS);
    // Kept: a policy that retries all the same must not undercut it.
    assert_eq!((got.class, got.retryable, got.retry_after_ms), (C::Auth, false, Some(77)));
}

#[test]
fn a_server_may_forbid_or_ask_for_a_retry_where_only_the_status_speaks() {
    let with = |status, value: &str| FailureSignal {
        http_status: Some(status),
        headers: [("X-Should-Retry".to_owned(), value.to_owned())].into(),
        ..FailureSignal::default()
    };
    assert!(!classify(&with(503, "false"), None, 0).retryable);
    assert!(classify(&with(400, "true"), None, 0).retryable);
    assert!(classify(&with(503, "maybe"), None, 0).retryable);
}

#[test]
fn a_killed_process_is_a_lost_worker_and_a_bare_failure_is_unknown() {
    let of = |exit_code| FailureSignal { exit_code: Some(exit_code), ..FailureSignal::default() };
    assert_eq!(classify(&of(137), None, 0).class, C::WorkerLost);
    assert_eq!(classify(&of(-9), None, 0).class, C::WorkerLost);
    assert_eq!(classify(&of(124), None, 0).class, C::Timeout);
    assert_eq!(classify(&of(1), None, 0).class, C::Unknown);
}

fn raised(text: &str) -> FailureSignal {
    FailureSignal { exception: Some(text.to_owned()), ..FailureSignal::default() }
}

#[test]
fn single_words_decide_where_the_rules_know_nothing_and_nowhere_else() {
    let by = |signal: &FailureSignal| explain(signal, None, 0).1.by;
    let unheard = raised("shard relocation under way, node is warming");
    assert_eq!(by(&unheard), By::Words, "{:?}", explain(&unheard, None, 0));
    // Words for auth and permission in plenty: what a code or a stop reason says stays.
    let words = "unauthorized forbidden credentials expired login denied signature token";
    let mut coded = raised(words);
    coded.body = Some(r#"{"error":{"code":"context_length_exceeded"}}"#.to_owned());
    assert_eq!(classify(&coded, None, 0).class, C::ContextOverflow);
    assert_eq!(by(&coded), By::Code);
    let proxy = FailureSignal { http_status: Some(407), ..raised("connection tunnel pool reset by peer") };
    assert_eq!(classify(&proxy, None, 0).class, C::Auth, "a definite status stays too");
}

#[test]
fn words_judge_whether_a_conflict_or_a_tool_error_lasts() {
    let retryable = |signal: &FailureSignal| classify(signal, None, 0).retryable;
    let conflict = |text| FailureSignal { http_status: Some(409), ..raised(text) };
    let refused =
        conflict("Invalid status transition: the value is not allowed and must be one of the listed");
    assert!(!retryable(&refused), "{:?}", explain(&refused, None, 0));
    assert!(retryable(&conflict("resource is being updated, try again")));
    assert!(!retryable(&raised("chromadb.errors.CollectionAlreadyExistsError")), "a name tells it, too");
    let mut told = refused;
    told.headers.insert("x-should-retry".to_owned(), "true".to_owned());
    assert_eq!(
        retryable(&told),
        explain(&told, None, 0).1.by == By::Status,
        "the server knows better than words"
    );
}

#[test]
fn words_that_every_failure_has_tell_no_class() {
    for text in ["Request failed", "run failed", "error creating resource"] {
        assert_eq!(classify(&raised(text), None, 0).class, C::Unknown, "{text}");
    }
}

#[test]
fn an_explanation_names_the_words_that_spoke_for_the_class() {
    let signal = raised("shard relocation under way, node is warming");
    let (found, because) = explain(&signal, None, 0);
    assert_eq!(found, classify(&signal, None, 0));
    assert!(because.words.iter().all(|(word, weight)| *weight > 0 && because.read.contains(word)));
    assert!(
        because.words.is_sorted_by(|one, next| one.1 >= next.1) && !because.words.is_empty(),
        "{because:?}"
    );
}

#[test]
fn what_is_wrapped_or_idiom_is_no_evidence() {
    for (text, want) in [
        (
            "litellm.APIConnectionError: BedrockException - The provided model identifier is invalid.",
            C::ModelUnavailable,
        ),
        ("rpc failed: context deadline exceeded", C::Timeout),
        ("java.sql.SQLException: memory limit (total) exceeded", C::Overloaded),
        ("Tunnel connection failed: 407 Proxy Authentication Required", C::Auth),
        ("450 4.2.0 <a@b.c>: Recipient address rejected: busy mailbox", C::Overloaded),
        ("step exceeded 60 minutes", C::Timeout),
        ("you have requested more than your current limit of 0 allows", C::QuotaExhausted),
    ] {
        assert_eq!(classify(&raised(text), None, 0).class, want, "{text}");
    }
}

#[test]
fn codes_of_json_rpc_tell_requests_that_are_wrong() {
    for (code, want) in
        [(-32601, C::InvalidRequest), (-32602, C::InvalidRequest), (-32700, C::InvalidRequest)]
    {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"x"}}}}"#);
        let signal = FailureSignal { body: Some(body), ..FailureSignal::default() };
        assert_eq!(classify(&signal, None, 0).class, want, "{code}");
    }
}

#[test]
fn occurrences_of_one_outage_share_a_fingerprint() {
    let of = |id: &str, dependency| {
        let body = format!(
            r#"{{"error":{{"type":"api_error","message":"Failure in shard {id}"}},"request_id":"req_{id}"}}"#
        );
        let signal = FailureSignal { http_status: Some(500), body: Some(body), ..FailureSignal::default() };
        classify(&signal, dependency, 0).fingerprint
    };
    assert_eq!(of("a81f", Some("openai")), of("7", Some("openai")));
    assert_ne!(of("7", Some("openai")), of("7", Some("azure")));
}

#[test]
fn hostile_sizes_and_depths_are_survived() {
    let bodies = [
        "{\"a\":".repeat(50_000),
        "[".repeat(200_000),
        "'".repeat(200_000),
        "\\\"".repeat(100_000),
        "é".repeat(40_000),
        format!("retry after {}", "9".repeat(100_000)),
        format!("{{\"retryDelay\":\"{}s\"}}", "9".repeat(100)),
        "could not could not ".repeat(5_000),
        "429 ".repeat(30_000),
    ];
    for body in bodies {
        let got = classify(&throttled(&[("retry-after", &body)], &body), Some("x"), i64::MIN);
        assert_eq!(got.fingerprint.len(), 16);
    }
}

/// What wrappers, denials and shared words must not hide.
#[test]
fn what_happened_is_found_behind_what_is_wrapped_around_it() {
    for (status, text, class, retryable) in [
        // A client that gave up waiting, in the words of tools.
        (
            None,
            "MCP error -32603: Error calling tool x: MCP error -32001: Request timed out",
            C::Timeout,
            true,
        ),
        (None, "MCP request exceeded 20000 ms.", C::Timeout, true),
        (None, "timed out waiting for the maintenance lease core/global", C::LockTimeout, true),
        // A row that cannot be, behind the status of a server that did not foresee it.
        (Some(500), "Key (owner_id, name)=(3e6a, asdf) already exists.", C::InvalidRequest, false),
        (Some(500), "insert violates foreign key constraint \"fk_owner\"", C::InvalidRequest, false),
        // Periods in any number of days; a rate that is one.
        (Some(429), "Number of requests has exceeded your 7-day rate limit.", C::QuotaWindow, true),
        (Some(429), "Number of requests has exceeded your rate limit.", C::RateLimited, true),
        // Routers that sort callers by their keys.
        (Some(503), "令牌分组 b 下对于模型 m 均无可用渠道，请更换分组尝试", C::ModelUnavailable, false),
        // Words of two sentences, and what is denied.
        (
            Some(429),
            "Resource has been exhausted (e.g. check quota). Resource has been exhausted",
            C::RateLimited,
            true,
        ),
        (None, "temporarily limiting requests (not your usage limit): rate limited", C::RateLimited, true),
        // A stream that never began; a name that ends like a lock.
        (Some(400), "OpenAI API Streaming Error: Provider returned error", C::InvalidRequest, false),
        (None, "client.errors.RequestBlocked", C::Permission, false),
        // Clients that are too old, and values that are forbidden.
        (None, "Please update to the latest version to continue using the agent", C::InvalidRequest, false),
        (Some(400), "the names '--' and '..' are forbidden", C::InvalidRequest, false),
        (None, "slack: not_in_channel", C::Permission, false),
    ] {
        let exception = Some(text.to_owned());
        let signal = FailureSignal { http_status: status, exception, ..FailureSignal::default() };
        let got = classify(&signal, None, NOW_MS);
        assert_eq!((got.class, got.retryable), (class, retryable), "{text}");
    }
}

/// Single words have to lead by far where a code says what the status says.
#[test]
fn two_witnesses_are_hard_to_overrule() {
    let body = r#"{"error": {"message": "error in generating model output: value must be a string", "type": "invalid_request_error"}}"#;
    let signal =
        FailureSignal { http_status: Some(400), body: Some(body.to_owned()), ..FailureSignal::default() };
    assert_eq!(classify(&signal, None, NOW_MS).class, C::InvalidRequest);
}

fn fragment() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "{\"error\":",
        "\"message\":\"",
        "\\\"code\\\":",
        "b'",
        "'",
        "\"",
        "}",
        "]",
        "try again in ",
        "5",
        ".",
        "e9",
        "-",
        "s",
        "m",
        "é",
        "\u{0}",
        "\\u12",
        "\\",
        "data: {",
        "retry after ",
        "limit: 0",
        "Error code: 4",
        "reset at ",
        "2026-01-02T03:04:05Z",
        " ",
    ]);
    prop_oneof![known.prop_map(str::to_owned), any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_makes_it_panic_or_change_its_mind(
        parts in prop::collection::vec(fragment(), 0..40),
        value in prop_oneof![any::<String>(), "[0-9.:hms -]{0,40}"],
        status in prop::option::of(any::<u16>()),
        now_ms in any::<i64>(),
        exit_code in prop::option::of(any::<i32>()),
    ) {
        let names = ["Retry-After", "retry-after-ms", "x-ratelimit-reset", "x-ratelimit-remaining", "ratelimit", "x-codex-primary-reset-at"];
        let mut headers: BTreeMap<String, String> = names.iter().map(|name| ((*name).to_owned(), value.clone())).collect();
        headers.insert(value.clone(), value.clone());
        let signal = FailureSignal {
            http_status: status,
            headers,
            body: Some(parts.concat()),
            exception: Some(parts.iter().rev().map(String::as_str).collect()),
            exit_code,
            ..FailureSignal::default()
        };
        let got = classify(&signal, Some(&value), now_ms);
        prop_assert_eq!(&got, &classify(&signal, Some(&value), now_ms));
        prop_assert!(got.retry_after_ms.is_none_or(|hint| hint > 0 && hint <= 30 * 86_400_000));
        prop_assert!(got.retryable || got.retry_after_ms.is_none());
        prop_assert_eq!(got.fingerprint.len(), 16);
        prop_assert_eq!(&got, &explain(&signal, Some(&value), now_ms).0);
    }
}
