//! How much room properties take on the wire. RabbitMQ sends and takes them in one frame, never more: whoever sends a larger
//! one loses the connection, and with it whatever others have under way.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

/// Most that is published. Frames have 128 KiB, RabbitMQ's default; the rest of the room is for the other properties, of
/// which none has more than 255 bytes, and for what a death adds to the headers.
pub(super) const HEADERS_MAX_BYTES: usize = 96 * 1_024;

/// Bytes of the headers that Redrive adds to a message, at most.
pub(super) const ROOM_OF_OURS: usize = 8 * 1_024;

/// Bytes that the headers take.
pub(super) fn headers(properties: &BasicProperties) -> usize {
    properties.headers().as_ref().map_or(0, table)
}

/// Bytes of a table.
pub(super) fn table(table: &FieldTable) -> usize {
    /// The length of a table or list, in four bytes.
    const LENGTH: usize = 4;
    // One byte for the length of the name, one for the type of the value.
    LENGTH + table.inner().iter().map(|(name, one)| 2 + name.as_str().len() + value(one)).sum::<usize>()
}

fn value(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::LongString(text) => 4 + text.as_bytes().len(),
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.as_slice().len(),
        AMQPValue::FieldArray(list) => {
            4 + list.as_slice().iter().map(|one| 1 + self::value(one)).sum::<usize>()
        }
        AMQPValue::FieldTable(inner) => table(inner),
        // Numbers, truth values, times: at most eight bytes.
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::FieldArray;

    use super::*;

    #[test]
    fn what_is_nested_counts() {
        let mut inner = FieldTable::default();
        inner.insert("text".into(), AMQPValue::LongString("x".repeat(1_000).into()));
        let list = FieldArray::from(vec![AMQPValue::FieldTable(inner.clone()), AMQPValue::FieldTable(inner)]);
        let mut outer = FieldTable::default();
        outer.insert("list".into(), AMQPValue::FieldArray(list));
        let weight = headers(&BasicProperties::default().with_headers(outer));
        assert!((2_000..2_100).contains(&weight), "{weight}");
        assert_eq!(headers(&BasicProperties::default()), 0);
    }
}
