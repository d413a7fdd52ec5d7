//! Cutting a stream of tasks into requests that the coordinator takes.

use redrive_shared::limits::{BATCH_MAX_ITEMS, BODY_MAX_BYTES};

/// `{"tasks":[` and `]}`.
const ENVELOPE_BYTES: usize = 12;

/// Largest single item: one that fills a request alone.
pub const ITEM_MAX_BYTES: usize = BODY_MAX_BYTES - ENVELOPE_BYTES - 1;

/// Gathers items until a request is full.
#[derive(Debug)]
pub struct Batcher<T> {
    items: Vec<T>,
    bytes: usize,
}

impl<T> Batcher<T> {
    /// An empty one.
    pub fn new() -> Self {
        Self { items: Vec::new(), bytes: ENVELOPE_BYTES }
    }

    /// Adds an item of `bytes` bytes of JSON, at most [`ITEM_MAX_BYTES`]. When it does not fit any more, what was
    /// gathered before it comes back, to be sent first.
    pub fn push(&mut self, item: T, bytes: usize) -> Option<Vec<T>> {
        let with_comma = bytes + 1;
        let full = self.items.len() == BATCH_MAX_ITEMS || self.bytes + with_comma > BODY_MAX_BYTES;
        let sent_first = (full && !self.items.is_empty()).then(|| self.take());
        self.items.push(item);
        self.bytes += with_comma;
        sent_first
    }

    /// Everything gathered so far.
    pub fn take(&mut self) -> Vec<T> {
        self.bytes = ENVELOPE_BYTES;
        std::mem::take(&mut self.items)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(sizes: &[usize]) -> Vec<Vec<usize>> {
        let mut batcher = Batcher::new();
        let mut batches: Vec<_> = sizes.iter().filter_map(|size| batcher.push(*size, *size)).collect();
        if !batcher.is_empty() {
            batches.push(batcher.take());
        }
        batches
    }

    #[test]
    fn a_batch_ends_at_a_thousand_items() {
        let batches = split(&[10; 2_001]);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [1_000, 1_000, 1]);
        assert_eq!(split(&[]), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn no_request_is_larger_than_the_coordinator_takes_and_nothing_is_lost_or_reordered() {
        let sizes: Vec<usize> =
            (0..300).map(|i| 1 + (i * 7_919) % 200_000).chain([ITEM_MAX_BYTES, 1]).collect();
        let batches = split(&sizes);
        assert!(batches.len() > 2);
        for batch in &batches {
            let body = ENVELOPE_BYTES + batch.iter().sum::<usize>() + batch.len() - 1;
            assert!(!batch.is_empty() && body <= BODY_MAX_BYTES, "{body}");
        }
        assert_eq!(batches.concat(), sizes);
    }
}
