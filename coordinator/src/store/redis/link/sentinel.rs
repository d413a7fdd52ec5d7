//! Asking Sentinels who the master is.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use redrive_link::address::show;

use super::dial::Dialer;
use super::fault;
use crate::store::StoreError;
use crate::store::redis::address::Kind;

/// What Sentinels know of a master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) host: String,
    pub(super) port: u16,
    /// Rises with every failover: of two answers, the one with the higher epoch is the newer.
    epoch: u64,
}

/// The Sentinels of one service, with connections that are kept between questions.
pub(super) struct Sentinels {
    each: Vec<Sentinel>,
}

struct Sentinel {
    host: String,
    port: u16,
    connection: Option<MultiplexedConnection>,
}

impl Sentinels {
    pub(super) fn new(nodes: &[(String, u16)]) -> Self {
        let each =
            nodes.iter().map(|(host, port)| Sentinel { host: host.clone(), port: *port, connection: None });
        Self { each: each.collect() }
    }

    /// The master, as the newest of the answers has it. Asks all Sentinels at once and waits for most of them, so that one
    /// that was cut off with the old master does not decide; where most are gone, the others' word is taken.
    ///
    /// # Errors
    /// When none of them names a master within `limit`.
    pub(super) async fn master(&mut self, dialer: &Dialer, limit: Duration) -> Result<Known, StoreError> {
        let Kind::Sentinel { service, .. } = &dialer.address.kind else {
            return Err(StoreError::Unavailable("the address names no Sentinels".to_owned()));
        };
        let quorum = self.each.len() / 2 + 1;
        let mut answers: FuturesUnordered<_> =
            self.each.iter_mut().map(|sentinel| sentinel.ask(dialer, service, limit)).collect();
        let (mut newest, mut answered, mut refusals) = (None::<Known>, 0, Vec::new());
        while answered < quorum
            && let Some(answer) = answers.next().await
        {
            match answer {
                Ok(known) => {
                    answered += 1;
                    if newest.as_ref().is_none_or(|newest| known.epoch > newest.epoch) {
                        newest = Some(known);
                    }
                }
                Err(refusal) => refusals.push(refusal),
            }
        }
        newest.ok_or_else(|| {
            StoreError::Unavailable(format!(
                "no Sentinel names a master of {service:?}: {}",
                refusals.join("; ")
            ))
        })
    }
}

impl Sentinel {
    async fn ask(&mut self, dialer: &Dialer, service: &str, limit: Duration) -> Result<Known, String> {
        let at = show(&self.host, self.port);
        match tokio::time::timeout(limit, self.ask_at_leisure(dialer, service)).await {
            Ok(Ok(Some(known))) => Ok(known),
            Ok(Ok(None)) => {
                self.connection = None;
                Err(format!("{at} gave an answer without an address"))
            }
            Ok(Err(error)) => {
                self.connection = None;
                if error.detail().is_some_and(|detail| detail.contains("No such master")) {
                    return Err(format!("{at} does not know that service"));
                }
                Err(fault::text(fault::explain(&at, &error)))
            }
            Err(_) => {
                self.connection = None;
                Err(format!("{at} has not answered within {} ms", limit.as_millis()))
            }
        }
    }

    async fn ask_at_leisure(&mut self, dialer: &Dialer, service: &str) -> Result<Option<Known>, RedisError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(dialer.sentinel(&self.host, self.port).await?),
        };
        let reply: Value = redis::cmd("SENTINEL").arg("MASTER").arg(service).query_async(connection).await?;
        let fields: HashMap<String, String> = redis::from_redis_value(reply)?;
        let number = |name: &str| fields.get(name).and_then(|text| text.parse::<u64>().ok());
        let host = fields.get("ip").filter(|host| !host.is_empty()).cloned();
        let port = number("port").and_then(|port| u16::try_from(port).ok());
        let epoch = number("config-epoch").unwrap_or_default();
        Ok(host.zip(port).map(|(host, port)| Known { host, port, epoch }))
    }
}
