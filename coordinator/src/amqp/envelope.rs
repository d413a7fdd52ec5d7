//! A message as the payload of a task: everything that there was of it, so that it can be published again.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable, ShortString};
use redrive_shared::limits::JSON_MAX_DEPTH;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Number, Value, json};

use super::dead_letter::Death;
use crate::json::depth;

/// Headers that tell of deaths and deliveries: those of the next life are RabbitMQ's to write.
const OF_RABBITMQ: [&str; 3] = ["x-death", "x-delivery-count", "x-original-exchange"];
const OF_DEATHS: [&str; 2] = ["x-first-death-", "x-last-death-"];
/// Headers that would send copies elsewhere.
const COPIES: [&str; 2] = ["CC", "BCC"];
/// Deepest nesting of headers that is kept.
pub(super) const HEADERS_MAX_DEPTH: usize = 8;

/// How a body is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Encoding {
    /// As it stands.
    Json,
    /// As a string.
    Text,
    /// In base 64, as a string.
    Base64,
}

/// The payload. What was missing is left out.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Envelope {
    /// Where it had been published to.
    pub exchange: String,
    /// With which key.
    pub routing_key: String,
    /// The queue that it died in.
    pub queue: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_encoding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delivery_mode: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply_to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp: Option<u64>,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    app_id: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, Value>,
    encoding: Encoding,
    body: Box<RawValue>,
}

impl Envelope {
    /// What a message was that died so. When it was to expire, and who its sender was to RabbitMQ, is not kept: it would
    /// not outlive the wait.
    pub fn of(delivery: &Delivery, death: &Death) -> serde_json::Result<Self> {
        let properties = &delivery.properties;
        let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
        let (encoding, body) = body(&delivery.data)?;
        let headers = properties.headers().as_ref().map(FieldTable::inner).into_iter().flatten();
        let kept = headers.filter(|(name, _)| is_kept(name.as_str()));
        Ok(Self {
            exchange: death.exchange.clone(),
            routing_key: death.routing_key.clone(),
            queue: death.queue.clone(),
            content_type: text(properties.content_type()),
            content_encoding: text(properties.content_encoding()),
            delivery_mode: *properties.delivery_mode(),
            priority: *properties.priority(),
            correlation_id: text(properties.correlation_id()),
            reply_to: text(properties.reply_to()),
            message_id: text(properties.message_id()),
            timestamp: *properties.timestamp(),
            kind: text(properties.kind()),
            app_id: text(properties.app_id()),
            headers: kept.map(|(name, value)| (name.to_string(), to_json(value))).collect(),
            encoding,
            body,
        })
    }

    /// Its properties again, with these headers beside its own.
    ///
    /// # Errors
    /// Says what in the envelope cannot be a property.
    pub fn properties(&self, more: FieldTable) -> Result<BasicProperties, String> {
        let mut properties = BasicProperties::default();
        macro_rules! short {
            ($($field:ident => $with:ident),*) => {$(
                if let Some(text) = &self.$field {
                    let text = ShortString::try_new(text.as_str())
                        .map_err(|error| format!("{}: {error}", stringify!($field)))?;
                    properties = properties.$with(text);
                }
            )*};
        }
        short!(content_type => with_content_type, content_encoding => with_content_encoding,
               correlation_id => with_correlation_id, reply_to => with_reply_to, message_id => with_message_id,
               kind => with_type, app_id => with_app_id);
        if let Some(mode) = self.delivery_mode {
            properties = properties.with_delivery_mode(mode);
        }
        if let Some(priority) = self.priority {
            properties = properties.with_priority(priority);
        }
        if let Some(timestamp) = self.timestamp {
            properties = properties.with_timestamp(timestamp);
        }
        let mut headers = FieldTable::default();
        // A task may say anything: what would send copies elsewhere is left out here as it was on the way in.
        for (name, value) in self.headers.iter().filter(|(name, _)| is_kept(name)) {
            let name = ShortString::try_new(name.as_str()).map_err(|error| format!("headers: {error}"))?;
            headers.insert(name, from_json(value)?);
        }
        for (name, value) in &more {
            headers.insert(name.clone(), value.clone());
        }
        Ok(properties.with_headers(headers))
    }

    /// Its body again, byte for byte.
    ///
    /// # Errors
    /// Says why it cannot be read.
    pub fn body(&self) -> Result<Vec<u8>, String> {
        let text =
            || serde_json::from_str::<String>(self.body.get()).map_err(|error| format!("body: {error}"));
        match self.encoding {
            Encoding::Json => Ok(self.body.get().as_bytes().to_vec()),
            Encoding::Text => text().map(String::into_bytes),
            Encoding::Base64 => STANDARD.decode(text()?).map_err(|error| format!("body: {error}")),
        }
    }
}

/// How deep the headers that are kept are nested; a plain value is one level.
pub(super) fn depth_of(headers: &FieldTable) -> usize {
    fn of(value: &AMQPValue) -> usize {
        1 + match value {
            AMQPValue::FieldArray(list) => list.as_slice().iter().map(of).max().unwrap_or(0),
            AMQPValue::FieldTable(table) => table.inner().values().map(of).max().unwrap_or(0),
            _ => 0,
        }
    }
    let kept = headers.inner().iter().filter(|(name, _)| is_kept(name.as_str()));
    kept.map(|(_, value)| of(value)).max().unwrap_or(0)
}

fn is_kept(header: &str) -> bool {
    !OF_RABBITMQ.contains(&header)
        && !COPIES.contains(&header)
        && !OF_DEATHS.iter().any(|beginning| header.starts_with(beginning))
}

/// The body byte for byte where it is JSON with nothing around it; else as text, else in base 64.
fn body(bytes: &[u8]) -> serde_json::Result<(Encoding, Box<RawValue>)> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Ok((Encoding::Base64, to_raw_value(&STANDARD.encode(bytes))?));
    };
    match serde_json::from_str::<Box<RawValue>>(text) {
        // One level is the envelope's.
        Ok(json) if json.get().len() == text.len() && depth(bytes) < JSON_MAX_DEPTH => {
            Ok((Encoding::Json, json))
        }
        _ => Ok((Encoding::Text, to_raw_value(text)?)),
    }
}

/// A header as JSON. What JSON has no form for is an object with one name that begins with `$`.
fn to_json(value: &AMQPValue) -> Value {
    let bytes = |bytes: &[u8]| json!({ "$bytes": STANDARD.encode(bytes) });
    match value {
        AMQPValue::Boolean(value) => json!(value),
        AMQPValue::ShortShortInt(value) => json!(value),
        AMQPValue::ShortShortUInt(value) => json!(value),
        AMQPValue::ShortInt(value) => json!(value),
        AMQPValue::ShortUInt(value) => json!(value),
        AMQPValue::LongInt(value) => json!(value),
        AMQPValue::LongUInt(value) => json!(value),
        AMQPValue::LongLongInt(value) => json!(value),
        AMQPValue::Float(value) => json!(value),
        AMQPValue::Double(value) => json!(value),
        AMQPValue::DecimalValue(value) => json!({ "$decimal": [value.scale, value.value] }),
        AMQPValue::ShortString(text) => json!(text.as_str()),
        AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => json!(text),
            Err(_) => bytes(text.as_bytes()),
        },
        AMQPValue::Timestamp(seconds) => json!({ "$timestamp": seconds }),
        AMQPValue::ByteArray(array) => bytes(array.as_slice()),
        AMQPValue::FieldArray(array) => array.as_slice().iter().map(to_json).collect(),
        AMQPValue::FieldTable(table) => {
            let fields = table.inner().iter().map(|(name, value)| (name.to_string(), to_json(value)));
            Value::Object(fields.collect())
        }
        AMQPValue::Void => Value::Null,
    }
}

/// The header again. Whole numbers have the widest type: readers see the same number.
fn from_json(value: &Value) -> Result<AMQPValue, String> {
    Ok(match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(value) => AMQPValue::Boolean(*value),
        Value::Number(number) => number_of(number),
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::Array(values) => AMQPValue::FieldArray(FieldArray::from(
            values.iter().map(from_json).collect::<Result<Vec<_>, _>>()?,
        )),
        Value::Object(fields) => match fields.iter().next().filter(|_| fields.len() == 1) {
            Some((name, Value::String(text))) if name == "$bytes" => {
                let bytes = STANDARD.decode(text).map_err(|error| format!("headers: {error}"))?;
                AMQPValue::LongString(bytes.into())
            }
            Some((name, Value::Number(seconds))) if name == "$timestamp" => {
                AMQPValue::Timestamp(seconds.as_u64().unwrap_or(0))
            }
            Some((name, Value::Array(parts))) if name == "$decimal" => {
                let part = |place: usize| parts.get(place).and_then(Value::as_u64).unwrap_or(0);
                let (scale, value) =
                    (u8::try_from(part(0)).unwrap_or(0), u32::try_from(part(1)).unwrap_or(0));
                AMQPValue::DecimalValue(DecimalValue { scale, value })
            }
            _ => {
                let mut table = FieldTable::default();
                for (name, value) in fields {
                    let name =
                        ShortString::try_new(name.as_str()).map_err(|error| format!("headers: {error}"))?;
                    table.insert(name, from_json(value)?);
                }
                AMQPValue::FieldTable(table)
            }
        },
    })
}

fn number_of(number: &Number) -> AMQPValue {
    match number.as_i64() {
        Some(number) => AMQPValue::LongLongInt(number),
        None => AMQPValue::Double(number.as_f64().unwrap_or(0.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(data: &[u8], properties: BasicProperties) -> Envelope {
        let mut delivery = Delivery::mock(1, "".into(), "orders".into(), false, data.to_vec());
        delivery.properties = properties;
        let death = Death {
            queue: "orders".into(),
            reason: "rejected".into(),
            count: 1,
            exchange: "shop".into(),
            routing_key: "orders".into(),
            time_s: 0,
        };
        let written = serde_json::to_string(&Envelope::of(&delivery, &death).unwrap()).unwrap();
        serde_json::from_str(&written).unwrap()
    }

    #[test]
    fn a_body_comes_back_byte_for_byte() {
        let deep = format!("{}1{}", "[".repeat(80), "]".repeat(80));
        let bodies: [&[u8]; 7] =
            [br#"{ "n": 1.000 }"#, b" {} ", b"text", b"\xff\x00", b"", b"\"\\ud800\"", deep.as_bytes()];
        for data in bodies {
            assert_eq!(envelope(data, BasicProperties::default()).body().unwrap(), data, "{data:?}");
        }
    }

    #[test]
    fn properties_and_headers_come_back() {
        let mut inner = FieldTable::default();
        inner.insert("deep".into(), AMQPValue::Boolean(true));
        let mut headers = FieldTable::default();
        headers.insert("text".into(), AMQPValue::LongString("é".into()));
        headers.insert("raw".into(), AMQPValue::LongString(vec![0xff].into()));
        headers.insert("whole".into(), AMQPValue::LongLongInt(-7));
        headers.insert("when".into(), AMQPValue::Timestamp(1_700_000_000));
        headers.insert("table".into(), AMQPValue::FieldTable(inner));
        headers.insert("list".into(), AMQPValue::FieldArray(vec![AMQPValue::Void].into()));
        let kept = headers.clone();
        headers.insert("x-death".into(), AMQPValue::FieldArray(FieldArray::default()));
        headers.insert("x-first-death-queue".into(), AMQPValue::LongString("orders".into()));
        headers.insert("CC".into(), AMQPValue::FieldArray(FieldArray::default()));
        let properties = BasicProperties::default()
            .with_content_type("text/plain".into())
            .with_delivery_mode(2)
            .with_priority(3)
            .with_message_id("m".into())
            .with_timestamp(5)
            .with_type("order".into());
        let all =
            properties.clone().with_headers(headers).with_expiration("1000".into()).with_user_id("u".into());
        let again = envelope(b"x", all).properties(FieldTable::default()).unwrap();
        assert_eq!(again, properties.with_headers(kept));
    }
}
