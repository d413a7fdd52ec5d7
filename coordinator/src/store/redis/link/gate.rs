//! Values that are let in by a script that has not seen them.
//!
//! ```text
//!  MULTI
//!  SET gate 1                        shut
//!  EVALSHA …                         compares; if all is well does what belongs to the values, removes those that they
//!                                    replace, and at last the gate
//!  MSETNX gate 1 key value …         lets all of them in, or, where the gate or one of their keys is there, none
//!  EXEC
//! ```
//!
//! A script that is missing, fails or declines leaves the gate shut. What Redis refuses beforehand (memory, a replica, slots
//! on the move) it refuses as a whole. So either everything was done or nothing.

use redis::{Cmd, Pipeline, RedisError, Value};

use super::fault;

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
    let command = pipe.cmd("MSETNX").arg(gate).arg(1);
    for (key, value) in values {
        command.arg(key).arg(*value);
    }
    pipe.cmd("EXEC").ignore_errors();
    pipe
}

/// What became of it.
pub(super) fn outcome(mut replies: Vec<Value>) -> Outcome {
    let Some(Value::Array(executed)) = replies.pop() else { return Outcome::Refused };
    let Ok([_, script, written]) = <[Value; 3]>::try_from(executed) else { return Outcome::Refused };
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
