//! Writing to replicas.
//!
//! `WAIT` counts the replicas that have all that its own connection wrote. From Redis 7.2 and in Valkey a call that writes
//! nothing does not count as one: where a first attempt wrote but could not be confirmed, its repeat, which finds the work
//! done, would be confirmed at once though no replica has it. So every call is followed by a write that always happens, of
//! a mark: what replicas have up to the mark includes whatever the call relied on. (`PUBLISH` would leave nothing behind,
//! but a cluster does not pass it through replication.)

use redis::{Arg, Cmd, RedisResult, Value};

use super::dial::Wire;
use super::script::beside;
use super::{Call, LinkOptions, fault};

/// Ends the name of the key that marks the last write that was to reach replicas: one for each key that scripts are called
/// with, in the same slot.
pub const MARK: &str = ":replicated";

type Replies = (RedisResult<Value>, RedisResult<Value>, RedisResult<i64>);

/// Runs a script, sets the mark, and waits, as one piece on one connection; with the number of replicas that have it. In a
/// cluster all goes to the script's shard: the client routes a pipeline by its keys and `WAIT` with it, which on its own
/// would go to every master.
pub(super) async fn replicate(
    call: &Call,
    mut wire: Wire,
    options: &LinkOptions,
) -> RedisResult<(Value, i64)> {
    // 0 would be for ever.
    let wait_ms = u64::try_from(options.wait_timeout.as_millis()).unwrap_or(u64::MAX).max(1);
    let mark = beside(key(call), MARK);
    let mut together = async |cmd: Cmd| -> RedisResult<Replies> {
        let mut pipe = redis::pipe();
        pipe.add_command(cmd).cmd("SET").arg(&mark).arg(1);
        pipe.cmd("WAIT").arg(options.wait_replicas).arg(wait_ms).ignore_errors();
        pipe.query_async(&mut wire).await
    };
    let (reply, marked, replicas) = match together(call.by_hash().clone()).await? {
        (Err(error), ..) if fault::no_script(&error) => together(call.with_source()).await?,
        replies => replies,
    };
    let reply = reply?;
    marked?;
    Ok((reply, replicas?))
}

fn key(call: &Call) -> &[u8] {
    const NAME_HASH_AND_COUNT: usize = 3;
    match call.by_hash().args_iter().nth(NAME_HASH_AND_COUNT) {
        Some(Arg::Simple(key)) => key,
        _ => &[],
    }
}
