//! Scripts, and calls of them.

use std::sync::OnceLock;

use redis::{Arg, Cmd, ToRedisArgs};

/// A Lua script, known by its name to people and by the SHA-1 of its source to Redis.
#[derive(Debug)]
pub struct Script {
    name: &'static str,
    source: &'static str,
    sha1: OnceLock<String>,
}

impl Script {
    /// A script. The hash is computed with the first call.
    pub const fn new(name: &'static str, source: &'static str) -> Self {
        Self { name, source, sha1: OnceLock::new() }
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Its source.
    pub const fn source(&self) -> &'static str {
        self.source
    }

    /// Begins a call. `key` becomes the first entry of `KEYS` and decides which shard of a cluster runs it.
    ///
    /// A second key is declared, in the same slot, and scripts never use it. While a slot moves to another node, the one
    /// that it leaves sends calls on whose keys it does not have, and the one that it comes to takes any call for one
    /// key: there the script would find half a shard, and believe it. A call for two keys that are not both there is
    /// refused (`TRYAGAIN`) until the slot has moved. So neither of the two may ever exist: it would be found before the
    /// rest is there.
    pub fn on(&'static self, key: impl ToRedisArgs) -> Call {
        debug_assert_eq!(key.num_of_args(), 1, "a script has one key");
        let sha1 = self.sha1.get_or_init(|| redis::Script::new(self.source).get_hash().to_owned());
        let key = key.to_redis_args().concat();
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(sha1).arg(2).arg(&key).arg(beside(&key, BESIDE));
        Call { script: self, cmd }
    }
}

/// Ends the name of the second key.
const BESIDE: &str = "-";

/// The name of a key in the same slot, which ends with that.
pub(super) fn beside(key: &[u8], end: &str) -> Vec<u8> {
    let open = key.iter().position(|byte| *byte == b'{');
    let tag = open.and_then(|open| key[open + 1..].iter().position(|byte| *byte == b'}'));
    match tag {
        Some(length) if length > 0 => [key, end.as_bytes()].concat(),
        _ => [b"{", key, b"}", end.as_bytes()].concat(),
    }
}

/// A call of a script: what is sent, packed as it is built.
#[derive(Debug, Clone)]
pub struct Call {
    script: &'static Script,
    cmd: Cmd,
}

impl Call {
    /// Adds to `ARGV`.
    pub fn arg(&mut self, arg: impl ToRedisArgs) -> &mut Self {
        self.cmd.arg(arg);
        self
    }

    /// The script that it calls.
    pub fn script(&self) -> &'static Script {
        self.script
    }

    /// The call by hash, for a pipeline. There `NOSCRIPT` is the caller's to handle: see [`Call::with_source`].
    pub fn by_hash(&self) -> &Cmd {
        &self.cmd
    }

    /// The same call carrying the source, which also loads it. Works wherever the key leads, so that a server that lost
    /// its scripts, or was just made master, needs no `SCRIPT LOAD` of its own.
    pub fn with_source(&self) -> Cmd {
        const NAME_AND_HASH: usize = 2;
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(self.script.source);
        for arg in self.cmd.args_iter().skip(NAME_AND_HASH) {
            if let Arg::Simple(bytes) = arg {
                cmd.arg(bytes);
            }
        }
        cmd
    }
}

#[cfg(test)]
mod tests {
    use super::{Script, beside};

    static ECHO: Script = Script::new("echo", "return {KEYS[1], ARGV[1], ARGV[2]}");

    #[test]
    fn both_forms_carry_the_same_arguments() {
        let mut call = ECHO.on("{s1}:k");
        call.arg(7).arg(b"\x00\xff".as_slice());
        let by_hash = call.by_hash().get_packed_command();
        let with_source = call.with_source().get_packed_command();
        let tail = b"$1\r\n2\r\n$6\r\n{s1}:k\r\n$7\r\n{s1}:k-\r\n$1\r\n7\r\n$2\r\n\x00\xff\r\n";
        assert!(by_hash.ends_with(tail) && with_source.ends_with(tail));
        assert!(with_source.starts_with(b"*7\r\n$4\r\nEVAL\r\n"));
    }

    #[test]
    fn a_key_beside_another_is_in_its_slot() {
        assert_eq!(beside(b"redrive:{7}:shard", ":end"), b"redrive:{7}:shard:end");
        assert_eq!(beside(b"plain", ":end"), b"{plain}:end");
        let whole = beside(b"x{}y", ":end");
        assert_eq!(whole, b"{x{}y}:end", "hashed as a whole, this would be another slot");
    }
}
