//! How records look in rows: the stored format, in one place.

use redrive_shared::blob::Content;
use redrive_shared::cost::Cost;
use redrive_shared::failure::FailureClass;
use redrive_shared::id::Name;
use redrive_shared::lifecycle::Record;
use redrive_shared::task::{AttemptEnd, Ledger, Nonce, Priority, TaskState};
use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError};
use serde::de::DeserializeOwned;

use crate::store::format;

/// A hot row: the record and what the store keeps beside it.
#[derive(Debug, Clone)]
pub(super) struct Hot {
    pub seq: i64,
    pub lane: i64,
    pub id: String,
    pub record: Record,
    /// Lines of history written so far.
    pub entries: i64,
    pub enqueued_ms: i64,
    pub agent: Option<String>,
    pub boot_id: Option<String>,
    /// The dependency that it was enqueued with, where its lane is another's.
    pub primary: Option<Name>,
}

/// Columns of a hot row, in the order that every `load_*.sql` selects them; a body's columns start after them.
pub(super) const HOT_COLUMNS: usize = 32;

pub(super) fn hot(row: &Row<'_>) -> rusqlite::Result<Hot> {
    let counted = row.get_ref(15)?.as_blob_or_null()?.unwrap_or_default();
    let (class_failures, called) = (format::class_counts_from(counted), format::called_from(counted));
    let failed = row.get(10)?;
    let record = Record {
        state: state_from(row.get(2)?)?,
        epoch: row.get(3)?,
        nonce: Nonce(row.get::<_, i64>(4)?.cast_unsigned()),
        due_ms: row.get(5)?,
        lease_until_ms: row.get(6)?,
        started: row.get(7)?,
        leased_at_ms: row.get(8)?,
        runs: row.get(9)?,
        ledger: Ledger {
            failed,
            lost: row.get(11)?,
            undelivered: row.get(12)?,
            deferred: row.get(13)?,
            released: row.get(14)?,
            lock_waits: class_failures.of(FailureClass::LockTimeout),
            cost_usd: cost(row.get(28)?),
        },
        class_failures,
        called,
        previous_delay_ms: row.get::<_, Option<i64>>(16)?.map(i64::cast_unsigned),
        max_attempts: row.get(17)?,
        strategy: row.get_ref(31)?.as_str_or_null()?.and_then(format::strategy_from),
        max_cost: row.get::<_, Option<i64>>(29)?.map(cost),
        route: row.get(25)?,
        failed_on_route: row.get::<_, Option<u32>>(26)?.unwrap_or(failed),
        in_transaction: row.get(30)?,
        deadline_ms: row.get(18)?,
        expires_ms: row.get(19)?,
    };
    Ok(Hot {
        seq: row.get(0)?,
        lane: row.get(1)?,
        record,
        entries: row.get(20)?,
        enqueued_ms: row.get(21)?,
        agent: row.get(22)?,
        boot_id: row.get(23)?,
        id: row.get(24)?,
        primary: name(row, 27)?,
    })
}

/// An amount of a column.
pub(super) fn cost(micros: i64) -> Cost {
    Cost::from_micros(micros.max(0).unsigned_abs())
}

/// An amount for a column. More than fits is no sum of anything.
pub(super) fn micros(cost: Cost) -> i64 {
    i64::try_from(cost.micros()).unwrap_or(i64::MAX)
}

/// What is written of the failures on a task's route: nothing where all failures are.
pub(super) fn failed_on_route(record: &Record) -> Option<u32> {
    (record.failed_on_route != record.ledger.failed).then_some(record.failed_on_route)
}

/// The number of a state in the tables.
pub(super) const fn state_number(state: TaskState) -> i64 {
    format::state_number(state) as i64
}

pub(super) fn state_from(number: i64) -> rusqlite::Result<TaskState> {
    let state = u8::try_from(number).ok().and_then(format::state_from);
    state.ok_or_else(|| FromSqlError::OutOfRange(number).into())
}

pub(super) fn priority_from(rank: i64) -> rusqlite::Result<Priority> {
    let priority = u8::try_from(rank).ok().and_then(format::priority_from);
    priority.ok_or_else(|| FromSqlError::OutOfRange(rank).into())
}

/// The counts of failures by class; `None` when nothing was counted.
pub(super) fn class_counts(record: &Record) -> Option<Vec<u8>> {
    Some(format::class_counts(&record.class_failures, record.called)).filter(|counts| !counts.is_empty())
}

pub(super) const fn ending_name(end: AttemptEnd) -> &'static str {
    match end {
        AttemptEnd::Succeeded => "succeeded",
        AttemptEnd::Failed => "failed",
        AttemptEnd::Snoozed => "snoozed",
        AttemptEnd::Released => "released",
        AttemptEnd::Lost => "lost",
        AttemptEnd::Undelivered => "undelivered",
        AttemptEnd::Cancelled => "cancelled",
        AttemptEnd::Reported => "reported",
        AttemptEnd::Redriven => "redriven",
        AttemptEnd::HandedOff => "handed_off",
    }
}

/// Reads a JSON column.
pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let Some(text) = row.get_ref(column)?.as_str_or_null()? else { return Ok(None) };
    parse(text, column).map(Some)
}

/// Reads a payload or a result.
pub(super) fn content(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Content>> {
    let Some(text) = row.get_ref(column)?.as_str_or_null()? else { return Ok(None) };
    format::content_from(text).map(Some).map_err(|error| corrupt(column, error))
}

/// Reads a text column as a checked name.
pub(super) fn name<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<Option<T>> {
    let Some(text) = row.get_ref(column)?.as_str_or_null()? else { return Ok(None) };
    text.parse().map(Some).map_err(|error| corrupt(column, error))
}

/// Like [`name`], where there always is one.
pub(super) fn required<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    name(row, column)?.ok_or_else(|| FromSqlError::InvalidType.into())
}

/// Parses JSON that the store wrote itself.
pub(super) fn parse<T: DeserializeOwned>(text: &str, column: usize) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| corrupt(column, error))
}

/// A row that this release cannot read.
pub(super) fn corrupt(
    column: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

/// Whether an error says that a row holds something that this release does not understand.
pub(super) fn is_unreadable(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
    matches!(error, FromSqlConversionFailure(..) | InvalidColumnType(..) | IntegralValueOutOfRange(..))
}

/// Writes a JSON column.
pub(super) fn to_json<T: serde::Serialize + ?Sized>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// An integer column that may be missing, without inference at every call site.
pub(super) fn optional<T: FromSql>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    row.get(column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_stored_as_they_travel() {
        for end in [AttemptEnd::Succeeded, AttemptEnd::Undelivered, AttemptEnd::HandedOff] {
            assert_eq!(serde_json::to_value(end).unwrap(), ending_name(end));
        }
    }
}
