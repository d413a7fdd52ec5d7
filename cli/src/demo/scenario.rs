//! The play as data: who acts, under which policies, what work there is, and what happens when.
//!
//! Everything is much faster than in earnest, so that a stranger sees an outage begin and end within seconds: delays of
//! milliseconds, a breaker that waits for a second. The rules are those of any other queue.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use redrive_shared::breaker::BreakerConfig;
use redrive_shared::failure::{FailureClass, FailureSignal};
use redrive_shared::id::{Name, TaskId};
use redrive_shared::retry::{ClassPolicy, RetryPolicy, Strategy};
use redrive_shared::wire::NewTask;

use crate::upstream::Reply;

/// The seed when nobody gives one: which task comes when.
pub const DEFAULT_SEED: u64 = 1;
/// The play stops here, finished or not.
pub const PLAY_MAX: Duration = Duration::from_secs(40);
/// Everything is over by then, whatever hangs.
pub const DEADLINE: Duration = Duration::from_secs(45);
/// A task that is due later than this is left waiting when the play ends.
pub const LEFT_WAITING_MS: i64 = 60_000;

/// What the upstream answers to everyone in the outage.
pub const OUTAGE_REPLY: Reply = Reply::Overloaded;

/// The worker that is killed. It is a process of its own; the others are not.
pub const CRASHY: &str = "crashy";
/// Tasks that it runs at once: fewer than there are reports, so that it is full when it is killed.
pub const CRASHY_CONCURRENCY: u32 = 6;
/// It is killed when it has held its tasks for this long; each takes [`REPORT`] to do.
pub const KILL_AFTER: Duration = Duration::from_millis(800);
/// The long tasks are enqueued then, or once it has shown up.
pub const REPORTS_AT: Duration = Duration::from_millis(2_300);
/// It must have shown up by then.
pub const CRASHY_UP_BY: Duration = Duration::from_secs(6);
const REPORT: &str = "ok@2500";

/// The queue of the long tasks, some of which lose their worker.
pub const REPORTS: &str = "reports";
const CHAT: &str = "chat";
const TOOLS: &str = "tools";

/// A worker of this process.
#[derive(Debug, Clone, Copy)]
pub struct Agent {
    /// Its name.
    pub name: &'static str,
    /// The queues that it serves.
    pub queues: &'static [&'static str],
    /// Tasks that it runs at once.
    pub concurrency: u32,
}

/// The workers of this process.
pub const AGENTS: [Agent; 4] = [
    Agent { name: "planner", queues: &[CHAT, TOOLS], concurrency: 8 },
    Agent { name: "researcher", queues: &[CHAT, TOOLS], concurrency: 8 },
    Agent { name: "critic", queues: &[CHAT, TOOLS], concurrency: 8 },
    // Shares its queue with the one that is killed, and leaves some of its tasks to that one.
    Agent { name: "writer", queues: &[REPORTS], concurrency: 6 },
];

/// Something that happens at its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The tasks of this wave are enqueued.
    Wave(usize),
    /// A task of the first wave is enqueued again, as it was.
    Duplicate,
    /// Its id is used for other work.
    ReuseId,
    /// A waiting task is called off.
    Cancel,
    /// From now on the upstream answers everyone with [`OUTAGE_REPLY`].
    OutageBegins,
    /// It works again.
    OutageEnds,
}

/// How many waves of all kinds of work there are in [`TIMELINE`]; one of calm weather comes after them.
const WAVES: usize = 10;

/// When what happens, in milliseconds from the start.
pub const TIMELINE: [(u64, Act); 16] = [
    (200, Act::Wave(0)),
    (1_100, Act::Wave(1)),
    (1_600, Act::Duplicate),
    (1_700, Act::ReuseId),
    (2_000, Act::Wave(2)),
    (2_900, Act::Wave(3)),
    (3_400, Act::Cancel),
    (3_800, Act::Wave(4)),
    (4_700, Act::Wave(5)),
    (5_600, Act::Wave(6)),
    (6_500, Act::Wave(7)),
    (6_800, Act::OutageBegins),
    (7_400, Act::Wave(8)),
    (8_300, Act::Wave(9)),
    (10_300, Act::OutageEnds),
    (13_000, Act::Wave(10)),
];

/// The breaker of each demo worker. It looks at one second instead of sixty, and waits about one instead of thirty.
pub fn breaker() -> BreakerConfig {
    BreakerConfig {
        window_ms: 1_000,
        buckets: 5,
        min_outcomes: 12,
        recent_outcomes: 12,
        // Every third attempt fails in the best of times here.
        failure_rate: 0.75,
        // Twelve outcomes at such a rate are sample enough.
        trip_margin: 0.0,
        open_ms: 800,
        open_max_ms: 1_500,
        // Longer than any attempt may take.
        probe_deadline_ms: 12_000,
        ..BreakerConfig::default()
    }
}

/// The queues and their policies: the usual rules with short delays. The tools' queue has a short time-out, for the calls
/// that hang.
pub fn queues() -> [(&'static str, RetryPolicy); 3] {
    let policy = |timeout_ms| {
        let quick = Strategy::FullJitter { base_ms: 200, min_ms: 50, max_ms: 2_000 };
        let own =
            |strategy: &Strategy| ClassPolicy { strategy: Some(strategy.clone()), ..ClassPolicy::default() };
        RetryPolicy {
            max_attempts: 7,
            timeout_ms,
            overrides: BTreeMap::from([
                (FailureClass::RateLimited, own(&quick)),
                (FailureClass::Overloaded, own(&quick)),
                (FailureClass::WorkerLost, own(&quick)),
            ]),
            strategy: quick,
            ..RetryPolicy::default()
        }
    };
    [(CHAT, policy(5_000)), (TOOLS, policy(800)), (REPORTS, policy(10_000))]
}

/// What the caller saw, before it handed the work over.
#[derive(Debug, Clone, Copy)]
struct Seen {
    status: Option<u16>,
    headers: &'static [(&'static str, &'static str)],
    body: Option<&'static str>,
    exception: Option<&'static str>,
}

impl Seen {
    const fn http(status: u16, headers: &'static [(&'static str, &'static str)], body: &'static str) -> Self {
        Self { status: Some(status), headers, body: Some(body), exception: None }
    }

    const fn exception(text: &'static str) -> Self {
        Self { status: None, headers: &[], body: None, exception: Some(text) }
    }

    fn signal(self) -> FailureSignal {
        let header = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        FailureSignal {
            http_status: self.status,
            headers: self.headers.iter().map(header).collect(),
            body: self.body.map(str::to_owned),
            exception: self.exception.map(str::to_owned),
            ..FailureSignal::default()
        }
    }
}

const RATE_LIMIT: Seen = Seen::http(
    429,
    &[("retry-after", "1")],
    r#"{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your rate limit"}}"#,
);
const RATE_LIMIT_RESET: Seen = Seen::http(
    429,
    &[
        ("x-ratelimit-limit-requests", "500"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "700ms"),
    ],
    r#"{"error":{"message":"Rate limit reached on requests per min (RPM)","code":"rate_limit_exceeded"}}"#,
);
const OVERLOADED: Seen =
    Seen::http(529, &[], r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#);
const SERVER_ERROR: Seen =
    Seen::http(500, &[], r#"{"error":{"message":"The server had an error","type":"server_error"}}"#);
const PROXY_PAGE: Seen = Seen::http(
    503,
    &[("content-type", "text/html")],
    "<html><head><title>503 Service Temporarily Unavailable</title></head></html>",
);
const TIMED_OUT: Seen = Seen::exception("httpx.ReadTimeout: The read operation timed out");
const RESET: Seen = Seen::exception("ConnectionResetError: [Errno 104] Connection reset by peer");
const CUT: Seen = Seen::exception(
    "httpx.RemoteProtocolError: peer closed connection without sending complete message body (incomplete chunked read)",
);
const BAD_KEY: Seen = Seen::http(
    401,
    &[],
    r#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}"#,
);
const TOO_LONG: Seen = Seen::http(
    400,
    &[],
    r#"{"error":{"message":"This model's maximum context length is 128000 tokens","code":"context_length_exceeded"}}"#,
);
const NO_MONEY: Seen = Seen::http(
    429,
    &[],
    r#"{"error":{"message":"You exceeded your current quota, please check your plan","code":"insufficient_quota"}}"#,
);
const WINDOW_USED_UP: Seen = Seen::http(
    429,
    &[("retry-after", "3600")],
    r#"{"type":"error","error":{"type":"rate_limit_error","message":"Your 5-hour usage limit is reached"}}"#,
);

/// Tasks that are alike.
#[derive(Debug, Clone, Copy)]
struct Kind {
    tasks: usize,
    queue: &'static str,
    dependency: &'static str,
    /// What failed before the task was enqueued. `None`: nobody has tried yet.
    before: Option<Seen>,
    /// What each later attempt meets; beyond its end, success.
    script: &'static [&'static str],
}

const LARGE: &str = "llm/prod/large";
const FAST: &str = "llm/prod/fast";
const PDF: &str = "tool/pdf";

const fn kind(
    tasks: usize,
    (queue, dependency): (&'static str, &'static str),
    before: Option<Seen>,
    script: &'static [&'static str],
) -> Kind {
    Kind { tasks, queue, dependency, before, script }
}

/// The work of the first waves, but for the task that is called off.
const KINDS: [Kind; 37] = [
    // Nobody has tried these yet.
    kind(60, (CHAT, FAST), None, &["ok@60"]),
    kind(24, (TOOLS, PDF), None, &["ok@120"]),
    kind(18, (CHAT, LARGE), None, &["500@30", "ok@60"]),
    kind(10, (CHAT, FAST), None, &["503", "ok@80"]),
    kind(10, (CHAT, LARGE), None, &["429_retry_after:1", "ok@60"]),
    kind(8, (CHAT, FAST), None, &["reset", "ok@60"]),
    kind(6, (CHAT, LARGE), None, &["cut", "ok@60"]),
    kind(8, (TOOLS, PDF), None, &["500@20", "ok@120"]),
    // These hang until the queue's time-out ends them; two of them every time.
    kind(6, (TOOLS, PDF), None, &["hang", "ok@60"]),
    kind(2, (TOOLS, PDF), None, &["hang", "hang", "hang"]),
    // Work that has failed once at its caller, and goes through now.
    kind(24, (CHAT, LARGE), Some(RATE_LIMIT), &["ok@60"]),
    kind(16, (CHAT, FAST), Some(RATE_LIMIT), &["ok@60"]),
    kind(30, (CHAT, FAST), Some(RATE_LIMIT_RESET), &["ok@60"]),
    kind(36, (CHAT, LARGE), Some(OVERLOADED), &["ok@60"]),
    kind(24, (CHAT, FAST), Some(SERVER_ERROR), &["ok@60"]),
    kind(16, (CHAT, FAST), Some(PROXY_PAGE), &["ok@60"]),
    kind(12, (CHAT, LARGE), Some(TIMED_OUT), &["ok@80"]),
    kind(14, (CHAT, FAST), Some(RESET), &["ok@60"]),
    kind(12, (CHAT, LARGE), Some(CUT), &["ok@90"]),
    // … and that fails some more.
    kind(8, (CHAT, FAST), Some(RATE_LIMIT_RESET), &["429_reset:600ms", "ok@60"]),
    kind(16, (CHAT, LARGE), Some(OVERLOADED), &["529", "ok@60"]),
    kind(5, (CHAT, LARGE), Some(OVERLOADED), &["529", "529", "529", "ok@60"]),
    kind(10, (CHAT, FAST), Some(SERVER_ERROR), &["500", "500", "ok@60"]),
    // This never works: its attempts are used up.
    kind(4, (CHAT, FAST), Some(SERVER_ERROR), &["500", "500", "500", "500", "500", "500", "500"]),
    // No retry mends these, known from the failure that they come with.
    kind(3, (CHAT, LARGE), Some(BAD_KEY), &[]),
    kind(3, (CHAT, LARGE), Some(NO_MONEY), &[]),
    kind(4, (CHAT, LARGE), Some(TOO_LONG), &[]),
    // … and found out by a worker.
    kind(2, (CHAT, LARGE), None, &["401"]),
    kind(2, (CHAT, LARGE), None, &["402"]),
    kind(1, (CHAT, FAST), None, &["429_quota"]),
    kind(2, (CHAT, FAST), None, &["400_context"]),
    kind(2, (CHAT, LARGE), None, &["404"]),
    kind(2, (CHAT, FAST), None, &["422"]),
    kind(2, (CHAT, FAST), None, &["length"]),
    // Their allowance comes back in an hour, and so will they: they are still waiting when the demo ends.
    kind(4, (CHAT, LARGE), Some(WINDOW_USED_UP), &["ok@60"]),
    kind(1, (CHAT, FAST), Some(WINDOW_USED_UP), &["ok@60"]),
    kind(2, (TOOLS, PDF), Some(TIMED_OUT), &["ok@100"]),
];

/// The last wave: nothing fails any more, and breakers that met a bad task as their probe close as well.
const CALM: Kind = kind(60, (CHAT, LARGE), None, &["ok@60"]);
const REPORT_KIND: Kind = kind(12, (REPORTS, "tool/report"), None, &[REPORT, "ok@200"]);
/// Waits long enough to be called off before its time.
const CALLED_OFF: Kind = kind(1, (CHAT, FAST), None, &["ok@60"]);
const CALLED_OFF_DELAY_MS: u64 = 600_000;

/// Every task of the play.
#[derive(Debug)]
pub struct Work {
    /// Wave by wave.
    pub waves: Vec<Vec<NewTask>>,
    /// The long ones, enqueued once the worker that is killed is there.
    pub reports: Vec<NewTask>,
    /// The one that is called off; it is in the first wave.
    pub called_off: TaskId,
}

/// Makes the tasks. `seed` decides which comes when; `prefix` comes before every id, for a store that has seen the demo
/// before.
pub fn work(seed: u64, prefix: &str) -> anyhow::Result<Work> {
    let mut kinds: Vec<&Kind> = KINDS.iter().flat_map(|kind| std::iter::repeat_n(kind, kind.tasks)).collect();
    kinds.shuffle(&mut StdRng::seed_from_u64(seed));
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut make = |kind: &Kind| {
        let number = numbers.entry(kind.queue).or_default();
        *number += 1;
        kind.task(&format!("{prefix}{}-{number:03}", kind.queue.trim_end_matches('s')))
    };
    let mut waves = Vec::with_capacity(WAVES);
    for wave in kinds.chunks(kinds.len().div_ceil(WAVES)) {
        waves.push(wave.iter().map(|kind| make(kind)).collect::<anyhow::Result<Vec<_>>>()?);
    }
    waves.push((0..CALM.tasks).map(|_| make(&CALM)).collect::<anyhow::Result<Vec<_>>>()?);
    let reports = (0..REPORT_KIND.tasks).map(|_| make(&REPORT_KIND)).collect::<anyhow::Result<Vec<_>>>()?;
    let called_off = make(&CALLED_OFF)?;
    let called_off_id = called_off.id.clone().unwrap_or_else(TaskId::generate);
    if let Some(first) = waves.first_mut() {
        first.push(NewTask { delay_ms: Some(CALLED_OFF_DELAY_MS), ..called_off });
    }
    Ok(Work { waves, reports, called_off: called_off_id })
}

impl Kind {
    fn task(&self, id: &str) -> anyhow::Result<NewTask> {
        let payload = serde_json::json!({ "script": self.script, "input": { "for": id } });
        Ok(NewTask {
            id: Some(TaskId::new(id)?),
            queue: Some(Name::new(self.queue)?),
            dependency: Some(Name::new(self.dependency)?),
            payload: Some(serde_json::value::to_raw_value(&payload)?),
            attempts_made: self.before.map(|_| 1),
            failure: self.before.map(Seen::signal),
            ..NewTask::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use redrive_shared::classify::classify;

    use super::*;
    use crate::upstream::Step;

    #[test]
    fn the_policies_and_the_breaker_are_valid() {
        for (name, policy) in queues() {
            policy.validate().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        breaker().validate().unwrap();
        assert!(queues().iter().all(|(_, policy)| policy.timeout_ms < breaker().probe_deadline_ms));
    }

    #[test]
    fn every_script_is_one_that_the_upstream_understands() {
        for kind in KINDS.iter().chain([&CALM, &REPORT_KIND, &CALLED_OFF]) {
            for step in kind.script {
                step.parse::<Step>().unwrap();
            }
        }
    }

    #[test]
    fn the_timeline_is_in_order_and_plays_every_wave() {
        assert!(TIMELINE.is_sorted_by_key(|(at_ms, _)| *at_ms));
        let waves = TIMELINE.iter().filter(|(_, act)| matches!(act, Act::Wave(_))).count();
        let work = work(7, "").unwrap();
        assert_eq!((waves, work.waves.len()), (WAVES + 1, WAVES + 1));
    }

    #[test]
    fn the_same_seed_gives_the_same_work_and_ids_are_unique() {
        let ids = |seed| {
            let work = work(seed, "x.").unwrap();
            let tasks = work.waves.into_iter().flatten().chain(work.reports);
            tasks
                .map(|task| (task.id.unwrap().to_string(), task.payload.unwrap().to_string()))
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(3), ids(3));
        assert_ne!(ids(3), ids(4));
        let unique: BTreeSet<_> = ids(3).into_iter().map(|(id, _)| id).collect();
        assert_eq!(unique.len(), ids(3).len());
        assert!(unique.len() >= 300);
        assert!(unique.iter().all(|id| id.starts_with("x.")));
    }

    #[test]
    fn the_failures_are_the_classes_that_the_play_needs() {
        let class = |seen: Seen| {
            let judged = classify(&seen.signal(), None, 0);
            (judged.class, judged.retry_after_ms)
        };
        assert_eq!(class(RATE_LIMIT), (FailureClass::RateLimited, Some(1_000)));
        assert_eq!(class(RATE_LIMIT_RESET), (FailureClass::RateLimited, Some(700)));
        assert_eq!(class(OVERLOADED).0, FailureClass::Overloaded);
        assert_eq!(class(SERVER_ERROR).0, FailureClass::ServerError);
        assert_eq!(class(PROXY_PAGE).0, FailureClass::Overloaded);
        assert_eq!(class(TIMED_OUT).0, FailureClass::Timeout);
        assert_eq!(class(RESET).0, FailureClass::Network);
        assert_eq!(class(CUT).0, FailureClass::PartialResponse);
        assert_eq!(class(BAD_KEY).0, FailureClass::Auth);
        assert_eq!(class(TOO_LONG).0, FailureClass::ContextOverflow);
        assert_eq!(class(NO_MONEY).0, FailureClass::QuotaExhausted);
        assert_eq!(class(WINDOW_USED_UP), (FailureClass::QuotaWindow, Some(3_600_000)));
    }
}
