//! Durations as people write them.

use jiff::{Span, SpanRelativeTo};

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing there.
    #[error("a duration is missing; write one such as 5s, 1m30s or 2h")]
    Empty,
    /// A number alone: guessing between seconds and milliseconds would be wrong half of the time.
    #[error("`{0}` has no unit; write {0}s for seconds or {0}ms for milliseconds")]
    NoUnit(String),
    /// Before now.
    #[error("`{0}` is negative; a duration counts forward, such as 5s or 1m30s")]
    Negative(String),
    /// Below what a millisecond count can hold.
    #[error("`{0}` is not a whole number of milliseconds; the finest duration is 1ms")]
    TooFine(String),
    /// Beyond what can be counted.
    #[error("`{0}` is too long; write something shorter, such as 2h or 30d")]
    TooLong(String),
    /// None of the above.
    #[error("`{0}` is not a duration; write one such as 500ms, 5s, 1m30s, 2h or 7d")]
    Unreadable(String),
}

/// Reads `500ms`, `5s`, `1m30s`, `1h 30m`, `7d` or `PT5S` and gives whole milliseconds. A day has 24 hours here.
/// Refuses what [`DurationError`] lists; months and years are no fixed time and are unreadable.
pub fn parse_duration_ms(text: &str) -> Result<u64, DurationError> {
    let text = text.trim();
    let own = || text.to_owned();
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    if text.parse::<f64>().is_ok() {
        return Err(if text.starts_with('-') {
            DurationError::Negative(own())
        } else {
            DurationError::NoUnit(own())
        });
    }
    // jiff bounds every unit of a span; what it refuses although each part reads as number and unit is too long.
    let span: Span = text.parse().map_err(|_| {
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        if digits > 9 && only_fixed_units(text) {
            DurationError::TooLong(own())
        } else {
            DurationError::Unreadable(own())
        }
    })?;
    if span.is_negative() {
        return Err(DurationError::Negative(own()));
    }
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err(DurationError::Unreadable(own()));
    }
    let duration =
        span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| DurationError::TooLong(own()))?;
    if duration.subsec_nanos() % 1_000_000 != 0 {
        return Err(DurationError::TooFine(own()));
    }
    u64::try_from(duration.as_millis()).map_err(|_| DurationError::TooLong(own()))
}

/// Writes whole milliseconds so that [`parse_duration_ms`] reads the same again: `1m30s`, `1d`, `250ms`, `0s`.
pub fn format_duration_ms(ms: u64) -> String {
    const UNITS: [(u64, &str); 5] =
        [(24 * 60 * 60 * 1_000, "d"), (60 * 60 * 1_000, "h"), (60 * 1_000, "m"), (1_000, "s"), (1, "ms")];
    if ms == 0 {
        return "0s".to_owned();
    }
    let (mut text, mut left) = (String::new(), ms);
    for (unit, name) in UNITS {
        if left >= unit {
            text.push_str(&format!("{}{name}", left / unit));
            left %= unit;
        }
    }
    text
}

fn only_fixed_units(text: &str) -> bool {
    let units = text.split(|c: char| c.is_ascii_digit() || c.is_whitespace() || c == '.');
    units.filter(|unit| !unit.is_empty()).all(|unit| matches!(unit, "ms" | "s" | "m" | "h" | "d" | "w"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_the_same_again() {
        for (ms, text) in
            [(0, "0s"), (250, "250ms"), (90_000, "1m30s"), (86_400_000, "1d"), (90_061_001, "1d1h1m1s1ms")]
        {
            assert_eq!(format_duration_ms(ms), text);
        }
        for ms in [0, 1, 999, 1_000, 59_999, 60_000, 86_399_999, 63_072_000_000, 63_072_000_001] {
            assert_eq!(parse_duration_ms(&format_duration_ms(ms)), Ok(ms));
        }
    }

    #[test]
    fn people_write_durations_in_many_ways() {
        for (text, ms) in [
            ("0s", 0),
            ("500ms", 500),
            ("5s", 5_000),
            ("1m30s", 90_000),
            (" 1h 30m ", 5_400_000),
            ("1.5s", 1_500),
            ("7d", 604_800_000),
            ("1w", 604_800_000),
            ("PT5S", 5_000),
        ] {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn every_bad_duration_says_what_to_write() {
        type Make = fn(String) -> DurationError;
        let cases: [(&str, Make); 12] = [
            ("", |_| DurationError::Empty),
            ("  ", |_| DurationError::Empty),
            ("5", DurationError::NoUnit),
            ("1.5", DurationError::NoUnit),
            ("-5", DurationError::Negative),
            ("-5s", DurationError::Negative),
            ("5s ago", DurationError::Negative),
            ("10us", DurationError::TooFine),
            ("99999999999999999999h", DurationError::TooLong),
            ("9999999999999h", DurationError::TooLong),
            ("soon", DurationError::Unreadable),
            ("1 month", DurationError::Unreadable),
        ];
        for (text, error) in cases {
            let refused = parse_duration_ms(text).unwrap_err();
            assert_eq!(refused, error(text.to_owned()), "{text}");
            assert!(refused.to_string().contains("s"), "{refused}");
        }
        assert_eq!(
            parse_duration_ms("5").unwrap_err().to_string(),
            "`5` has no unit; write 5s for seconds or 5ms for milliseconds"
        );
    }
}
