//! Gathers what a signal says, sorted by how much it can be trusted: stop reasons, machine-readable codes, statuses, prose.

use std::collections::BTreeMap;

use super::lexicon::{Heard, Named};
use super::scan::{Sink, scan};
use super::{spoken, status};
use crate::failure::FailureSignal;

/// How much of a body or an exception is looked at. Errors say what they are near their start.
const MAX_INPUT_BYTES: usize = 64 * 1024;
/// How much prose is kept: bounds the cost of matching every phrase.
const MAX_PROSE_BYTES: usize = 16 * 1024;
/// How many codes and fields are kept.
const MAX_FACTS: usize = 256;
/// A code is a word or two; anything longer is a sentence.
const MAX_CODE_BYTES: usize = 96;

/// Keys whose value names the error for machines.
const CODE_KEYS: &[&str] = &[
    "code",
    "type",
    "status",
    "reason",
    "errorcode",
    "errortype",
    "error",
    "name",
    "issue",
    "declinecode",
    "quotaid",
    "sqlstate",
    "errno",
    "exceptiontype",
    "kind",
    "statuscode",
    "statusreason",
    "errorname",
    "errorclass",
    "exceptionclass",
    "internalcode",
    "subtype",
    "subcode",
    "quotalimit",
    "policyname",
    "exitcode",
    "signal",
    "errcode",
    "exception",
    "title",
    "level",
    "violation",
    "xamznerrortype",
    "etype",
    "category",
    "limitname",
    "ratelimittype",
];
/// Keys that tell how a generation ended.
const STOP_KEYS: &[&str] = &["finishreason", "stopreason", "blockreason", "nativefinishreason"];
/// Why an answer is incomplete, which is told under a key that has many other uses (`incomplete_details.reason`).
const INCOMPLETE_REASONS: &[&str] = &["maxoutputtokens", "maxtokens", "contentfilter"];
/// Keys that tell how a process ended.
const EXIT_KEYS: &[&str] = &["exitcode", "exitstatus", "returncode"];
/// Keys whose text is the message, even if it is a single word.
const MESSAGE_KEYS: &[&str] = &[
    "message",
    "msg",
    "detail",
    "details",
    "description",
    "errormessage",
    "errordescription",
    "errormsg",
    "raw",
    "cause",
    "errors",
    "uimessage",
    "explanation",
    "lasterror",
    "faultstring",
    "body",
    "data",
    "reasonphrase",
    "statustext",
    "text",
    "content",
    "err",
];
/// Keys whose number may be an HTTP status. `param` is where one-api hides that of its upstream.
const STATUS_KEYS: &[&str] =
    &["code", "status", "statuscode", "errorcode", "httpstatus", "httpcode", "param"];
/// Keys whose text was written by the user, the model or a tool's caller: no signal.
const ECHO_KEYS: &[&str] = &[
    "prompt",
    "input",
    "inputvalue",
    "messages",
    "content",
    "system",
    "systeminstruction",
    "instructions",
    "arguments",
    "args",
    "query",
    "failedgeneration",
    "text",
    "partialjson",
    "completion",
    "output",
    "user",
    "userinput",
    "question",
    "thinking",
    "thoughtsignature",
    "signature",
    "reasoning",
    "reasoningcontent",
    "toolinput",
    "sql",
];

/// What a failure signal says. All words are lower case.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// The most specific HTTP status: that of an inner error before that of the envelope.
    pub status: Option<u16>,
    /// Why generation stopped, squeezed like a code.
    pub stops: Vec<String>,
    /// Machine-readable names, squeezed to letters and digits.
    pub codes: Vec<String>,
    /// Names of errors, squeezed like a code: for when nothing else speaks.
    pub names: Vec<String>,
    /// What the codes name.
    pub named: Named,
    /// All pairs, keys squeezed, values as they were: where hints are looked for.
    pub fields: Vec<(String, String)>,
    /// What is said in words: single-spaced, without URLs and echoed prompts.
    pub prose: String,
    /// What is said and the codes, in the letters that they came in: where single words are read.
    pub raw: String,
    /// What the prose is about.
    pub heard: Heard,
    /// The first thing that is said, for the fingerprint.
    pub message: String,
    /// What the model or the user said. It decides nothing except that an answer is a refusal.
    pub said: String,
    /// Header names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body as it is, bounded, for the shape of streams.
    pub body: Option<String>,
    inner_status: Option<u16>,
    /// How a process ended, where the text tells it.
    pub exit_code: Option<i32>,
    /// The text is the result of a tool that reports an error, so that its `text` is the error and no echo.
    pub tool_result: bool,
}

impl Evidence {
    /// Reads a signal. Bounded work, whatever the size of the body.
    pub(super) fn gather(signal: &FailureSignal) -> Self {
        let mut evidence = Self {
            headers: signal
                .headers
                .iter()
                .map(|(k, v)| (k.to_ascii_lowercase(), v.trim().to_owned()))
                .collect(),
            body: signal.body.as_deref().map(|body| head(body, MAX_INPUT_BYTES).to_owned()),
            ..Self::default()
        };
        for stop in [&signal.finish_reason, &signal.stop_reason].into_iter().flatten() {
            evidence.stops.push(squeeze(head(stop, MAX_CODE_BYTES)));
        }
        if let Some(kind) =
            evidence.headers.get("x-amzn-errortype").or_else(|| evidence.headers.get("x-ms-error-code"))
        {
            let name = kind.split(':').next().unwrap_or_default();
            evidence.codes.push(squeeze(head(name, MAX_CODE_BYTES)));
        }
        for text in [&signal.body, &signal.exception].into_iter().flatten() {
            let text = head(text, MAX_INPUT_BYTES);
            evidence.tool_result |= reports_tool_error(text);
            scan(text, &mut evidence);
        }
        if evidence.prose.len() > MAX_PROSE_BYTES {
            let cut = evidence.prose.floor_char_boundary(MAX_PROSE_BYTES);
            evidence.prose.truncate(cut);
        }
        evidence.raw.push_str(&evidence.prose);
        evidence.prose = without_idioms(tidy(&evidence.prose));
        evidence.note_spoken_codes();
        evidence.named = Named::by(&evidence.codes);
        evidence.heard = Heard::listen(&evidence.prose);
        evidence.status = status::effective(signal.http_status, evidence.inner_status, &evidence.prose);
        evidence
    }

    fn say(&mut self, text: &str) {
        if self.message.is_empty() && text.chars().filter(|c| c.is_alphabetic()).nth(3).is_some() {
            self.message = head(text, 512).to_owned();
        }
        if self.prose.len() < MAX_PROSE_BYTES {
            self.prose.push_str(head(text, MAX_PROSE_BYTES));
            self.prose.push(' ');
        }
    }

    fn note_spoken_codes(&mut self) {
        for code in spoken::codes(&self.prose) {
            self.note_code(&code);
        }
        self.stops.extend(spoken::stops(&self.prose).map(squeeze));
        self.names = spoken::names(&self.message, &self.prose);
    }

    fn note_code(&mut self, value: &str) {
        if value.len() <= MAX_CODE_BYTES && self.codes.len() < MAX_FACTS {
            // `type.googleapis.com/google.rpc.X`, `com.example#X` and `Redis::Lock::X` name the error in their last part.
            let name = value.rsplit(['/', '#']).next().unwrap_or(value);
            let class = name.rsplit([':', '.']).next().filter(|part| part.starts_with(char::is_uppercase));
            let code = squeeze(class.unwrap_or(name));
            if !code.is_empty() && code != "null" && code != "none" {
                self.raw.push_str(class.unwrap_or(name));
                self.raw.push(' ');
                self.codes.push(code);
            }
        }
    }
}

impl Sink for Evidence {
    fn pair(&mut self, key: &str, value: &str, quoted: bool) {
        let key = squeeze(key);
        let missing = matches!(value, "null" | "None" | "undefined" | "nil" | "");
        if missing {
            return;
        }
        if self.fields.len() < MAX_FACTS {
            self.fields.push((key.clone(), head(value, MAX_CODE_BYTES).to_owned()));
        }
        let name = key.as_str();
        if STATUS_KEYS.contains(&name) && self.inner_status.is_none_or(status::is_vague) {
            let status = value.trim().parse().ok().filter(|status| (400..=599).contains(status));
            self.inner_status = match self.inner_status {
                Some(outer) => status.filter(|inner| status::explains(outer, *inner)).or(Some(outer)),
                None => status,
            };
        }
        if EXIT_KEYS.contains(&name) && self.exit_code.is_none() {
            self.exit_code = value.trim().parse().ok();
        }
        let tells_stop = STOP_KEYS.contains(&name)
            || (name == "reason" && INCOMPLETE_REASONS.contains(&squeeze(head(value, 32)).as_str()));
        if tells_stop && self.stops.len() < MAX_FACTS {
            self.stops.push(squeeze(head(value, MAX_CODE_BYTES)));
        } else if name == "refusal" && quoted {
            self.stops.push("refusal".to_owned());
        } else if ECHO_KEYS.contains(&name) && !(self.tool_result && matches!(name, "text" | "content")) {
            if self.said.len() < MAX_CODE_BYTES * 8 {
                self.said.push_str(&tidy(head(value, MAX_CODE_BYTES * 4)));
                self.said.push(' ');
            }
        } else {
            // Databases print their five-digit states as text; a bare number of that length is somebody else's.
            let state = quoted || value.len() != 5;
            if state && (CODE_KEYS.contains(&name) || name.ends_with("code")) {
                self.note_code(value);
            }
            // A lone machine word is a code and not a sentence.
            let sentence =
                value.contains(char::is_whitespace) || !value.is_ascii() || MESSAGE_KEYS.contains(&name);
            let bare_word =
                !quoted && value.starts_with(char::is_alphabetic) && !matches!(value, "true" | "false");
            if (quoted && sentence) || bare_word {
                self.say(value);
            }
        }
    }

    fn prose(&mut self, text: &str) {
        if text.bytes().any(|b| b.is_ascii_alphanumeric() || b >= 0x80) {
            self.say(text);
        }
    }

    fn may_open(&self, key: &str, value: &str) -> bool {
        let key = squeeze(key);
        // A client that prints `content=b'{"error": …}'` shows the response and not the prompt.
        !ECHO_KEYS.contains(&key.as_str()) || self.tool_result || head(value, 40).contains("\"error\"")
    }
}

/// Some servers report a failure in words only and leave the flag at false.
fn reports_tool_error(text: &str) -> bool {
    let Some(at) = text.find("isError").or_else(|| text.find("is_error")) else { return false };
    let starts_with_error = || {
        let said = text.split_once("\"text\":").map(|(_, said)| said.trim_start());
        said.is_some_and(|said| said.starts_with("\"Error"))
    };
    head(&text[at..], 20).to_ascii_lowercase().contains("true") || starts_with_error()
}

/// The first `limit` bytes, cut at a character boundary.
pub(super) fn head(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// Letters and digits in lower case: `RESOURCE_EXHAUSTED`, `resource-exhausted` and `ResourceExhausted` are one code.
pub(super) fn squeeze(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let letters = text.chars().filter(|c| c.is_alphanumeric());
    letters.for_each(|letter| push_lower(&mut out, letter));
    out
}

/// Drops what is said in brackets not to be the matter: "limiting requests (not your usage limit)".
fn without_denials(mut prose: String) -> String {
    const DENIAL: &str = "(not your ";
    while let Some(start) = prose.find(DENIAL) {
        let end = prose[start..].find(')').map_or(start + DENIAL.len(), |at| start + at + 1);
        prose.replace_range(start..end, "");
    }
    prose
}

/// Drops or replaces a word that does not mean what it means elsewhere: a context that is not a model's.
fn without_idioms(prose: String) -> String {
    const IDIOMS: &[(&str, &str)] = &[
        ("context deadline", "deadline"),
        ("context cancel", "cancel"),
        ("context was cancel", "was cancel"),
        ("context done", "done"),
        // Of values, and not of callers.
        ("are forbidden", "are invalid"),
    ];
    let mut prose = without_denials(prose);
    for (idiom, plain) in IDIOMS {
        if prose.contains(idiom) {
            prose = prose.replace(idiom, plain);
        }
    }
    // LiteLLM calls whatever it cannot place a connection error, and says behind a dash what it was.
    let cause = prose.split_once("exception - ").is_some_and(|(_, cause)| cause.len() > 3);
    if cause && prose.contains("apiconnectionerror: ") {
        prose = prose.replace("litellm.apiconnectionerror: ", "").replace("apiconnectionerror: ", "");
    }
    prose
}

/// Lower case, plain quotation marks, single spaces, no URLs: their paths are full of words like `rate-limits`.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1);
    for word in text.split_whitespace() {
        let start = out.len();
        for c in word.chars() {
            match c {
                '\u{2018}' | '\u{2019}' | '`' => out.push('\''),
                '\u{201c}' | '\u{201d}' => out.push('"'),
                '\u{2011}'..='\u{2015}' => out.push('-'),
                other => push_lower(&mut out, other),
            }
        }
        if word.contains(':')
            && let Some(at) = out[start..].find("://")
        {
            let kept = out[start..start + at].trim_end_matches("https").trim_end_matches("http").len();
            out.truncate(start + kept);
        }
        if out.len() > start {
            out.push(' ');
        }
    }
    out
}

/// Most of what is said is ASCII, for which no table of Unicode has to be searched.
fn push_lower(out: &mut String, c: char) {
    if c.is_ascii() {
        out.push(c.to_ascii_lowercase());
    } else {
        out.extend(c.to_lowercase());
    }
}

#[cfg(test)]
mod tests {
    use super::Evidence;
    use crate::failure::FailureSignal;

    #[test]
    fn a_prompt_is_not_a_signal() {
        let body = r#"{"error":{"message":"bad field","code":400},"input":"rate limit exceeded {\"code\":\"insufficient_quota\"}"}"#;
        let evidence =
            Evidence::gather(&FailureSignal { body: Some(body.into()), ..FailureSignal::default() });
        assert!(!evidence.prose.contains("rate limit"));
        assert!(!evidence.codes.iter().any(|code| code == "insufficientquota"));
        assert_eq!(evidence.status, Some(400));
    }

    #[test]
    fn header_names_come_in_any_case() {
        let headers = [("Retry-After".to_owned(), " 5 ".to_owned())].into();
        let evidence = Evidence::gather(&FailureSignal { headers, ..FailureSignal::default() });
        assert_eq!(evidence.headers["retry-after"], "5");
    }
}
