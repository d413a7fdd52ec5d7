//! Judging failures: from what was seen to what it is.

use redrive_shared::classify::classify;
use redrive_shared::failure::FailureSignal;
use redrive_shared::limits::MESSAGE_MAX_BYTES;
use redrive_shared::task::FailureRecord;

/// Classifies a failure and keeps what people need to see of it.
pub(super) fn judge(signal: &FailureSignal, dependency: Option<&str>, now_ms: i64) -> FailureRecord {
    let judged = classify(signal, dependency, now_ms);
    FailureRecord {
        class: judged.class,
        retryable: judged.retryable,
        retry_after_ms: judged.retry_after_ms,
        message: message(signal),
        fingerprint: judged.fingerprint,
    }
}

/// Judges the failures of a batch. In an outage they come in by the hundred and alike: what says the same as the one before
/// is judged as that was.
pub(super) struct Batch {
    now_ms: i64,
    last: Option<(FailureSignal, FailureRecord)>,
}

impl Batch {
    /// A batch that came in then.
    pub fn at(now_ms: i64) -> Self {
        Self { now_ms, last: None }
    }

    /// As [`judge`] does. The dependency is the store's to know: it is mixed into the fingerprint there.
    pub fn judge(&mut self, signal: FailureSignal) -> FailureRecord {
        match &self.last {
            Some((last, record)) if *last == signal => record.clone(),
            _ => {
                let record = judge(&signal, None, self.now_ms);
                self.last = Some((signal, record.clone()));
                record
            }
        }
    }
}

/// The most telling text of a signal, cut to its bound.
fn message(signal: &FailureSignal) -> String {
    let status = signal.http_status.map(|status| format!("HTTP {status}"));
    let text = [&signal.exception, &signal.body]
        .into_iter()
        .flatten()
        .map(|text| text.trim())
        .find(|text| !text.is_empty());
    let stop = signal.finish_reason.as_ref().or(signal.stop_reason.as_ref());
    let (lead, text) = match (status, text, stop, signal.exit_code) {
        (Some(status), Some(text), _, _) => (format!("{status}: "), text),
        (None, Some(text), _, _) => (String::new(), text),
        (_, None, Some(stop), _) => ("stopped: ".to_owned(), stop.as_str()),
        (Some(status), None, None, _) => (status, ""),
        (None, None, None, Some(code)) => (format!("exit code {code}"), ""),
        (None, None, None, None) => {
            (String::new(), signal.class.map_or("no details", |class| class.as_str()))
        }
    };
    cut(lead, text)
}

/// A short lead and its text, whose end is cut off where it would be too long: a body may have megabytes.
fn cut(mut lead: String, text: &str) -> String {
    const MARK: &str = " …";
    if lead.len() + text.len() <= MESSAGE_MAX_BYTES {
        lead.push_str(text);
    } else {
        let room = MESSAGE_MAX_BYTES - MARK.len() - lead.len();
        lead.push_str(&text[..text.floor_char_boundary(room)]);
        lead.push_str(MARK);
    }
    lead
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alike_failures_of_a_batch_are_judged_alike_and_others_by_what_they_say() {
        let status = |status| FailureSignal { http_status: Some(status), ..FailureSignal::default() };
        let hinted = |seconds: &str| FailureSignal {
            headers: [("retry-after".to_owned(), seconds.to_owned())].into(),
            ..status(429)
        };
        let signals =
            [status(503), status(503), status(429), hinted("7"), hinted("7"), hinted("9"), status(401)];
        let mut batch = Batch::at(1_000);
        for signal in signals {
            assert_eq!(batch.judge(signal.clone()), judge(&signal, None, 1_000));
        }
    }

    #[test]
    fn messages_are_short_and_say_the_status() {
        let signal = FailureSignal {
            http_status: Some(503),
            body: Some("ü".repeat(10_000)),
            ..FailureSignal::default()
        };
        let text = message(&signal);
        assert!(text.starts_with("HTTP 503: ü") && text.len() <= MESSAGE_MAX_BYTES, "{}", text.len());
        assert_eq!(message(&FailureSignal::default()), "no details");
    }
}
