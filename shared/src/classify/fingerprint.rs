//! One outage, one fingerprint: the hash of what stays the same when an outage hits a thousand tasks.

use sha2::{Digest, Sha256};

use crate::failure::FailureClass;

/// How much of the normalised message counts. Beyond it come traces and dumps.
const MAX_NORMAL_BYTES: usize = 256;

/// First 16 hexadecimal digits of SHA-256 over class and normalised message, and then over that and the dependency.
pub(super) fn fingerprint(class: FailureClass, dependency: Option<&str>, message: &str) -> String {
    let base = hash([class.as_str(), &normalise(message)]);
    match dependency {
        Some(dependency) => at_dependency(&base, dependency),
        None => base,
    }
}

/// The fingerprint of a failure that was classified before its dependency was known.
pub fn at_dependency(fingerprint: &str, dependency: &str) -> String {
    hash([fingerprint, dependency])
}

fn hash(parts: [&str; 2]) -> String {
    let mut hash = Sha256::new();
    // NUL keeps ("a", "bc") and ("ab", "c") apart.
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digits = hash.finalize().iter().take(8).fold(0_u64, |digits, byte| digits << 8 | u64::from(*byte));
    format!("{digits:016x}")
}

/// Drops what differs from one occurrence to the next: quoted text, paths, URLs, and every word with a digit in it.
fn normalise(message: &str) -> String {
    let mut out = String::new();
    for word in without_quotes(message).to_lowercase().split_whitespace() {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric() && c != '/' && c != '\\');
        let variable =
            word.contains(['/', '\\', '@', '*']) || word.chars().any(|c| c.is_ascii_digit()) || is_hex(word);
        if word.is_empty() || variable {
            continue;
        }
        if out.len() + word.len() > MAX_NORMAL_BYTES {
            break;
        }
        out.push_str(word);
        out.push(' ');
    }
    out
}

/// Eight or more letters a–f are an id that happens to have no digit.
fn is_hex(word: &str) -> bool {
    word.len() >= 8 && word.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// Replaces text between quotation marks by a space. An apostrophe inside a word opens nothing.
fn without_quotes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        let opens = matches!(c, '"' | '`') || (c == '\'' && !before.is_alphanumeric());
        before = c;
        match opens.then(|| rest.find(c)).flatten() {
            Some(end) => {
                out.push(' ');
                rest = &rest[end + c.len_utf8()..];
            }
            None => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{fingerprint, normalise};
    use crate::failure::FailureClass as C;

    #[test]
    fn one_outage_with_different_ids_is_one_fingerprint() {
        let first =
            "Model `gpt-4o` failed for req_011CXF in '/tmp/a/b.json' (id 3d20d141-88c4), see https://x.y/z";
        let second =
            "Model `o3` failed for req_9Zq77 in '/var/c.json' (id deadbeef-11), see https://x.y/q?r=1";
        assert_eq!(
            fingerprint(C::ServerError, Some("a"), first),
            fingerprint(C::ServerError, Some("a"), second)
        );
        assert_eq!(normalise(first), "model failed for in id see ");
    }

    #[test]
    fn class_dependency_and_words_tell_outages_apart() {
        let one = fingerprint(C::ServerError, Some("a"), "boom");
        assert_eq!(one.len(), 16);
        assert!(one.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(one, fingerprint(C::Overloaded, Some("a"), "boom"));
        assert_ne!(one, fingerprint(C::ServerError, Some("b"), "boom"));
        assert_ne!(one, fingerprint(C::ServerError, Some("a"), "bang"));
        assert_ne!(fingerprint(C::Unknown, None, "ab"), fingerprint(C::Unknown, Some("ab"), ""));
    }

    #[test]
    fn the_value_is_stable_across_releases() {
        // Stored clusters refer to it: if this number changes, old and new failures no longer meet.
        assert_eq!(fingerprint(C::Timeout, None, "Request timed out."), "d120249fe3f2ab00");
    }

    #[test]
    fn apostrophes_and_stray_quotes_do_not_swallow_text() {
        assert_eq!(normalise("can't reach it's \"host\" now"), "can't reach it's now ");
        assert_eq!(normalise("an open \" quote"), "an open quote ");
    }
}
