//! Reading what Redis answers.

use redis::Value;
use redrive_shared::id::TaskId;

use crate::store::{Result, StoreError};

fn unexpected(wanted: &str, value: &Value) -> StoreError {
    StoreError::Corrupt(format!(
        "Redis answered {value:?} where {wanted} was expected; is something before it that changes replies?"
    ))
}

/// The items of a list.
pub(super) fn items(value: &Value) -> Result<&[Value]> {
    match value {
        Value::Array(items) | Value::Set(items) => Ok(items),
        other => Err(unexpected("a list", other)),
    }
}

/// The items of a list, to be kept.
pub(super) fn into_items(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) | Value::Set(items) => Ok(items),
        other => Err(unexpected("a list", &other)),
    }
}

/// A string of bytes, to be kept.
pub(super) fn into_bytes(value: Value) -> Result<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        other => Err(unexpected("a string", &other)),
    }
}

/// A string of bytes.
pub(super) fn bytes(value: &Value) -> Result<&[u8]> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.as_bytes()),
        other => Err(unexpected("a string", other)),
    }
}

/// A string.
pub(super) fn text(value: &Value) -> Result<&str> {
    std::str::from_utf8(bytes(value)?).map_err(|_| unexpected("text", value))
}

/// Strings.
pub(super) fn texts(value: &Value) -> Result<Vec<String>> {
    items(value)?.iter().map(|item| text(item).map(str::to_owned)).collect()
}

/// An id that the store holds.
pub(super) fn task_id(text: &str) -> Result<TaskId> {
    TaskId::new(text).map_err(|error| StoreError::Corrupt(format!("a task's id {error}")))
}

/// A number, or its digits.
pub(super) fn integer(value: &Value) -> Result<i64> {
    match value {
        Value::Int(number) => Ok(*number),
        other => text(other)?.parse().map_err(|_| unexpected("a number", other)),
    }
}

/// A number's digits, or nothing.
pub(super) fn maybe_integer(value: &Value) -> Result<Option<i64>> {
    match value {
        Value::Nil => Ok(None),
        Value::Int(number) => Ok(Some(*number)),
        Value::Double(score) if score.is_finite() => Ok(Some(*score as i64)),
        other if bytes(other)?.is_empty() => Ok(None),
        // A score may come as 1.5e12 from a release that prints it so.
        other => match text(other)?.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Some(number as i64)),
            _ => Err(unexpected("a number", other)),
        },
    }
}

/// The pairs of a hash, as RESP2 and RESP3 give them.
pub(super) fn pairs(value: &Value) -> Result<Vec<(&Value, &Value)>> {
    match value {
        Value::Map(pairs) => Ok(pairs.iter().map(|(key, value)| (key, value)).collect()),
        other => Ok(items(other)?.chunks_exact(2).map(|pair| (&pair[0], &pair[1])).collect()),
    }
}

/// An item of a list by its place.
pub(super) fn at(list: &[Value], place: usize) -> Result<&Value> {
    list.get(place).ok_or_else(|| StoreError::Corrupt("a script answered too little".into()))
}
