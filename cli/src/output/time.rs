//! Times as people read them.

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// A duration in its two largest units: `850ms`, `3.2s`, `1m 30s`, `2h 5m`, `3d 4h`.
pub fn duration(ms: u64) -> String {
    let two = |large: u64, name: &str, small: u64, small_name: &str| {
        let (whole, rest) = (ms / large, ms % large / small);
        if rest == 0 { format!("{whole}{name}") } else { format!("{whole}{name} {rest}{small_name}") }
    };
    match ms {
        0..SECOND_MS => format!("{ms}ms"),
        SECOND_MS..MINUTE_MS if ms % SECOND_MS < 100 => format!("{}s", ms / SECOND_MS),
        SECOND_MS..MINUTE_MS => format!("{}.{}s", ms / SECOND_MS, ms % SECOND_MS / 100),
        MINUTE_MS..HOUR_MS => two(MINUTE_MS, "m", SECOND_MS, "s"),
        HOUR_MS..DAY_MS => two(HOUR_MS, "h", MINUTE_MS, "m"),
        _ => two(DAY_MS, "d", HOUR_MS, "h"),
    }
}

/// A moment seen from now: `in 5s`, `now`, `3m ago`.
pub fn from_now(at_ms: i64, now_ms: i64) -> String {
    let distance = at_ms.abs_diff(now_ms);
    if distance < 50 {
        "now".to_owned()
    } else if at_ms > now_ms {
        format!("in {}", duration(distance))
    } else {
        format!("{} ago", duration(distance))
    }
}

/// A moment in UTC, to the second.
pub fn moment(at_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(at_ms) {
        Ok(timestamp) => timestamp.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Err(_) => format!("{at_ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_at_most_two_units() {
        for (ms, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (1_000, "1s"),
            (3_250, "3.2s"),
            (59_999, "59.9s"),
            (90_000, "1m 30s"),
            (120_000, "2m"),
            (7_500_000, "2h 5m"),
            (273_600_000, "3d 4h"),
        ] {
            assert_eq!(duration(ms), text);
        }
        assert!(duration(u64::MAX).ends_with('h'));
    }

    #[test]
    fn moments_are_seen_from_now() {
        assert_eq!(from_now(6_000, 1_000), "in 5s");
        assert_eq!(from_now(1_000, 181_000), "3m ago");
        assert_eq!(from_now(1_000, 1_020), "now");
        assert_eq!(moment(1_700_000_000_000), "2023-11-14 22:13:20Z");
        assert_eq!(moment(i64::MAX), format!("{} ms", i64::MAX));
    }
}
