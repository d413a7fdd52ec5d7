//! What `redrive doctor` looks at in RabbitMQ, over AMQP alone: it needs no plugin there, and no rights beyond a coordinator's.
//! What is declared already stays as it is, and what is missing is not made: a coordinator does that when it starts.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, Event, ExchangeKind};
use redrive_link::amqp::{AmqpAddress, SessionError, dial, message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::config::AmqpConfig;
use super::topology;
use crate::store::doctor::{Finding, Report, Verdict};

/// For each step.
const PATIENCE: Duration = Duration::from_secs(5);
/// For RabbitMQ to say that it takes nothing, once something was published.
const ALARM_PATIENCE: Duration = Duration::from_millis(300);
/// The first version with quorum queues that hand a single consumer its turn.
const VERSION_MIN: (u32, u32) = (3, 8);

/// Examines the RabbitMQ that is configured. Nothing to examine without an address.
pub async fn examine(config: &AmqpConfig) -> Report {
    let Some(address) = &config.url else { return Report::new([]) };
    let mut findings = vec![version(address).await];
    match dial(address, "redrive-doctor").await {
        Err(error) => findings.push(Finding::bad(
            "connection",
            Verdict::Refused,
            error.to_string(),
            "start RabbitMQ there, or correct the address; meanwhile tasks stay in the store, and pull goes on",
        )),
        Ok(connection) => {
            findings.push(Finding::ok("connection", format!("made, to virtual host {}", address.vhost)));
            findings.push(permissions(&connection, config).await);
            findings.push(alarms(&connection, config).await);
            findings.extend(topology(&connection, config).await);
            findings.push(binding(&connection, config).await);
        }
    }
    findings.extend(leases(config));
    findings.push(Finding::bad(
        "policies",
        Verdict::Skipped,
        "not told over AMQP",
        "rabbitmqctl list_policies: none that limits length or age (max-length, message-ttl, expires) may match what \
         begins with the prefix, or it throws tasks away",
    ));
    Report::new(findings)
}

/// Asks as a client does that says hello: the version is in the greeting.
async fn version(address: &AmqpAddress) -> Finding {
    const LOOK: &str = "rabbitmqctl version: 3.8 or newer";
    if address.tls.is_some() {
        return Finding::bad("version", Verdict::Skipped, "not looked at over TLS", LOOK);
    }
    let mut told = None;
    for (host, port) in &address.nodes {
        if let Ok(Some(version)) = tokio::time::timeout(PATIENCE, greeting(host, *port)).await {
            told = Some(version);
            break;
        }
    }
    let Some(text) = told else {
        return Finding::bad("version", Verdict::Skipped, "no node has told its version", LOOK);
    };
    let mut numbers = text.split(['.', '-', '+']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < VERSION_MIN {
        let found = format!("RabbitMQ {text}, which has no quorum queues");
        return Finding::bad("version", Verdict::Refused, found, "upgrade to 3.8 or newer");
    }
    Finding::ok("version", format!("RabbitMQ {text}"))
}

async fn greeting(host: &str, port: u16) -> Option<String> {
    const HELLO: &[u8] = b"AMQP\x00\x00\x09\x01";
    const GREETING_MAX_BYTES: usize = 4_096;
    // In a table: the name with its length, the type, the text with its length in four bytes.
    const FIELD: &[u8] = b"\x07versionS";
    let mut stream = TcpStream::connect((host, port)).await.ok()?;
    stream.write_all(HELLO).await.ok()?;
    let mut greeting = Vec::new();
    while greeting.len() < GREETING_MAX_BYTES && stream.read_buf(&mut greeting).await.ok()? > 0 {
        let found = greeting.windows(FIELD.len()).position(|window| window == FIELD);
        let Some(text) = found.and_then(|at| greeting.get(at + FIELD.len()..)) else { continue };
        let Some((length, text)) = text.split_first_chunk::<4>() else { continue };
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        if let Some(version) = text.get(..length) {
            return String::from_utf8(version.to_vec()).ok();
        }
    }
    None
}

/// Declares, publishes and deletes under the prefix, as a coordinator does; what is made here goes with the connection.
async fn permissions(connection: &Connection, config: &AmqpConfig) -> Finding {
    let tried = tokio::time::timeout(PATIENCE, try_permissions(connection, config)).await;
    let user = config.url.as_ref().map_or("", |address| address.username.as_str());
    let remedy = || {
        format!(
            "rabbitmqctl set_permissions -p VHOST {user} '^{0}\\..*' '^({0}\\..*|amq\\.default)$' '^{0}\\..*', and write on \
             exchanges that tasks are republished to",
            config.prefix
        )
    };
    match tried {
        Ok(Ok(())) => {
            Finding::ok("permissions", format!("configure, write and read under {}.", config.prefix))
        }
        Ok(Err(error)) => Finding::bad("permissions", Verdict::Refused, error.to_string(), remedy()),
        Err(_) => Finding::bad("permissions", Verdict::Skipped, "no answer in time", remedy()),
    }
}

async fn try_permissions(connection: &Connection, config: &AmqpConfig) -> Result<(), SessionError> {
    let channel = connection.create_channel().await?;
    let name: ShortString = format!("{}.doctor.{:08x}", config.prefix, rand::random::<u32>()).into();
    let short_lived = ExchangeDeclareOptions { auto_delete: true, ..ExchangeDeclareOptions::default() };
    let arguments = FieldTable::default;
    channel.exchange_declare(name.clone(), ExchangeKind::Fanout, short_lived, arguments()).await?;
    channel.queue_declare(name.clone(), QueueDeclareOptions::exclusive(), arguments()).await?;
    channel
        .queue_bind(
            name.clone(),
            name.clone(),
            "".into(),
            lapin::options::QueueBindOptions::default(),
            arguments(),
        )
        .await?;
    confirm(&channel, "", name.as_str()).await?;
    let got = channel.basic_get(name.clone(), lapin::options::BasicGetOptions { no_ack: true }).await?;
    channel.queue_delete(name, lapin::options::QueueDeleteOptions::default()).await?;
    got.map(|_| ()).ok_or_else(|| SessionError::Broken("what was published did not arrive".to_owned()))
}

/// Publishes one message of no meaning; an error unless a queue took it.
async fn confirm(channel: &Channel, exchange: &str, key: &str) -> Result<(), SessionError> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let probe = BasicProperties::default().with_type(message::PROBE.into()).with_expiration("60000".into());
    match channel.basic_publish(exchange.into(), key.into(), options, b"", probe).await?.await? {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
            Err(SessionError::Broken(returned.reply_text.to_string()))
        }
        Confirmation::Nack(None) | Confirmation::NotRequested => {
            Err(SessionError::Broken("RabbitMQ did not take a message".to_owned()))
        }
    }
}

/// A broker short of memory or disk says so to whoever publishes.
async fn alarms(connection: &Connection, config: &AmqpConfig) -> Finding {
    let mut events = Box::pin(connection.events_listener());
    let Ok(channel) = connection.create_channel().await else {
        return Finding::bad("alarms", Verdict::Skipped, "no channel could be opened", "rabbitmqctl status");
    };
    // To nobody: it is published and gone.
    let (key, options) = (format!("{}.doctor.nobody", config.prefix).into(), BasicPublishOptions::default());
    let _unconfirmed = channel.basic_publish("".into(), key, options, b"", BasicProperties::default()).await;
    let blocked = async {
        while let Some(event) = events.next().await {
            if let Event::ConnectionBlocked(reason) = event {
                return reason;
            }
        }
        std::future::pending().await
    };
    match tokio::time::timeout(ALARM_PATIENCE, blocked).await {
        Ok(reason) => Finding::bad(
            "alarms",
            Verdict::Warning,
            format!("RabbitMQ takes nothing: {reason}"),
            "free memory or disk there; until then nothing is pushed, and pull goes on",
        ),
        Err(_) if connection.status().blocked() => Finding::bad(
            "alarms",
            Verdict::Warning,
            "RabbitMQ takes nothing",
            "free memory or disk there; until then nothing is pushed, and pull goes on",
        ),
        Err(_) => Finding::ok("alarms", "none"),
    }
}

/// Queues that are there must be as they would be declared, and what is pushed needs somebody who consumes it.
async fn topology(connection: &Connection, config: &AmqpConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    let pushed: Vec<String> = config.push.keys().map(|queue| config.names().pushed(queue)).collect();
    for (queue, arguments) in topology::queues(config) {
        // A refusal closes its channel.
        let Ok(channel) = connection.create_channel().await else { break };
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let there = channel.queue_declare(queue.as_str().into(), passive, FieldTable::default()).await;
        let Ok(there) = there else {
            let (found, remedy) = ("not there yet", "a coordinator makes it when it starts");
            findings.push(Finding::bad("queues", Verdict::Skipped, found, remedy).at(queue));
            continue;
        };
        match topology::queue_of(&channel, &queue, arguments).await {
            Ok(()) => findings.push(Finding::ok("queues", "as they must be").at(queue.as_str())),
            Err(error) => {
                let remedy = "delete it once it is empty, or set coordinator.amqp.prefix";
                findings.push(
                    Finding::bad("queues", Verdict::Refused, error.to_string(), remedy).at(queue.as_str()),
                );
            }
        }
        if pushed.contains(&queue) && there.consumer_count() == 0 {
            let remedy =
                "start consumers: redrive worker --link, or your own; until then its tasks stay in the store";
            findings
                .push(Finding::bad("consumers", Verdict::Warning, "nobody consumes it", remedy).at(queue));
        }
    }
    findings
}

/// Whether what is published to the exchange arrives.
async fn binding(connection: &Connection, config: &AmqpConfig) -> Finding {
    let (exchange, queue) = (config.names().enqueue(), config.names().ingress());
    let tried = async {
        let channel = connection.create_channel().await?;
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let (name, kind) = (exchange.as_str().into(), ExchangeKind::Fanout);
        if channel.exchange_declare(name, kind, passive, FieldTable::default()).await.is_err() {
            return Ok(None);
        }
        confirm(&channel, &exchange, "").await.map(Some)
    };
    match tokio::time::timeout(PATIENCE, tried).await {
        Ok(Ok(Some(()))) => Finding::ok("binding", format!("{exchange} leads to {queue}")),
        Ok(Ok(None)) => Finding::bad(
            "binding",
            Verdict::Skipped,
            format!("there is no exchange {exchange} yet"),
            "a coordinator makes it when it starts",
        ),
        Ok(Err(error)) => Finding::bad(
            "binding",
            Verdict::Refused,
            format!("what is published to {exchange} reaches no queue: {error}"),
            format!("bind {queue} to {exchange} again, or start a coordinator, which does"),
        ),
        Err(_) => {
            let remedy = "see whether RabbitMQ has an alarm";
            Finding::bad("binding", Verdict::Skipped, "no confirmation in time", remedy)
        }
    }
}

/// Consumers that are not Redrive's cannot make a lease longer.
fn leases(config: &AmqpConfig) -> Vec<Finding> {
    let silent = config.push.iter().filter(|(_, push)| push.max_outstanding > 0 && push.lease_ms.is_none());
    let remedy = "set lease_ms of the pushed queue to more than the longest wait in RabbitMQ and the longest run together";
    let found = "consumers of other makes have only the policy's lease, 30 s unless it was changed";
    silent
        .map(|(queue, _)| Finding::bad("leases", Verdict::Warning, found, remedy).at(queue.to_string()))
        .collect()
}
