//! One connection to whichever node answers.

use std::time::Duration;

use lapin::tcp::OwnedTLSConfig;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Connection, ConnectionProperties};
use rand::seq::SliceRandom;

use super::AmqpAddress;
use crate::address::show;

/// For TCP, TLS and RabbitMQ's greeting together, each node.
const PATIENCE: Duration = Duration::from_secs(5);
/// A peer that says nothing for twice as long is taken for gone. In seconds.
const HEARTBEAT_S: u16 = 5;

/// Why no node can be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot connect to RabbitMQ at {at}: {cause}")]
pub struct DialError {
    /// The node that was tried last.
    pub at: String,
    /// What happened.
    pub cause: String,
}

/// Connects to one of the nodes, tried in random order. `name` is what RabbitMQ shows of the connection.
///
/// # Errors
/// No node could be used; the last one's reason.
pub async fn dial(address: &AmqpAddress, name: &str) -> Result<Connection, DialError> {
    let mut nodes: Vec<&(String, u16)> = address.nodes.iter().collect();
    nodes.shuffle(&mut rand::rng());
    let mut failed = DialError { at: String::new(), cause: "the address names no node".to_owned() };
    for (host, port) in nodes {
        let cause = match tokio::time::timeout(PATIENCE, connect(address, host, *port, name)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => explain(&error, address),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        failed = DialError { at: show(host, *port), cause };
    }
    Err(failed)
}

async fn connect(address: &AmqpAddress, host: &str, port: u16, name: &str) -> lapin::Result<Connection> {
    let uri = AMQPUri {
        scheme: if address.tls.is_some() { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: address.username.clone(),
                password: address.reveal_password().to_owned(),
            },
            host: host.to_owned(),
            port,
        },
        vhost: address.vhost.clone(),
        query: AMQPQueryString { heartbeat: Some(HEARTBEAT_S), ..AMQPQueryString::default() },
    };
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let authority = address.tls.as_ref().and_then(|tls| tls.ca.as_ref());
    let tls = OwnedTLSConfig {
        identity: None,
        cert_chain: authority.map(|(_, pem)| String::from_utf8_lossy(pem).into_owned()),
    };
    Connection::connect_uri_with_config(uri, properties, tls, lapin::runtime::default_runtime()?).await
}

/// What RabbitMQ means when it closes a connection in the middle of its greeting.
fn explain(error: &lapin::Error, address: &AmqpAddress) -> String {
    let text = error.to_string();
    if text.contains("ACCESS_REFUSED") || text.contains("ACCESS-REFUSED") {
        let user = &address.username;
        return format!("{text} (is `{user}` with that password a user there, allowed from here?)");
    }
    if text.contains("NOT_ALLOWED") || text.contains("NOT-ALLOWED") {
        let (user, vhost) = (&address.username, &address.vhost);
        return format!("{text} (is there a virtual host `{vhost}`, and may `{user}` use it?)");
    }
    text
}
