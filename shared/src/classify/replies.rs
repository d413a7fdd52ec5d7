//! Replies of mail servers: a number of their own beside HTTP's, and an enhanced one that tells the cause (RFC 3463).

use crate::failure::FailureClass as C;

/// Names that mail clients put before a reply.
const CLIENTS: &[&str] =
    &["smtp", "mailkit", "nodemailer", "sendmail", "phpmailer", "javax.mail", "net/mail"];
/// How much of a text is searched.
const MAX_BYTES: usize = 2048;

/// What the reply of a mail server in (lower-case, single-spaced) prose means, if there is one.
pub(super) fn mail(prose: &str) -> Option<C> {
    let prose = super::evidence::head(prose, MAX_BYTES);
    let (reply, rest) = prose.match_indices(['4', '5']).find_map(|(at, _)| reply_at(prose, at))?;
    match enhanced(rest) {
        Some((kind, subject, detail)) if kind == reply / 100 => Some(by_detail(kind, subject, detail)),
        _ => CLIENTS.iter().any(|name| prose.contains(name)).then(|| by_reply(reply))?,
    }
}

/// The same, where the server names the cause and says that it passes: that counts for more than what is said beside it.
pub(super) fn passing(prose: &str) -> Option<C> {
    let prose = super::evidence::head(prose, MAX_BYTES);
    let (reply, rest) = prose.match_indices('4').find_map(|(at, _)| reply_at(prose, at))?;
    let (kind, subject, detail) = enhanced(rest)?;
    (kind == 4 && reply / 100 == 4).then(|| by_detail(kind, subject, detail))
}

/// A reply's number and what follows it: "550 5.1.1 …", "(535, b'5.7.8 …", "452-4.2.2 …".
fn reply_at(prose: &str, at: usize) -> Option<(u16, &str)> {
    let digits = prose.get(at..at + 3)?;
    let rest = &prose[at + 3..];
    let apart = !prose[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        && rest.starts_with([' ', '-', ',', ':']);
    (apart && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok().map(|reply| (reply, rest)))?
}

/// The three parts of an enhanced code right behind a reply.
fn enhanced(rest: &str) -> Option<(u16, u16, u16)> {
    let word = rest.trim_start_matches([' ', '-', ',', ':', 'b', '\'', '"', '#', '(', '<']);
    let mut parts = word.split(|c: char| !c.is_ascii_digit() && c != '.').next()?.split('.');
    let mut part = || parts.next()?.parse().ok();
    Some((part()?, part()?, part()?))
}

fn by_detail(kind: u16, subject: u16, detail: u16) -> C {
    match (kind, subject, detail) {
        (4, 7, 28) => C::RateLimited,
        (4, 4, _) => C::Network,
        (4, ..) => C::Overloaded,
        (_, 7, 0 | 8 | 9 | 57) => C::Auth,
        (_, 7, _) => C::Permission,
        (_, 2 | 3, 3 | 4) | (_, 5, _) | (_, 6, _) => C::InvalidRequest,
        _ => C::BusinessRule,
    }
}

fn by_reply(reply: u16) -> Option<C> {
    Some(match reply {
        530 | 534 | 535 | 538 => C::Auth,
        500..=504 | 555 => C::InvalidRequest,
        421 | 450..=459 => C::Overloaded,
        521 | 550..=554 | 556 => C::BusinessRule,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{mail, passing};
    use crate::failure::FailureClass as C;

    #[test]
    fn a_reply_that_passes_says_so_itself() {
        assert_eq!(passing("450 4.2.0 <a@b.c>: recipient address rejected: greylisted"), Some(C::Overloaded));
        assert_eq!(passing("550 5.1.1 recipient address rejected"), None);
        assert_eq!(passing("smtp: 451 try again later"), None);
    }

    #[test]
    fn replies_are_told_from_statuses() {
        for (prose, want) in [
            ("550 5.1.1 the email account that you tried to reach does not exist", Some(C::BusinessRule)),
            ("smtplib.smtpauthenticationerror: (535, b'5.7.8 username and password", Some(C::Auth)),
            ("smtplib.smtpdataerror: (550, b'mail rejected')", Some(C::BusinessRule)),
            ("452-4.2.2 the recipient's inbox is out of storage", Some(C::Overloaded)),
            ("552 5.3.4 message size exceeds limit", Some(C::InvalidRequest)),
            ("554 5.7.1 client host blocked", Some(C::Permission)),
            ("error code: 429 - too many", None),
            ("503 service unavailable", None),
            ("status 500, version 5.1.1", None),
        ] {
            assert_eq!(mail(prose), want, "{prose}");
        }
    }
}
