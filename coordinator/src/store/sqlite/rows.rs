//! How records look in rows: the stored format, in one place.

use redrive_shared::failure::FailureClass;
use redrive_shared::lifecycle::{ClassCounts, Record};
use redrive_shared::task::{AttemptEnd, Ledger, Nonce, Priority, TaskState};
use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError};
use serde::de::DeserializeOwned;

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
}

/// Columns of a hot row, in the order that every `load_*.sql` selects them; a body's columns start after them.
pub(super) const HOT_COLUMNS: usize = 25;

pub(super) fn hot(row: &Row<'_>) -> rusqlite::Result<Hot> {
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
            failed: row.get(10)?,
            lost: row.get(11)?,
            undelivered: row.get(12)?,
            deferred: row.get(13)?,
            released: row.get(14)?,
        },
        class_failures: class_counts_from(row.get_ref(15)?.as_blob_or_null()?),
        previous_delay_ms: row.get::<_, Option<i64>>(16)?.map(i64::cast_unsigned),
        max_attempts: row.get(17)?,
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
    })
}

/// The number of a state in the tables. Part of the stored format: numbers are never given a second meaning.
pub(super) const fn state_number(state: TaskState) -> i64 {
    match state {
        TaskState::Scheduled => 0,
        TaskState::Leased => 1,
        TaskState::Succeeded => 2,
        TaskState::Dead => 3,
        TaskState::Escalated => 4,
        TaskState::Cancelled => 5,
    }
}

pub(super) fn state_from(number: i64) -> rusqlite::Result<TaskState> {
    TaskState::ALL
        .into_iter()
        .find(|state| state_number(*state) == number)
        .ok_or_else(|| FromSqlError::OutOfRange(number).into())
}

pub(super) fn priority_from(rank: i64) -> rusqlite::Result<Priority> {
    [Priority::High, Priority::Normal, Priority::Low]
        .into_iter()
        .find(|priority| crate::store::rank(*priority) == rank)
        .ok_or_else(|| FromSqlError::OutOfRange(rank).into())
}

/// The number of a class in the tables. Part of the stored format: numbers are never given a second meaning.
const fn class_number(class: FailureClass) -> u8 {
    match class {
        FailureClass::RateLimited => 0,
        FailureClass::Overloaded => 1,
        FailureClass::ServerError => 2,
        FailureClass::Timeout => 3,
        FailureClass::Network => 4,
        FailureClass::PartialResponse => 5,
        FailureClass::QuotaExhausted => 6,
        FailureClass::QuotaWindow => 7,
        FailureClass::Auth => 8,
        FailureClass::Permission => 9,
        FailureClass::ModelUnavailable => 10,
        FailureClass::ContextOverflow => 11,
        FailureClass::ContentPolicy => 12,
        FailureClass::Refusal => 13,
        FailureClass::BadOutput => 14,
        FailureClass::Conflict => 15,
        FailureClass::InvalidRequest => 16,
        FailureClass::ToolError => 17,
        FailureClass::BusinessRule => 18,
        FailureClass::WorkerLost => 19,
        FailureClass::LockTimeout => 20,
        FailureClass::Unknown => 21,
    }
}

/// Pairs of bytes, (number of the class, count up to 255); `None` when nothing was counted.
pub(super) fn class_counts(counts: &ClassCounts) -> Option<Vec<u8>> {
    if counts.is_empty() {
        return None;
    }
    let count = |count: u32| u8::try_from(count).unwrap_or(u8::MAX);
    Some(counts.iter().flat_map(|(class, seen)| [class_number(class), count(seen)]).collect())
}

fn class_counts_from(bytes: Option<&[u8]>) -> ClassCounts {
    let class = |number: u8| FailureClass::ALL.into_iter().find(|class| class_number(*class) == number);
    let pairs = bytes.unwrap_or_default().chunks_exact(2);
    pairs.filter_map(|pair| Some((class(pair[0])?, u32::from(pair[1])))).collect()
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
    }
}

/// Reads a JSON column.
pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let Some(text) = row.get_ref(column)?.as_str_or_null()? else { return Ok(None) };
    parse(text, column).map(Some)
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
    fn every_state_and_class_survives_its_number() {
        for state in TaskState::ALL {
            assert_eq!(state_from(state_number(state)).unwrap(), state);
        }
        assert!(state_from(99).is_err());
        let counts: ClassCounts = FailureClass::ALL.into_iter().map(|class| (class, 3)).collect();
        assert_eq!(class_counts_from(class_counts(&counts).as_deref()), counts);
        assert_eq!(class_counts(&ClassCounts::default()), None);
        // Pinned: a store of an older release must read the same.
        let numbers: Vec<u8> = FailureClass::ALL.into_iter().map(class_number).collect();
        assert_eq!(numbers, (0..22).collect::<Vec<u8>>());
    }

    #[test]
    fn endings_are_stored_as_they_travel() {
        for end in [AttemptEnd::Succeeded, AttemptEnd::Undelivered, AttemptEnd::Redriven] {
            assert_eq!(serde_json::to_value(end).unwrap(), ending_name(end));
        }
    }
}
