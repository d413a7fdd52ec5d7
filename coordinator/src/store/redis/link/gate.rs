//! Values that are let in by a script that has not seen them.
//!
//! ```text
//!  MULTI
//!  SET gate 1                        shut
//!  EVALSHA …                         compares; if all is well does what belongs to the values, removes those that they
//!                                    replace, and at last the gate
//!  MSETNX gate 1 key value …         lets all of them in, or, where the gate or one of their keys is there, none
//!  DEL gate
//!  EXEC
//! ```
//!
//! A script that is missing, fails or declines leaves the gate shut. What Redis refuses beforehand (memory, a replica, slots
//! on the move) it refuses as a whole. So either everything was done or nothing. Each coordinator has a gate of its own.

use std::sync::atomic::{AtomicU8, Ordering};

use redis::{Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};

use super::fault;

/// Whether the user may use transactions. Without them values go through scripts: slower, and otherwise the same.
#[derive(Debug, Default)]
pub(super) struct Transactions(AtomicU8);

impl Transactions {
    const ALLOWED: u8 = 1;
    const FORBIDDEN: u8 = 2;

    /// None: not known yet.
    pub(super) fn allowed(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            Self::ALLOWED => Some(true),
            Self::FORBIDDEN => Some(false),
            _ => None,
        }
    }

    /// What `MULTI` was answered. Another error than one of permission says nothing.
    pub(super) fn learn(&self, multi: Option<&Value>) {
        let now = match multi {
            Some(Value::ServerError(error)) => match RedisError::from(error.clone()).kind() {
                ErrorKind::Server(ServerErrorKind::NoPerm | ServerErrorKind::ResponseError) => {
                    Self::FORBIDDEN
                }
                _ => return,
            },
            Some(_) => Self::ALLOWED,
            None => return,
        };
        if self.0.swap(now, Ordering::Relaxed) != now && now == Self::FORBIDDEN {
            tracing::warn!(
                "the store's user may not use MULTI: writes are slower; see the ACL rule of docs/redis.md"
            );
        }
    }
}

/// Asks for a transaction that does nothing.
pub(super) fn probe(gate: &str) -> Pipeline {
    let mut pipe = redis::pipe();
    pipe.cmd("MULTI").cmd("GET").arg(gate).cmd("EXEC").ignore_errors();
    pipe
}

pub(super) enum Outcome {
    Done(Value),
    Refused,
    NoScript,
    Failed(RedisError),
}

/// The transaction.
pub(super) fn transaction(script: &Cmd, gate: &str, values: &[(String, &[u8])]) -> Pipeline {
    let mut pipe = redis::pipe();
    pipe.cmd("MULTI");
    pipe.cmd("SET").arg(gate).arg(1);
    pipe.add_command(script.clone());
    let bytes: usize = values.iter().map(|(key, value)| key.len() + value.len()).sum();
    let mut command = Cmd::with_capacity(values.len() * 2 + 3, bytes + gate.len() + 16);
    command.arg("MSETNX").arg(gate).arg(1);
    for (key, value) in values {
        command.arg(key).arg(*value);
    }
    pipe.add_command(command);
    pipe.cmd("DEL").arg(gate);
    pipe.cmd("EXEC").ignore_errors();
    pipe
}

/// What became of it.
pub(super) fn outcome(mut replies: Vec<Value>) -> Outcome {
    let last = replies.pop();
    let executed = match (replies.first(), last) {
        // Not in a transaction, but done, one by one: that was forbidden in this moment, and is not tried again.
        (Some(Value::ServerError(_)), _) => replies.into_iter().skip(1).collect(),
        (_, Some(Value::Array(executed))) => executed,
        _ => return Outcome::Refused,
    };
    let Ok([_, script, written, _]) = <[Value; 4]>::try_from(executed) else { return Outcome::Refused };
    match (script.extract_error(), written) {
        (Err(error), _) if fault::no_script(&error) => Outcome::NoScript,
        (Err(error), _) => Outcome::Failed(error),
        (Ok(Value::Int(0)), _) => Outcome::Refused,
        (Ok(reply), Value::Int(1)) => Outcome::Done(reply),
        (Ok(_), other) => Outcome::Failed(other.extract_error().err().unwrap_or_else(|| {
            redis::make_extension_error("ERR".into(), Some("a gate stayed shut that a script opened".into()))
        })),
    }
}
