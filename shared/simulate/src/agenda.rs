//! What happens next, in virtual time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Events by their instant; those of the same instant in the order in which they were noted, so that a seed decides
/// everything.
#[derive(Debug)]
pub(crate) struct Agenda<E> {
    heap: BinaryHeap<Entry<E>>,
    noted: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at_us: u64,
    number: u64,
    event: E,
}

impl<E> Agenda<E> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), noted: 0 }
    }

    pub(crate) fn note(&mut self, at_us: u64, event: E) {
        self.heap.push(Entry { at_us, number: self.noted, event });
        self.noted += 1;
    }

    pub(crate) fn next(&mut self) -> Option<(u64, E)> {
        self.heap.pop().map(|entry| (entry.at_us, entry.event))
    }
}

impl<E> Ord for Entry<E> {
    /// The earliest is the greatest: the heap hands out the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_us, other.number).cmp(&(self.at_us, self.number))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<E> Eq for Entry<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_their_instant_and_then_in_the_order_in_which_they_were_noted() {
        let mut agenda = Agenda::new();
        for (at_us, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (3, 'b')] {
            agenda.note(at_us, event);
        }
        let order: Vec<char> = std::iter::from_fn(|| agenda.next()).map(|(_, event)| event).collect();
        assert_eq!(order, ['a', 'b', 'c', 'd']);
    }
}
