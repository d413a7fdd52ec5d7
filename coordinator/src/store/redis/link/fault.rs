//! What went wrong with Redis, as the store tells it.

use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::StoreError;

/// The script is not loaded.
pub(super) fn no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// The connection is broken, or leads to a server that must not be written to: find the master again.
pub(super) fn is_suspicious(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Io
        | ErrorKind::Parse
        | ErrorKind::AuthenticationFailed
        | ErrorKind::ClusterConnectionNotFound
        | ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => true,
        // Seen on one that was demoted or rebuilt while this connection lived.
        _ => {
            matches!(error.code(), Some("NOAUTH" | "UNBLOCKED"))
                || error.detail().and_then(code_inside).is_some_and(|code| code == "READONLY")
        }
    }
}

/// An error as the store's, with where it happened and what it means.
pub(super) fn explain(at: &str, error: &RedisError) -> StoreError {
    let detail = error.detail().unwrap_or_default();
    let code = error.code().unwrap_or_default();
    let unavailable = |what: &str| StoreError::Unavailable(join(at, what, detail));
    match error.kind() {
        ErrorKind::Server(kind) => match kind {
            ServerErrorKind::BusyLoading => unavailable("still loads its data"),
            ServerErrorKind::ReadOnly => {
                unavailable("is a replica and takes no writes; the master is looked for")
            }
            ServerErrorKind::MasterDown => unavailable("is a replica that has lost its master"),
            ServerErrorKind::ClusterDown => {
                unavailable("the cluster does not serve all of its slots, or has no quorum")
            }
            ServerErrorKind::TryAgain | ServerErrorKind::Ask | ServerErrorKind::Moved => {
                unavailable("the cluster is moving these slots to another node")
            }
            ServerErrorKind::NoPerm => unavailable(
                "the user may not do this; give it an ACL rule with the keys, channels and commands that docs name",
            ),
            ServerErrorKind::NoScript => unavailable("lost a script twice; another client flushes them"),
            ServerErrorKind::CrossSlot => StoreError::Corrupt(join(
                at,
                "keys of one call are in different slots: a defect of Redrive",
                detail,
            )),
            ServerErrorKind::ResponseError
            | ServerErrorKind::ExecAbort
            | ServerErrorKind::NotBusy
            | ServerErrorKind::NoSub
            | _ => by_detail(at, code, detail),
        },
        ErrorKind::Io if error.is_timeout() => {
            StoreError::Unavailable(join(at, "does not answer in time", ""))
        }
        ErrorKind::Io if error.is_connection_refusal() => {
            StoreError::Unavailable(join(at, "refuses connections; is Redis running there?", ""))
        }
        ErrorKind::Io => StoreError::Unavailable(join(at, "the connection broke", &error.to_string())),
        ErrorKind::AuthenticationFailed => unavailable("refuses the user or the password"),
        ErrorKind::RESP3NotSupported => unavailable("does not speak RESP3; Redis 6 or later is needed"),
        ErrorKind::ClusterConnectionNotFound => {
            unavailable("no node of the cluster that has these slots can be reached")
        }
        ErrorKind::UnexpectedReturnType | ErrorKind::Parse => {
            StoreError::Corrupt(join(at, "answered with something unexpected", &error.to_string()))
        }
        _ if code.is_empty() => StoreError::Unavailable(join(at, "failed", &error.to_string())),
        _ => by_detail(at, code, detail),
    }
}

/// Errors that the crate does not tell apart by kind.
fn by_detail(at: &str, code: &str, detail: &str) -> StoreError {
    let unavailable = |what: &str| StoreError::Unavailable(join(at, what, detail));
    match code {
        "OOM" => StoreError::Full(join(
            at,
            "has reached maxmemory; give it more, with maxmemory-policy noeviction",
            "",
        )),
        "BUSY" => unavailable("is busy with somebody's long script"),
        "MISCONF" => unavailable("cannot save to its disk and refuses writes"),
        "NOREPLICAS" => unavailable("has too few replicas in sync to take writes (min-replicas-to-write)"),
        "NOAUTH" => unavailable("asks for a password; put one into the address"),
        "WRONGPASS" => unavailable("refuses the user or the password"),
        "READONLY" => unavailable("is a replica and takes no writes; the master is looked for"),
        "MASTERDOWN" => unavailable("is a replica that has lost its master"),
        "NOGOODSLAVE" | "INPROG" | "UNBLOCKED" => unavailable("a failover is under way"),
        "WRONGTYPE" => StoreError::Corrupt(join(
            at,
            "holds something else under a key of Redrive; give Redrive a database or prefix of its own",
            detail,
        )),
        "" | "ERR" if let Some(inner) = code_inside(detail) => by_detail(at, inner, detail),
        _ if detail.contains("cluster support disabled") => {
            unavailable("is no cluster; the address of one server begins with redis://")
        }
        _ if detail.starts_with("max number of clients") => {
            unavailable("has as many connections as it allows (maxclients)")
        }
        _ if detail.starts_with("invalid password") || detail.starts_with("AUTH") => {
            unavailable("refuses the password")
        }
        "" | "ERR" => StoreError::Corrupt(join(at, "a script or command failed", detail)),
        code => StoreError::Corrupt(join(at, &format!("a script or command failed with {code}"), detail)),
    }
}

/// Before Redis 7 an error of a command inside a script is told as the script's, with its own code in the text.
fn code_inside(detail: &str) -> Option<&'static str> {
    const CODES: [&str; 6] = ["OOM ", "READONLY ", "MISCONF ", "NOREPLICAS ", "MASTERDOWN ", "WRONGTYPE "];
    CODES.into_iter().find(|code| detail.contains(code)).map(str::trim_end)
}

/// Nothing came in time.
pub(super) fn late(at: &str, after: Duration) -> StoreError {
    StoreError::Unavailable(format!("{at} has not answered within {} ms", after.as_millis()))
}

/// What an error says, without the kind that its Display puts before it.
pub(in crate::store::redis) fn text(error: StoreError) -> String {
    match error {
        StoreError::Unavailable(said)
        | StoreError::Full(said)
        | StoreError::NearlyFull(said)
        | StoreError::Corrupt(said)
        | StoreError::Mismatch(said) => said,
    }
}

fn join(at: &str, what: &str, detail: &str) -> String {
    if detail.is_empty() { format!("{at}: {what}") } else { format!("{at}: {what} ({detail})") }
}

#[cfg(test)]
mod tests {
    use redis::{RedisError, ServerErrorKind};

    use super::{explain, is_suspicious};
    use crate::store::StoreError;

    fn known(kind: ServerErrorKind) -> RedisError {
        (kind.into(), "from the server", "detail".to_owned()).into()
    }

    fn other(code: &str, detail: &str) -> RedisError {
        redis::make_extension_error(code.to_owned(), Some(detail.to_owned()))
    }

    #[test]
    fn what_passes_is_unavailable_and_names_the_address() {
        let kinds = [
            ServerErrorKind::BusyLoading,
            ServerErrorKind::ReadOnly,
            ServerErrorKind::MasterDown,
            ServerErrorKind::ClusterDown,
            ServerErrorKind::TryAgain,
            ServerErrorKind::Moved,
            ServerErrorKind::Ask,
            ServerErrorKind::NoPerm,
            ServerErrorKind::NoScript,
        ];
        let codes = ["BUSY", "MISCONF", "NOREPLICAS", "NOAUTH", "WRONGPASS", "UNBLOCKED"];
        let errors = kinds.map(known).into_iter().chain(codes.map(|code| other(code, "detail")));
        for error in errors {
            let told = explain("10.0.0.1:6379", &error);
            let StoreError::Unavailable(said) = &told else { panic!("{error}: {told:?}") };
            assert!(said.starts_with("10.0.0.1:6379: "), "{said}");
            assert!(said.ends_with("(detail)"), "{said}");
        }
    }

    #[test]
    fn memory_and_contents_have_errors_of_their_own() {
        assert!(matches!(explain("h", &other("OOM", "command not allowed")), StoreError::Full(_)));
        let in_script = "user_script:1: OOM command not allowed when used memory > 'maxmemory'.";
        assert!(matches!(explain("h", &other("ERR", in_script)), StoreError::Full(_)));
        assert!(matches!(explain("h", &other("WRONGTYPE", "x")), StoreError::Corrupt(_)));
        assert!(matches!(explain("h", &other("ERR", "user_script:1: boom")), StoreError::Corrupt(_)));
    }

    #[test]
    fn a_demoted_master_is_left_and_a_busy_one_is_not() {
        assert!(is_suspicious(&known(ServerErrorKind::ReadOnly)));
        assert!(is_suspicious(&std::io::Error::from(std::io::ErrorKind::TimedOut).into()));
        assert!(!is_suspicious(&known(ServerErrorKind::BusyLoading)));
        assert!(!is_suspicious(&other("OOM", "")));
    }
}
