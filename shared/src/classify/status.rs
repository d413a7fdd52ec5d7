//! Which HTTP status tells what happened, among those of envelopes, bodies and sentences.

/// An error inside a 200, or inside a gateway's own error, is the one that tells what happened.
pub(super) fn effective(envelope: Option<u16>, inner: Option<u16>, prose: &str) -> Option<u16> {
    let outer_error = envelope.filter(|status| *status >= 400);
    let known = inner.or(outer_error);
    match known {
        Some(outer) if !is_vague(outer) => known,
        Some(outer) => spoken_status(prose).filter(|spoken| explains(outer, *spoken)).or(known),
        None => spoken_status(prose).or(envelope),
    }
}

/// What gateways send for whatever went wrong behind them.
pub(super) fn is_vague(status: u16) -> bool {
    matches!(status, 400 | 500 | 502)
}

/// Whether an inner status is the cause of a vague one around it: a limit or a load is. A 404 below a 400 may as well be that
/// of a document which the request named.
pub(super) fn explains(outer: u16, inner: u16) -> bool {
    match inner {
        402 | 429 | 503 | 529 => true,
        401 | 403 | 408 | 413 | 504 => outer != 400,
        _ => false,
    }
}

/// Numbers that are statuses and little else, so that they need no introduction at the start of a text or in parentheses.
const KNOWN_STATUSES: &[u16] = &[
    400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 413, 415, 422, 424, 429, 498, 499, 500, 501, 502,
    503, 504, 520, 521, 522, 523, 524, 529,
];

/// A status in words: `error code: 429`, `HTTP 503`, `[400]:`, or a number with its reason phrase behind it.
fn spoken_status(prose: &str) -> Option<u16> {
    const BEFORE: &[&str] =
        &["status", "code", "http", "error", "response", "returned", "got", "received", "/1.1", "/2"];
    const AFTER: &[&str] = &[
        "too many",
        "bad ",
        "unauthorized",
        "payment",
        "proxy auth",
        "forbidden",
        "not found",
        "internal",
        "service",
        "gateway",
        "server",
        "client error",
        "unprocessable",
        "conflict",
        "request",
        "error",
        "{",
        "resource",
        "unavailable",
        "invalid",
        "<!doctype",
    ];
    let bytes = prose.as_bytes();
    for (start, window) in bytes.windows(3).enumerate() {
        if !matches!(window[0], b'4' | b'5') || !window.iter().all(u8::is_ascii_digit) {
            continue;
        }
        let before = start.checked_sub(1).map(|at| bytes[at]);
        let after = bytes.get(start + 3).copied();
        let joined = |b: Option<u8>| {
            b.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'$'))
        };
        let sentence_end = after == Some(b'.') && bytes.get(start + 4).is_none_or(u8::is_ascii_whitespace);
        if joined(before) || (joined(after) && !sentence_end) {
            continue;
        }
        let lead = prose[prose.floor_char_boundary(start.saturating_sub(16))..start]
            .trim_end_matches(|c: char| !c.is_alphanumeric());
        let tail = prose[start + 3..].trim_start_matches([' ', ':', ')', ']', '-', ',']);
        let introduced = BEFORE.iter().any(|word| lead.ends_with(word));
        let status: u16 = prose[start..start + 3].parse().ok()?;
        // "422 status code", "400 Reasoning is …", "Missing header (401)"; but not "404 items", "500 ms".
        let leads = before.is_none() && (tail.is_empty() || after == Some(b':') || !counts(tail));
        let alone = (before == Some(b'(') && after == Some(b')'))
            || (prose[..start].ends_with(": ") && after == Some(b' ') && !counts(tail) && !numbers(lead));
        if introduced
            || ((leads || alone) && KNOWN_STATUSES.contains(&status))
            || AFTER.iter().any(|word| tail.starts_with(word))
        {
            return Some(status);
        }
    }
    None
}

/// Whether a word announces a number that is no status.
fn numbers(lead: &str) -> bool {
    const NUMBERS: &[&str] = &[
        "limit",
        "line",
        "column",
        "port",
        "count",
        "used",
        "requested",
        "size",
        "length",
        "max",
        "id",
        "total",
    ];
    NUMBERS.iter().any(|word| lead.ends_with(word))
}

/// Whether a text goes on as after a number of things or a measure.
fn counts(tail: &str) -> bool {
    const THINGS: &[&str] = &[
        "ms", "s ", "sec", "min", "%", "token", "item", "file", "row", "record", "byte", "kb", "mb", "line",
        "test",
    ];
    THINGS.iter().any(|thing| tail.starts_with(thing))
}

#[cfg(test)]
mod tests {
    use super::{effective, spoken_status};

    #[test]
    fn statuses_are_heard_and_other_numbers_are_not() {
        for (text, want) in [
            ("error code: 429 - too many", Some(429)),
            ("api error: 529 overloaded", Some(529)),
            ("[x] [400]: {", Some(400)),
            ("503 service unavailable", Some(503)),
            ("limit 500, used 450", None),
            ("timeout=600", None),
            ("request failed with status code 400", Some(400)),
            ("422 status code (no body)", Some(422)),
            ("400 reasoning is mandatory", Some(400)),
            ("gateway error: missing header (401)", Some(401)),
            ("404 items were left", None),
            ("500 ms elapsed", None),
            ("driver: 503 when connecting to resource", Some(503)),
            ("too many 503 error responses", Some(503)),
            ("limit: 500 in total", None),
        ] {
            assert_eq!(spoken_status(text), want, "{text}");
        }
    }

    #[test]
    fn a_precise_status_inside_explains_a_vague_one() {
        for (envelope, inner, prose, want) in [
            (Some(500), None, "upstream returned 429", 429),
            (Some(502), Some(500), "error code: 401", 401),
            (Some(400), None, "error while downloading file. upstream status code: 404.", 400),
            (Some(400), None, "server responded with status 429.", 429),
            (Some(403), None, "http 500 internal", 403),
            (Some(200), Some(429), "", 429),
        ] {
            assert_eq!(effective(envelope, inner, prose), Some(want), "{envelope:?} {inner:?} {prose}");
        }
        assert_eq!(effective(Some(200), None, ""), Some(200));
    }
}
