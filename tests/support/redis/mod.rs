//! Real Redis servers: one ([`RedisServer`]), a cluster ([`RedisCluster`]), and a pair under Sentinel ([`RedisSentinel`]). Each test starts its own.
//!
//! `REDRIVE_REDIS_SERVER` names another server binary; `tests/redis_servers` fetches some.

mod cluster;
mod sentinel;
mod server;

use std::time::Duration;

use redis::{AsyncConnectionConfig, Client, RedisError, Value};

pub use cluster::RedisCluster;
pub use sentinel::{MASTER_NAME, RedisSentinel};
pub use server::{AppendFsync, RedisOptions, RedisServer};

/// A server that works answers in a fraction of a millisecond; one that is suspended, never.
const ANSWER: Duration = Duration::from_secs(2);

/// One command on a connection of its own, which does without everything that a client does to hide faults. Arrays come
/// as lines, nothing as `(nil)`.
pub async fn ask(port: u16, command: &[&str]) -> Result<String, RedisError> {
    Ok(ask_all(port, &[command]).await?.remove(0))
}

/// Like [`ask`], one command after the other on the same connection, until one fails.
async fn ask_all(port: u16, commands: &[&[&str]]) -> Result<Vec<String>, RedisError> {
    let client = Client::open(("127.0.0.1", port))?;
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(ANSWER)).set_response_timeout(Some(ANSWER));
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    let mut answers = Vec::new();
    for command in commands {
        let (name, arguments) = command.split_first().expect("a command");
        let answer: Value = redis::cmd(name).arg(arguments).query_async(&mut connection).await?;
        answers.push(text(&answer));
    }
    Ok(answers)
}

fn text(value: &Value) -> String {
    match value {
        Value::Nil => "(nil)".to_owned(),
        Value::Okay => "OK".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::SimpleString(text) => text.clone(),
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join("\n"),
        other => format!("{other:?}"),
    }
}
