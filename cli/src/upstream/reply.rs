//! What the upstream can answer: a closed set, written in scripts by name.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::limits::DELAY_MAX;

/// One way to answer a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reply {
    /// `ok`: 200, a finished chat completion. The only reply that counts as work done.
    Ok,
    /// `length`: 200, a chat completion cut off with `finish_reason: length`.
    Length,
    /// `429_retry_after:SECONDS`: 429 with a `retry-after` header.
    RateLimitedRetryAfter(u32),
    /// `429_reset:DURATION`: 429 whose only hint is `x-ratelimit-reset-requests`, with 0 requests remaining.
    RateLimitedReset(Duration),
    /// `429_quota`: 429 that waiting does not cure: `insufficient_quota`.
    QuotaAs429,
    /// `402`: payment required, `insufficient_quota`.
    QuotaAs402,
    /// `529`: `overloaded_error`.
    Overloaded,
    /// `500`: `server_error`.
    ServerError,
    /// `503`: the HTML page of a proxy that has lost its upstream.
    Unavailable,
    /// `401`: `authentication_error`.
    Unauthorized,
    /// `400_context`: 400, `context_length_exceeded`.
    ContextLength,
    /// `404`: `model_not_found`.
    ModelNotFound,
    /// `422`: the body fails validation.
    Invalid,
    /// `hang`: nothing at all, until the client gives up (at most 60 s; then the connection is closed).
    Hang,
    /// `reset`: the connection is reset (RST) before a byte is answered.
    Reset,
    /// `cut`: 200 and an event stream that ends in the middle, before its terminal event.
    Cut,
}

/// Every name that [`Reply`] and [`Step`] understand, as an error message shows them.
pub const REPLY_NAMES: &str = "ok, length, 429_retry_after:SECONDS, 429_reset:DURATION (1s, 500ms, 1m30s), 429_quota, \
     402, 529, 500, 503, 401, 400_context, 404, 422, hang, reset, cut; each with @MILLISECONDS for a delay";

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Ok => f.write_str("ok"),
            Reply::Length => f.write_str("length"),
            Reply::RateLimitedRetryAfter(seconds) => write!(f, "429_retry_after:{seconds}"),
            Reply::RateLimitedReset(after) => write!(f, "429_reset:{}", format_duration(*after)),
            Reply::QuotaAs429 => f.write_str("429_quota"),
            Reply::QuotaAs402 => f.write_str("402"),
            Reply::Overloaded => f.write_str("529"),
            Reply::ServerError => f.write_str("500"),
            Reply::Unavailable => f.write_str("503"),
            Reply::Unauthorized => f.write_str("401"),
            Reply::ContextLength => f.write_str("400_context"),
            Reply::ModelNotFound => f.write_str("404"),
            Reply::Invalid => f.write_str("422"),
            Reply::Hang => f.write_str("hang"),
            Reply::Reset => f.write_str("reset"),
            Reply::Cut => f.write_str("cut"),
        }
    }
}

impl FromStr for Reply {
    type Err = ParseReplyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |why| ParseReplyError { text: text.to_owned(), why };
        let reply = match text.split_once(':') {
            Some(("429_retry_after", seconds)) => {
                let seconds = seconds.parse().map_err(|_| bad(Why::Seconds))?;
                Reply::RateLimitedRetryAfter(seconds)
            }
            Some(("429_reset", after)) => {
                Reply::RateLimitedReset(parse_duration(after).ok_or_else(|| bad(Why::Duration))?)
            }
            Some(_) => return Err(bad(Why::Name)),
            None => match text {
                "ok" => Reply::Ok,
                "length" => Reply::Length,
                "429_quota" => Reply::QuotaAs429,
                "402" => Reply::QuotaAs402,
                "529" => Reply::Overloaded,
                "500" => Reply::ServerError,
                "503" => Reply::Unavailable,
                "401" => Reply::Unauthorized,
                "400_context" => Reply::ContextLength,
                "404" => Reply::ModelNotFound,
                "422" => Reply::Invalid,
                "hang" => Reply::Hang,
                "reset" => Reply::Reset,
                "cut" => Reply::Cut,
                "429_retry_after" => return Err(bad(Why::Seconds)),
                "429_reset" => return Err(bad(Why::Duration)),
                _ => return Err(bad(Why::Name)),
            },
        };
        Ok(reply)
    }
}

impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reply {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// One step of a script: a reply, after a delay (`ok@120` = after 120 ms).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Step {
    /// What is answered.
    pub reply: Reply,
    /// How long after the request's arrival; at most 600 s.
    pub delay: Duration,
}

impl From<Reply> for Step {
    fn from(reply: Reply) -> Self {
        Step { reply, delay: Duration::ZERO }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reply.fmt(f)?;
        if self.delay.is_zero() { Ok(()) } else { write!(f, "@{}", self.delay.as_millis()) }
    }
}

impl FromStr for Step {
    type Err = ParseReplyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((reply, delay)) = text.split_once('@') else {
            return Ok(text.parse::<Reply>()?.into());
        };
        let delay = delay.parse().map(Duration::from_millis).ok().filter(|delay| *delay <= DELAY_MAX);
        let delay = delay.ok_or_else(|| ParseReplyError { text: text.to_owned(), why: Why::Delay })?;
        Ok(Step { reply: reply.parse()?, delay })
    }
}

/// A reply's name that is not in the set, or whose parameter is missing or malformed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseReplyError {
    text: String,
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Name,
    Seconds,
    Duration,
    Delay,
}

impl fmt::Display for ParseReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The name came from outside: the message stays short whatever was sent.
        let text: String = self.text.chars().take(60).collect();
        match self.why {
            Why::Name => write!(f, "unknown reply {text:?}; known: {REPLY_NAMES}"),
            Why::Seconds => write!(f, "reply {text:?} needs whole seconds, as in 429_retry_after:2"),
            Why::Duration => {
                write!(f, "reply {text:?} needs a duration, as in 429_reset:1m30s or 429_reset:500ms")
            }
            Why::Delay => {
                let max = DELAY_MAX.as_millis();
                write!(f, "the delay in {text:?} must be whole milliseconds, at most {max}, as in ok@120")
            }
        }
    }
}

impl Error for ParseReplyError {}

/// Writes a duration as OpenAI's headers do: `12ms`, `1s`, `1.5s`, `6m0s`, `1h0m0s`.
pub(super) fn format_duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    if seconds == 0 {
        return format!("{millis}ms");
    }
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let mut text = String::new();
    if hours > 0 {
        text = format!("{hours}h");
    }
    if hours > 0 || minutes > 0 {
        text.push_str(&format!("{minutes}m"));
    }
    match millis {
        0 => text.push_str(&format!("{seconds}s")),
        _ => text.push_str(format!("{seconds}.{millis:03}").trim_end_matches('0')),
    }
    if millis > 0 {
        text.push('s');
    }
    text
}

/// Reads what [`format_duration`] writes. Whole numbers of h, m and ms, seconds with up to three decimals; units in
/// falling order, each at most once.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total_ms = 0_u64;
    let mut unit_before = u64::MAX;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let unit_ms = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return None,
        };
        if unit_ms >= unit_before {
            return None;
        }
        let value_ms = match number.split_once('.') {
            Some((whole, decimals)) if unit == "s" && (1..=3).contains(&decimals.len()) => {
                let decimals_ms = digits(&format!("{decimals:0<3}"))?;
                digits(whole)?.checked_mul(unit_ms)?.checked_add(decimals_ms)?
            }
            Some(_) => return None,
            None => digits(number)?.checked_mul(unit_ms)?,
        };
        total_ms = total_ms.checked_add(value_ms)?;
        unit_before = unit_ms;
        rest = tail;
    }
    (!text.is_empty()).then_some(Duration::from_millis(total_ms))
}

/// A number of nothing but digits: `u64::from_str` alone would also take a leading plus.
fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}
