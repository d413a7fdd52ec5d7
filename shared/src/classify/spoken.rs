//! Codes in the middle of sentences: somebody printed an error and its number, or its name, as part of a line of text.

use super::evidence::squeeze;

/// How many of a text's words are noted as codes.
const MAX_CODES: usize = 64;
/// How many names of errors are noted.
const MAX_NAMES: usize = 16;
/// A single word in parentheses from this length on is a name; shorter ones are words like "(requests)".
const MIN_NAME_BYTES: usize = 10;

/// Codes in (lower-case, single-spaced) prose: `rate_limit_exceeded`, `ThrottlingException`, `SQLSTATE[40001]`, `ORA-00060`,
/// `code = Unavailable`, `(AlreadyExists)`. Numbers that only one kind of server counts by get its name in front: `mysql1213`.
pub(super) fn codes(prose: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (start, word) in words(prose) {
        if found.len() >= MAX_CODES {
            break;
        }
        let rest = &prose[start + word.len()..];
        if word.trim_matches('_').contains('_')
            || word.ends_with("exception")
            || in_parentheses(prose, start, word)
        {
            found.push(word.to_owned());
        }
        if word.ends_with("code") {
            found.extend(assigned(rest).map(str::to_owned));
        }
        found.extend(numbered(prose, start, word, rest));
    }
    // The AWS SDKs print "An error occurred (SlowDown) when calling …", names of any length.
    let aws = prose.split_once("an error occurred (").and_then(|(_, rest)| rest.split_once(')'));
    found.extend(aws.map(|(name, _)| name.to_owned()));
    found
}

/// How a generation ended, where a client prints "Unhandled stop reason: X".
pub(super) fn stops(prose: &str) -> impl Iterator<Item = &str> {
    let reasons = ["stop reason", "stop_reason", "finish reason", "finish_reason"].into_iter();
    reasons.filter_map(|reason| prose.split_once(reason).and_then(|(_, rest)| assigned(rest)))
}

/// Names of errors: the word at the start of the first thing that is said, and words such as `ConflictError`.
pub(super) fn names(message: &str, prose: &str) -> Vec<String> {
    let first = message.split_whitespace().next().unwrap_or_default();
    let first = first.trim_end_matches(':').rsplit(['.', ':', '\\', '/']).next().unwrap_or_default();
    let named = words(prose).map(|(_, word)| word);
    let errors = named.filter(|word| word.len() >= MIN_NAME_BYTES && word.ends_with("error")).map(squeeze);
    std::iter::once(squeeze(first)).chain(errors).take(MAX_NAMES).collect()
}

/// Runs of letters, digits and underscores, with the place where they start.
fn words(prose: &str) -> impl Iterator<Item = (usize, &str)> {
    let outside = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let start = |word: &str| word.as_ptr().addr() - prose.as_ptr().addr();
    prose.split(outside).filter(|word| !word.is_empty()).map(move |word| (start(word), word))
}

fn in_parentheses(prose: &str, start: usize, word: &str) -> bool {
    word.len() >= MIN_NAME_BYTES
        && prose[..start].ends_with('(')
        && prose[start + word.len()..].starts_with(')')
        && word.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_')
}

/// The word behind "code = ", if it is one.
fn assigned(rest: &str) -> Option<&str> {
    let value = rest.trim_start().strip_prefix(['=', ':'])?.trim_start();
    let word = value.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()?;
    (word.len() > 3 && word.starts_with(|c: char| c.is_ascii_alphabetic())).then_some(word)
}

/// Numbers of databases, told by how they are printed.
fn numbered(prose: &str, start: usize, word: &str, rest: &str) -> Option<String> {
    let digits = word.bytes().all(|b| b.is_ascii_digit());
    match word {
        "ora" => rest.strip_prefix('-').and_then(|rest| rest.get(..5)).map(|number| format!("ora{number}")),
        "sqlstate" => {
            let code = rest.trim_start_matches([' ', '[', ':', '=', '(', '"', '\'']).get(..5)?;
            code.bytes().all(|b| b.is_ascii_alphanumeric()).then(|| code.to_owned())
        }
        // "(1213, 'Deadlock found …')" and "ERROR 1213 (40001): …".
        _ if digits && word.len() == 4 => {
            let tuple = prose[..start].ends_with('(') && rest.starts_with([',']);
            let line = prose[..start].ends_with("error ") && rest.starts_with(" (");
            if tuple || line {
                return Some(format!("mysql{word}"));
            }
            sql_server(prose, start, word)
        }
        _ if digits && word.len() == 5 => sql_server(prose, start, word),
        _ => None,
    }
}

/// "Error Number:1222,State:51" and "Msg 1205, Level 13".
fn sql_server(prose: &str, start: usize, word: &str) -> Option<String> {
    let before = prose[..start].trim_end();
    (before.ends_with("error number:") || before.ends_with("msg")).then(|| format!("mssql{word}"))
}

#[cfg(test)]
mod tests {
    use super::{codes, names, stops};

    #[test]
    fn codes_are_heard_in_sentences() {
        for (prose, want) in [
            ("it said rate_limit_exceeded to us", "rate_limit_exceeded"),
            ("sqlstate[40001]: serialization failure", "40001"),
            ("error: went wrong (sqlstate 55p03)", "55p03"),
            ("ora-12541: tns:no listener", "ora12541"),
            ("pymysql.err.operationalerror: (1213, 'deadlock')", "mysql1213"),
            ("error 1040 (hy000): too many connections", "mysql1040"),
            ("error number:1222,state:51", "mssql1222"),
            ("rpc error: code = alreadyexists desc = x", "alreadyexists"),
            ("error from server (alreadyexists): pods", "alreadyexists"),
            ("an error occurred (slowdown) when calling", "slowdown"),
        ] {
            assert_eq!(codes(prose), [want], "{prose}");
        }
        for prose in
            ["too many (requests)", "exit code: 7", "it took 1213 ms", "(1, 2)", "ora-", "sqlstate ab"]
        {
            assert!(codes(prose).is_empty(), "{prose}");
        }
    }

    #[test]
    fn stop_reasons_are_heard_in_sentences() {
        let of = |prose: &'static str| stops(prose).collect::<Vec<_>>();
        assert_eq!(of("unhandled stop reason: malformed_response"), ["malformed_response"]);
        assert!(of("the stop reason was not given").is_empty());
    }

    #[test]
    fn names_are_taken_from_the_start_and_from_errors() {
        assert_eq!(names("PG::ConnectionBad: x", ""), ["connectionbad"]);
        assert_eq!(names("Oops", "oops: a conflicterror came"), ["oops", "conflicterror"]);
    }
}
