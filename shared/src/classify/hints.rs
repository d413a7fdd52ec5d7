//! When the server says to come back.
//!
//! The order is that of trust: headers made for the purpose, structured fields, prose, and last the reset time of a bucket
//! that is used up. Whatever is negative, not finite, unreadable or absurd is no hint: a wrong one parks a task for nothing.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::evidence::Evidence;

/// Above this a hint is ignored: 30 days. No retry queue should trust a stranger that far.
const MAX_HINT_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// Plain numbers from here on are seconds since the epoch and not a delay (the year 2001).
const EPOCH_SECONDS_FROM: f64 = 1e9;
/// … and from here on milliseconds since the epoch.
const EPOCH_MILLIS_FROM: f64 = 1e12;

/// The server's hint in milliseconds from now, if it gave one that can be believed.
pub(super) fn find(evidence: &Evidence, now_ms: i64) -> Option<u64> {
    from_headers(evidence, now_ms)
        .or_else(|| from_fields(evidence, now_ms))
        .or_else(|| from_prose(&evidence.prose, now_ms))
        .or_else(|| from_buckets(evidence, now_ms))
}

fn from_headers(evidence: &Evidence, now_ms: i64) -> Option<u64> {
    const MILLIS: &[&str] = &["retry-after-ms", "x-ms-retry-after-ms", "x-retry-after-ms"];
    const SECONDS: &[&str] = &["retry-after", "x-retry-after", "x-ratelimit-retry-after"];
    let header = |name: &&str| evidence.headers.get(*name);
    let millis = MILLIS.iter().filter_map(header).find_map(|value| bounded(number(value)?));
    millis.or_else(|| SECONDS.iter().filter_map(header).find_map(|value| delay_or_date(value, now_ms)))
}

/// `retry-after` and its kin: seconds, a duration with units, or a point in time.
fn delay_or_date(value: &str, now_ms: i64) -> Option<u64> {
    if let Some(seconds) = number(value) {
        return plain_number(seconds, now_ms);
    }
    if let Some(millis) = duration_ms(value) {
        return bounded(millis);
    }
    until(point_in_time(value)?, now_ms)
}

/// A number without a unit: seconds, or a point in time if it is too large to be a delay.
fn plain_number(value: f64, now_ms: i64) -> Option<u64> {
    if value >= EPOCH_MILLIS_FROM {
        bounded(value - now_ms as f64)
    } else if value >= EPOCH_SECONDS_FROM {
        bounded(value * 1e3 - now_ms as f64)
    } else {
        bounded(value * 1e3)
    }
}

/// Fields that carry a delay, with the milliseconds that a plain number in them stands for.
const DELAY_FIELDS: &[(&str, f64)] = &[
    ("retryafterms", 1.0),
    ("retryaftermillis", 1.0),
    ("retryaftermilliseconds", 1.0),
    ("retrydelayms", 1.0),
    ("retrydelay", 1e3),
    ("retryafter", 1e3),
    ("retryafterseconds", 1e3),
    ("retryaftersec", 1e3),
    ("retryaftersecs", 1e3),
    ("resetsinseconds", 1e3),
    ("resetinseconds", 1e3),
    ("resetafterseconds", 1e3),
    ("resetafter", 1e3),
    ("resetin", 1e3),
    ("quotaresetdelay", 1e3),
    ("estimatedtime", 1e3),
    ("waitseconds", 1e3),
    ("secondsuntilreset", 1e3),
    ("cooldownseconds", 1e3),
    ("retryin", 1e3),
];
/// Fields that carry a point in time.
const TIME_FIELDS: &[&str] = &[
    "resetsat",
    "resetat",
    "retryat",
    "quotaresettimestamp",
    "resettime",
    "xratelimitreset",
    "resettimestamp",
];

fn from_fields(evidence: &Evidence, now_ms: i64) -> Option<u64> {
    let values = |name: &'static str| {
        evidence.fields.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    };
    let delay = DELAY_FIELDS.iter().find_map(|(name, unit_ms)| {
        values(name).find_map(|value| match number(value) {
            Some(n) => bounded(n * unit_ms),
            // Some put a point in time where others put seconds.
            None => duration_ms(value).map_or_else(|| until(point_in_time(value)?, now_ms), bounded),
        })
    });
    delay.or_else(|| {
        TIME_FIELDS.iter().flat_map(|name| values(name)).find_map(|value| match number(value) {
            Some(epoch) if epoch >= EPOCH_SECONDS_FROM => plain_number(epoch, now_ms),
            Some(_) => None,
            None => until(point_in_time(value)?, now_ms),
        })
    })
}

/// Words right before the delay that the server asks for.
const ASKING: &[&str] = &[
    "try again in ",
    "try again after ",
    "retry in ",
    "retry after ",
    "retry after: ",
    "retry-after: ",
    "retry_after: ",
    "retry_after=",
    "retry-after=",
    "retry your request in ",
    "retry your request after ",
    "request again in ",
    "again in ",
    "again after ",
    "available in ",
    "available again in ",
    "reset in ",
    "reset after ",
    "resets in ",
    "resets after ",
    "please wait ",
    "please wait for ",
    "must wait ",
    "need to wait ",
    "wait at least ",
    "wait for ",
    "a wait of ",
    "replenished in ",
    "refreshes in ",
    "retry it in ",
    "retry request after ",
    "retry the request in ",
    "retry the request after ",
    "renews in ",
    "expires in ",
    "cooldown: ",
    "back in ",
    "lifted in ",
    "ready in ",
    "backoff time: ",
    "back off for ",
];
/// A client that tells its own plan to try again is not the server. When a limit ends is nobody's plan.
const OWN_PLAN: &[&str] =
    &["will ", "we'll ", "i'll ", "auto-", "automatically ", "going to ", "then ", "sdk ", "client "];

/// Words right before a point in time.
const TIMING: &[&str] = &[
    "reset at ",
    "resets at ",
    "try again at ",
    "retry at ",
    "until ",
    "again after ",
    "retry after ",
    "reset on ",
];
/// Behind its bar, Claude Code prints an epoch.
const BAR: &str = "limit reached|";
/// How often the same words are followed up.
const MAX_ASKED: usize = 16;
const MAX_TIMED: usize = 4;

/// Finds the words of all three in one pass, numbered in this order.
static CUES: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::new(ASKING.iter().chain(TIMING).chain([&BAR]))
        .unwrap_or_else(|error| unreachable!("constant tables are within bounds: {error}"))
});

/// Words that were found: their number and their place in the text.
type Cue = (usize, Range<usize>);

fn from_prose(prose: &str, now_ms: i64) -> Option<u64> {
    let found = CUES.find_overlapping_iter(prose);
    let mut cues: Vec<Cue> = found.map(|cue| (cue.pattern().as_usize(), cue.range())).collect();
    // The order of the tables, and for the same words that of the text.
    cues.sort_unstable_by_key(|(words, at)| (*words, at.start));
    let (asking, timing) = cues.split_at(cues.partition_point(|(words, _)| *words < ASKING.len()));
    let asked = each_at_most(asking, MAX_ASKED).filter_map(|at| {
        let lead = &prose[..at.start];
        let may_be_a_plan = prose[at.clone()].contains("try") || prose[at.clone()].contains("wait");
        if lead.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            || (may_be_a_plan && OWN_PLAN.iter().any(|plan| lead.ends_with(plan)))
        {
            return None;
        }
        let tail = prose[at.end..].trim_start();
        let tail = ["about ", "approximately ", "at least ", "another ", "around ", "~"]
            .iter()
            .fold(tail, |t, w| t.strip_prefix(w).unwrap_or(t));
        leading_duration(tail).map(|millis| (at.start, millis))
    });
    let first = asked.min_by_key(|(start, _)| *start).and_then(|(_, millis)| bounded(millis));
    first.or_else(|| spoken_time(prose, timing, now_ms))
}

/// Where the words occur, each at most so often.
fn each_at_most(cues: &[Cue], limit: usize) -> impl Iterator<Item = &Range<usize>> {
    cues.chunk_by(|(one, _), (other, _)| one == other)
        .flat_map(move |same| same.iter().take(limit).map(|(_, at)| at))
}

/// "reset at 2025-11-05T12:00:00Z", or the epoch that Claude Code puts behind a bar.
fn spoken_time(prose: &str, cues: &[Cue], now_ms: i64) -> Option<u64> {
    let (timing, bars) =
        cues.split_at(cues.partition_point(|(words, _)| *words < ASKING.len() + TIMING.len()));
    if let Some((_, bar)) = bars.first() {
        let digits = prose[bar.end..].split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        return number(digits).filter(|n| *n >= EPOCH_SECONDS_FROM).and_then(|n| plain_number(n, now_ms));
    }
    each_at_most(timing, MAX_TIMED).find_map(|at| {
        let mut parts = prose[at.end..].split_whitespace();
        let first = parts.next()?.trim_end_matches(['.', ',', ')', ';']);
        let time = point_in_time(&first.to_ascii_uppercase()).or_else(|| {
            let clock = parts.next()?.trim_end_matches(['.', ',', ')', ';']);
            let zone = parts.next().unwrap_or_default().trim_end_matches(['.', ',', ')', ';']);
            (zone == "utc" || zone == "gmt" || clock.ends_with('z'))
                .then(|| point_in_time(&format!("{first}T{}Z", clock.trim_end_matches('z'))))?
        });
        until(time?, now_ms)
    })
}

/// The reset of an exhausted bucket: `x-ratelimit-reset-tokens` counts only where `x-ratelimit-remaining-tokens` is zero.
fn from_buckets(evidence: &Evidence, now_ms: i64) -> Option<u64> {
    let spent = |name: &str| {
        let (bucket, kind) = name.split_once("reset").unwrap_or((name, ""));
        let kind = ["-after-seconds", "-after", "-at"]
            .iter()
            .fold(kind, |kind, end| kind.strip_suffix(end).unwrap_or(kind));
        let amount = |what: &str| {
            evidence.headers.get(&format!("{bucket}{what}{kind}")).and_then(|value| number(value))
        };
        let rejected =
            evidence.headers.get(&format!("{bucket}status{kind}")).is_some_and(|status| status == "rejected");
        rejected
            || amount("remaining").is_some_and(|left| left <= 0.0)
            || amount("used-percent").is_some_and(|used| used >= 100.0)
    };
    let resets = evidence.headers.iter().filter(|(name, _)| name.contains("reset") && spent(name));
    resets
        .filter_map(|(_, value)| delay_or_date(value, now_ms))
        .max()
        .or_else(|| combined_bucket(evidence.headers.get("ratelimit")?))
}

/// The IETF draft's single field: `limit=100, remaining=0, reset=50` or `"default";r=0;t=50`.
fn combined_bucket(value: &str) -> Option<u64> {
    let part = |names: [&str; 2]| {
        value.split([',', ';']).find_map(|part| {
            let (name, value) = part.trim().split_once('=')?;
            names.contains(&name).then(|| number(value))?
        })
    };
    let left = part(["remaining", "r"])?;
    (left <= 0.0).then(|| bounded(part(["reset", "t"])? * 1e3))?
}

/// A finite number without sign or unit games: Rust would read "inf" and "nan" as well.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let plain = !text.is_empty() && text.len() <= 32 && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    plain.then(|| text.parse().ok())?
}

/// A positive delay of at most 30 days, in whole milliseconds.
fn bounded(millis: f64) -> Option<u64> {
    let sound = millis.is_finite() && millis > 0.0 && millis <= MAX_HINT_MS as f64;
    sound.then(|| millis.round().max(1.0) as u64)
}

fn until(time: Timestamp, now_ms: i64) -> Option<u64> {
    bounded(time.as_millisecond() as f64 - now_ms as f64)
}

/// RFC 3339, or an HTTP-date in any of its forms.
fn point_in_time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if text.len() > 64 || !text.is_ascii() {
        return None;
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if let Ok(time) = rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text) {
        return Some(time);
    }
    // The two obsolete forms of an HTTP-date, that of RFC 850 and that of C's asctime.
    ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"].iter().find_map(|format| {
        let civil = jiff::civil::DateTime::strptime(format, text).ok()?;
        jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()
    })
}

/// A whole text that is a duration: "12ms", "6m0s", "1h2m", "31s".
fn duration_ms(text: &str) -> Option<f64> {
    let text = text.trim().to_ascii_lowercase();
    let (millis, rest) = read_duration(&text)?;
    rest.trim().is_empty().then_some(millis)
}

/// The duration at the start of prose; a number without a unit counts as seconds.
fn leading_duration(text: &str) -> Option<f64> {
    if let Some((millis, _)) = read_duration(text) {
        return Some(millis);
    }
    if let Some(millis) = dotnet_timespan(text) {
        return Some(millis);
    }
    let digits: &str = &text[..text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len())];
    let tail = text[digits.len()..].trim_start();
    // "retry after 2025-…" is a date, "wait for 3 other jobs" is a count.
    let ends = tail.is_empty() || tail.starts_with(['"', '\'', ',', ')', '}', ']', ';', '(']);
    ends.then(|| number(digits.trim_end_matches('.')))?.map(|seconds| seconds * 1e3)
}

/// Milliseconds of a unit.
fn unit_ms(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" | "nanoseconds" => 1e-6,
        "us" | "µs" | "microseconds" => 1e-3,
        "ms" | "msec" | "millis" | "millisecond" | "milliseconds" => 1.0,
        "s" | "sec" | "secs" | "second" | "seconds" | "second(s)" | "秒" => 1e3,
        "m" | "min" | "mins" | "minute" | "minutes" | "分钟" | "分" => 60e3,
        "h" | "hr" | "hrs" | "hour" | "hours" | "小时" | "時間" => 3_600e3,
        "d" | "day" | "days" | "天" | "日" => 86_400e3,
        "w" | "week" | "weeks" => 604_800e3,
        _ => return None,
    })
}

/// Reads number-unit pairs as far as they go, "1 hour and 5 minutes" as well as "6m0s"; returns the sum and the rest.
fn read_duration(text: &str) -> Option<(f64, &str)> {
    let mut rest = text;
    let mut total = None;
    for _ in 0..6 {
        let start = rest.trim_start_matches([' ', ',']);
        let start = if total.is_some() { start.strip_prefix("and ").unwrap_or(start) } else { start };
        let digits = start.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(start.len());
        let Some(amount) = number(&start[..digits]) else { break };
        let after = start[digits..].trim_start();
        let length = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let Some(unit) = unit_ms(&after[..length]) else { break };
        total = Some(total.unwrap_or(0.0) + amount * unit);
        rest = &after[length..];
    }
    total.map(|millis| (millis, rest))
}

/// Azure prints "2.12:00:00" for two and a half days.
fn dotnet_timespan(text: &str) -> Option<f64> {
    let word = text.split_whitespace().next()?.trim_end_matches('.');
    let (days, clock) = word.split_once('.').filter(|(days, _)| !days.contains(':')).unwrap_or(("0", word));
    let mut parts = clock.split(':').map(number);
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    parts
        .next()
        .is_none()
        .then(|| number(days))?
        .map(|days| ((days * 24.0 + hours) * 60.0 + minutes) * 60e3 + seconds * 1e3)
}

#[cfg(test)]
mod tests {
    use super::{ASKING, BAR, TIMING};

    /// Else a pass that finds overlapping words would count more than one that goes on behind each.
    #[test]
    fn no_words_before_a_hint_overlap_themselves() {
        for words in ASKING.iter().chain(TIMING).chain([&BAR]) {
            assert!((1..words.len()).all(|at| !words.starts_with(&words[at..])), "{words}");
        }
    }
}
