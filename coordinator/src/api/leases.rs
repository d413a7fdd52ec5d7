//! The leases of a claim as JSON: what serde makes of [`ClaimReply`], byte for byte, without looking at the names of fields
//! one character at a time. They are half of what there is to write, and known before.
//!
//! [`ClaimReply`]: redrive_shared::wire::ClaimReply

use redrive_shared::task::{Lease, Ledger};

/// About what a lease takes, beside its payload.
const LEASE_BYTES: usize = 768;

/// Writes fields, the name of each as its variable's, and a comma behind each.
macro_rules! write_fields {
    ($json:expr, $($field:ident),+) => {$(
        $json.extend_from_slice(concat!('"', stringify!($field), "\":").as_bytes());
        serde_json::to_writer(&mut *$json, $field)?;
        $json.push(b',');
    )+};
}

/// Writes what there is of optional fields.
macro_rules! write_options {
    ($json:expr, $($field:ident),+) => {$(
        if let Some($field) = $field {
            write_fields!($json, $field);
        }
    )+};
}

/// A claim's reply.
pub(super) fn reply(leases: &[Lease]) -> serde_json::Result<Vec<u8>> {
    let payloads: usize = leases.iter().map(|lease| lease.payload.get().len()).sum();
    let mut json = Vec::with_capacity(payloads + leases.len() * LEASE_BYTES);
    json.extend_from_slice(b"{\"leases\":[");
    for lease in leases {
        write(&mut json, lease)?;
    }
    close(&mut json, b']');
    json.push(b'}');
    Ok(json)
}

/// Writes a lease, and a comma behind it. Its fields are taken apart: one that it gains stops the build here.
fn write(json: &mut Vec<u8>, lease: &Lease) -> serde_json::Result<()> {
    #[rustfmt::skip]
    let Lease {
        id, epoch, nonce, lease_until_ms, lease_ms, due_at_ms, queue, task_type, type_version, payload, payload_ref, checkpoint, dependency, group,
        priority, route, attempt, run, max_attempts, timeout_ms, deadline_at_ms, ledger, last_failure, traceparent, tokens, labels,
    } = lease;
    json.push(b'{');
    write_fields!(json, id, epoch, nonce, lease_until_ms, lease_ms, due_at_ms, queue, task_type);
    write_options!(json, type_version);
    write_fields!(json, payload);
    write_options!(json, payload_ref, checkpoint, dependency, group);
    write_fields!(json, priority, route, attempt, run, max_attempts, timeout_ms, deadline_at_ms);
    json.extend_from_slice(b"\"ledger\":{");
    let Ledger { failed, lost, undelivered, deferred, released, lock_waits, cost_usd } = ledger;
    write_fields!(json, failed, lost, undelivered, deferred, released, lock_waits);
    if !cost_usd.is_zero() {
        write_fields!(json, cost_usd);
    }
    close(json, b'}');
    json.push(b',');
    write_options!(json, last_failure, traceparent, tokens);
    if !labels.is_empty() {
        write_fields!(json, labels);
    }
    close(json, b'}');
    json.push(b',');
    Ok(())
}

/// Ends a list or an object, in place of the last comma if there is one.
fn close(json: &mut Vec<u8>, bracket: u8) {
    if json.last() == Some(&b',') {
        json.pop();
    }
    json.push(bracket);
}

#[cfg(test)]
mod tests {
    use redrive_shared::cost::Cost;
    use redrive_shared::failure::FailureClass;
    use redrive_shared::id::{Name, TaskId};
    use redrive_shared::task::{FailureRecord, Nonce, Priority};
    use redrive_shared::wire::ClaimReply;
    use serde_json::value::RawValue;

    use super::*;

    fn plain() -> Lease {
        Lease {
            id: TaskId::new("straße-1").unwrap(),
            epoch: i64::MAX,
            nonce: Nonce(0xa),
            lease_until_ms: -1,
            lease_ms: u64::MAX,
            due_at_ms: 1_700_000_000_123,
            queue: Name::new("default").unwrap(),
            task_type: Name::new("a/b").unwrap(),
            type_version: None,
            payload: RawValue::from_string("{ \"n\" : 1.000 }".into()).unwrap(),
            payload_ref: None,
            checkpoint: None,
            dependency: None,
            group: None,
            priority: Priority::Low,
            route: 2,
            attempt: 3,
            run: 4,
            max_attempts: 5,
            timeout_ms: 6,
            deadline_at_ms: 7,
            ledger: Ledger {
                failed: 1,
                lost: 2,
                undelivered: 3,
                deferred: 4,
                released: 5,
                ..Ledger::default()
            },
            last_failure: None,
            traceparent: None,
            tokens: None,
            labels: [].into(),
        }
    }

    fn full() -> Lease {
        Lease {
            type_version: Some(7),
            dependency: Some(Name::new("provider/account/model").unwrap()),
            group: Some(Name::new("tenant").unwrap()),
            ledger: Ledger { lock_waits: 6, cost_usd: Cost::from_micros(1_250), ..plain().ledger },
            last_failure: Some(FailureRecord {
                class: FailureClass::ServerError,
                retryable: true,
                retry_after_ms: Some(5),
                message: "a \"quoted\"\nline \u{1}".into(),
                fingerprint: "f".into(),
            }),
            traceparent: Some("00-0-0-01".into()),
            tokens: Some(12_000),
            labels: [("a\\".to_owned(), "b\"".to_owned()), ("c".to_owned(), "ü".to_owned())].into(),
            ..plain()
        }
    }

    #[test]
    fn it_is_what_serde_makes_of_it() {
        for leases in [vec![], vec![plain()], vec![full()], vec![full(), plain(), full()]] {
            let json = String::from_utf8(reply(&leases).unwrap()).unwrap();
            assert_eq!(json, serde_json::to_string(&ClaimReply { leases }).unwrap());
        }
    }
}
