//! The task as a handler gets it: one JSON document, the same over standard input and over HTTP.

use std::collections::BTreeMap;

use redrive_shared::checkpoint::Progress;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::task::{FailureRecord, Lease, Ledger, Nonce, Priority};
use serde::Serialize;
use serde_json::value::RawValue;

/// Borrowed from the lease: the payload's bytes are moved, never parsed.
#[derive(Serialize)]
struct Document<'a> {
    id: &'a TaskId,
    queue: &'a Name,
    task_type: &'a Name,
    #[serde(skip_serializing_if = "Option::is_none")]
    type_version: Option<u32>,
    payload: &'a RawValue,
    attempt: u32,
    max_attempts: u32,
    run: u32,
    epoch: i64,
    nonce: Nonce,
    route: u32,
    priority: Priority,
    timeout_ms: u64,
    due_at_ms: i64,
    deadline_at_ms: i64,
    ledger: Ledger,
    agent: &'a Name,
    #[serde(skip_serializing_if = "Option::is_none")]
    dependency: Option<&'a Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<&'a FailureRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<&'a Progress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_url: Option<&'a str>,
    labels: &'a BTreeMap<String, String>,
}

/// The document, on one line with a newline at its end: line-based readers want one.
pub(super) fn document(lease: &Lease, agent: &Name, context_url: Option<&str>) -> Vec<u8> {
    let document = Document {
        id: &lease.id,
        queue: &lease.queue,
        task_type: &lease.task_type,
        type_version: lease.type_version,
        payload: &lease.payload,
        attempt: lease.attempt,
        max_attempts: lease.max_attempts,
        run: lease.run,
        epoch: lease.epoch,
        nonce: lease.nonce,
        route: lease.route,
        priority: lease.priority,
        timeout_ms: lease.timeout_ms,
        due_at_ms: lease.due_at_ms,
        deadline_at_ms: lease.deadline_at_ms,
        ledger: lease.ledger,
        agent,
        dependency: lease.dependency.as_ref(),
        group: lease.group.as_ref(),
        last_failure: lease.last_failure.as_ref(),
        traceparent: lease.traceparent.as_deref(),
        tokens: lease.tokens,
        checkpoint: lease.checkpoint.as_ref(),
        context_url,
        labels: &lease.labels,
    };
    // Serialising strings, numbers and JSON that is valid already cannot fail.
    let mut bytes = serde_json::to_vec(&document).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A lease with that payload, as a claim could give it.
    pub(crate) fn lease(payload: &str) -> Lease {
        Lease {
            id: TaskId::new("order-17/charge").unwrap(),
            epoch: 1_700_000_000_000_001,
            nonce: Nonce(7),
            lease_until_ms: 30_000,
            lease_ms: 30_000,
            due_at_ms: 0,
            queue: Name::new("default").unwrap(),
            task_type: Name::new("charge").unwrap(),
            type_version: None,
            payload: RawValue::from_string(payload.to_owned()).unwrap(),
            payload_ref: None,
            checkpoint: None,
            dependency: Some(Name::new("stripe/acct/charges").unwrap()),
            group: None,
            priority: Priority::Normal,
            route: 1,
            attempt: 2,
            run: 3,
            max_attempts: 5,
            timeout_ms: 600_000,
            deadline_at_ms: i64::MAX,
            ledger: Ledger::default(),
            last_failure: None,
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            tokens: Some(12_000),
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn the_payload_arrives_byte_for_byte() {
        let payload = "{\"b\": 1.0e2,   \"a\":12345678901234567890123}";
        let document = document(&lease(payload), &Name::new("me").unwrap(), None);
        let text = String::from_utf8(document).unwrap();
        assert!(text.contains(payload) && text.ends_with("}\n"), "{text}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["id"], "order-17/charge");
        assert_eq!(value["nonce"], "0000000000000007");
        assert_eq!((&value["attempt"], &value["tokens"]), (&2.into(), &12_000.into()));
    }
}
