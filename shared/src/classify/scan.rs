//! A lenient reader of error text.
//!
//! Error bodies reach us as JSON, as JSON inside a JSON string, as a Python `repr`, as a Node inspect dump, cut off in the
//! middle or hard-wrapped by a terminal. A strict parser refuses most of those, so this one never refuses: it walks over the
//! text, reports each `key: value` pair that it can make out, and hands everything that is not a pair to the prose.

/// How many strings inside strings are opened. Real wrappers stack three or four; the bound keeps hostile input cheap.
const MAX_DEPTH: usize = 6;

/// Longest word that can be a key; longer quoted text before a colon is prose.
const MAX_KEY_BYTES: usize = 48;

/// Receives what [`scan`] finds, in the order of the text.
pub(super) trait Sink {
    /// A pair; `quoted` tells a string from a number or a bare word. The value is unescaped.
    fn pair(&mut self, key: &str, value: &str, quoted: bool);
    /// Text that belongs to no key.
    fn prose(&mut self, text: &str);
    /// Whether a string under this key may be opened to look for pairs inside. The user's own words must stay closed.
    fn may_open(&self, key: &str, value: &str) -> bool;
}

/// Walks over `text` and reports to `sink`. Linear in the length of the text for each of the at most six levels.
pub(super) fn scan(text: &str, sink: &mut dyn Sink) {
    Scanner {
        text,
        bytes: text.as_bytes(),
        at: 0,
        plain_from: 0,
        open_braces: 0,
        unclosed: [false; 2],
        depth: 0,
    }
    .run(sink);
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// Start of the prose that has not been handed over yet.
    plain_from: usize,
    open_braces: usize,
    /// Per quote character: a search for its end has failed, so that all later ones would fail as well.
    unclosed: [bool; 2],
    depth: usize,
}

impl<'a> Scanner<'a> {
    fn run(mut self, sink: &mut dyn Sink) {
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'"' | b'\'' => self.quoted(byte, sink),
                b'\\'
                    if matches!(self.bytes.get(self.at + 1), Some(b'"' | b'\\'))
                        && self.depth < MAX_DEPTH =>
                {
                    // Escaped quotes outside a string: the head of the string was cut off, so open the rest as its inside.
                    self.flush(self.at, sink);
                    let inside = unescape(&self.text[self.at..]);
                    return self.descend(&inside, sink);
                }
                b'{' | b'[' | b'(' => self.brace(1, sink),
                b'}' | b']' | b')' => self.brace(-1, sink),
                b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' => self.word(sink),
                _ => self.at += 1,
            }
        }
        self.flush(self.bytes.len(), sink);
    }

    fn brace(&mut self, step: isize, sink: &mut dyn Sink) {
        if self.bytes[self.at] != b'(' && self.bytes[self.at] != b')' {
            self.flush(self.at, sink);
            self.open_braces = self.open_braces.saturating_add_signed(step);
            self.plain_from = self.at + 1;
        }
        self.at += 1;
    }

    /// A quoted string: a key, a lone string, or a stray quotation mark.
    fn quoted(&mut self, quote: u8, sink: &mut dyn Sink) {
        let start = self.at;
        if quote == b'\''
            && start > 0
            && self.bytes[start - 1].is_ascii_alphanumeric()
            && !self.is_prefixed(start)
        {
            self.at += 1; // an apostrophe
            return;
        }
        let Some(end) = self.closing(start, quote) else {
            self.at += 1;
            return;
        };
        let content = &self.text[start + 1..end];
        if let Some(colon) = self.separator(end + 1)
            && is_key(content)
            && (self.open_braces > 0 || self.value_is_quoted(colon))
        {
            self.flush(start, sink);
            self.at = colon;
            self.value(content, sink);
            self.plain_from = self.at;
            return;
        }
        self.at = end + 1;
        if content.contains(['{', '\\']) && self.depth < MAX_DEPTH && sink.may_open("", content) {
            self.flush(start, sink);
            self.descend(&unescape(content), sink);
            self.plain_from = self.at;
        }
    }

    /// A bare word: a key in a Node dump or a query-like `name='value'`, or plain prose.
    fn word(&mut self, sink: &mut dyn Sink) {
        let start = self.at;
        while self
            .bytes
            .get(self.at)
            .is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'$'))
        {
            self.at += 1;
        }
        let word = &self.text[start..self.at];
        if let Some(colon) = self.separator(self.at)
            && is_key(word)
            && (self.open_braces > 0 || self.value_is_quoted(colon))
        {
            self.flush(start, sink);
            self.at = colon;
            self.value(word, sink);
            self.plain_from = self.at;
        }
    }

    /// Reads the value at `self.at` and reports the pair. Objects and arrays are left to the main loop.
    fn value(&mut self, key: &str, sink: &mut dyn Sink) {
        let start = self.quote_start(self.at).unwrap_or(self.at);
        match self.bytes.get(start) {
            Some(&quote @ (b'"' | b'\'')) => {
                // A value without an end is one that was cut off: take what there is.
                let end = self.closing(start, quote).unwrap_or(self.bytes.len());
                let content = &self.text[start + 1..end];
                self.at = (end + 1).min(self.bytes.len());
                self.string(key, content, sink);
            }
            Some(b'{' | b'[' | b'(') | None => {}
            Some(_) => {
                let rest = &self.text[start..];
                let length = rest.find([',', '}', ']', ')', '\n', ' ', ';']).unwrap_or(rest.len());
                sink.pair(key, &rest[..length], false);
                self.at = start + length;
            }
        }
    }

    fn string(&self, key: &str, content: &str, sink: &mut dyn Sink) {
        let value = unescape(content);
        let nested = value.contains('{') || (value.contains(':') && value.contains(['"', '\'']));
        if nested && self.depth < MAX_DEPTH && sink.may_open(key, &value) {
            self.descend(&value, sink);
        } else {
            sink.pair(key, &value, true);
        }
    }

    fn descend(&self, text: &str, sink: &mut dyn Sink) {
        let inner = Scanner {
            text,
            bytes: text.as_bytes(),
            at: 0,
            plain_from: 0,
            open_braces: 0,
            unclosed: [false; 2],
            depth: self.depth + 1,
        };
        inner.run(sink);
    }

    fn flush(&mut self, until: usize, sink: &mut dyn Sink) {
        if self.plain_from < until {
            sink.prose(&self.text[self.plain_from..until]);
        }
        self.plain_from = until;
    }

    /// Index after a `:`, `=` or `=>` that follows at `from`, whitespace skipped on both sides.
    fn separator(&self, from: usize) -> Option<usize> {
        let at = self.skip_space(from);
        match self.bytes.get(at)? {
            b':' if self.bytes.get(at + 1) != Some(&b':') && self.bytes.get(at + 1) != Some(&b'/') => {
                Some(self.skip_space(at + 1))
            }
            b'=' if self.bytes.get(at + 1) == Some(&b'>') => Some(self.skip_space(at + 2)),
            b'=' => Some(self.skip_space(at + 1)),
            _ => None,
        }
    }

    fn skip_space(&self, from: usize) -> usize {
        let spaces =
            self.bytes[from.min(self.bytes.len())..].iter().take_while(|b| b.is_ascii_whitespace()).count();
        from + spaces
    }

    fn value_is_quoted(&self, at: usize) -> bool {
        self.quote_start(at).is_some()
    }

    /// The quotation mark at `at`, allowing for the one-letter prefixes of Python literals.
    fn quote_start(&self, at: usize) -> Option<usize> {
        match self.bytes.get(at)? {
            b'"' | b'\'' => Some(at),
            b'b' | b'u' | b'r' | b'f' if matches!(self.bytes.get(at + 1), Some(b'"' | b'\'')) => Some(at + 1),
            _ => None,
        }
    }

    /// Whether the quotation mark at `at` follows a Python prefix such as `b'…'` rather than a word.
    fn is_prefixed(&self, at: usize) -> bool {
        let letter = matches!(self.bytes.get(at.wrapping_sub(1)), Some(b'b' | b'u'));
        letter && (at < 2 || !self.bytes[at - 2].is_ascii_alphanumeric())
    }

    /// Index of the quotation mark that ends the string which starts at `start`.
    fn closing(&mut self, start: usize, quote: u8) -> Option<usize> {
        let which = usize::from(quote == b'\'');
        if self.unclosed[which] {
            return None;
        }
        let mut at = start + 1;
        while let Some(&byte) = self.bytes.get(at) {
            if byte == b'\\' {
                at += 2;
                continue;
            }
            let apostrophe =
                quote == b'\'' && self.bytes.get(at + 1).is_some_and(|next| next.is_ascii_alphanumeric());
            if byte == quote && !apostrophe {
                return Some(at);
            }
            at += 1;
        }
        self.unclosed[which] = true;
        None
    }
}

fn is_key(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_KEY_BYTES
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'@' | b'$' | b':'))
}

/// Undoes one level of backslash escapes. Unknown ones lose their backslash; `\u` is decoded where it is a whole character.
fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n' | 'r' | 't') => out.push('\n'),
            Some('u') => {
                let code = chars.as_str().get(..4).and_then(|hex| u32::from_str_radix(hex, 16).ok());
                if let Some(decoded) = code.and_then(char::from_u32) {
                    out.push(decoded);
                    chars = chars.as_str()[4..].chars();
                }
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{MAX_DEPTH, Sink, scan};

    #[derive(Default)]
    struct Pairs(Vec<(String, String)>, String);

    impl Sink for Pairs {
        fn pair(&mut self, key: &str, value: &str, _quoted: bool) {
            self.0.push((key.to_owned(), value.to_owned()));
        }
        fn prose(&mut self, text: &str) {
            self.1.push_str(text);
        }
        fn may_open(&self, key: &str, _value: &str) -> bool {
            key != "prompt"
        }
    }

    fn pairs(text: &str) -> Pairs {
        let mut found = Pairs::default();
        scan(text, &mut found);
        found
    }

    fn value_of(text: &str, key: &str) -> Option<String> {
        pairs(text).0.into_iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    #[test]
    fn the_same_pair_is_read_from_every_dialect() {
        for text in [
            r#"{"error":{"code":"boom"}}"#,
            r#"{"error":"{\"code\":\"boom\"}"}"#,
            r"Error code: 429 - {'error': {'code': 'boom'}}",
            r"{ error: { code: 'boom' } }",
            r#"{\"error\":{\"code\":\"boom\"}}"#,
            r#"body: b'{"code": "boom"}'"#,
            r#"{"error":{"code":"boom"#,
            r#"{"a":"{\"b\":\"{\\\"code\\\":\\\"boom\\\"}\"}"}"#,
        ] {
            assert_eq!(value_of(text, "code").as_deref(), Some("boom"), "{text}");
        }
    }

    #[test]
    fn prose_stays_prose() {
        let found = pairs("Can't open '/a/b.lock': File exists. It isn't ours");
        assert!(found.0.is_empty(), "{:?}", found.0);
        assert!(found.1.contains("/a/b.lock"));
    }

    #[test]
    fn nesting_stops_at_the_bound() {
        let mut text = "{\"code\":\"deep\"}".to_owned();
        for _ in 0..=MAX_DEPTH + 2 {
            text = format!("{{\"m\":{}}}", serde_json::Value::String(text));
        }
        assert_eq!(value_of(&text, "code"), None);
    }
}
