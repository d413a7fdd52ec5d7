//! Connections for writes that wait for replicas.
//!
//! `WAIT` counts the replicas that have what *its own connection* wrote, and blocks that connection meanwhile. So such
//! writes have connections of their own, each with one write at a time, and reads are never behind one.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::dial::Wire;

/// Connections in a pool: writes to replicas under way at once. The store writes in batches, so few are needed.
pub(super) const WRITERS: usize = 4;

/// Connections that are lent to one caller at a time.
pub(super) struct Pool {
    free: Mutex<Vec<Wire>>,
    places: Semaphore,
}

impl Pool {
    pub(super) fn new(wires: Vec<Wire>) -> Self {
        Self { places: Semaphore::new(wires.len()), free: Mutex::new(wires) }
    }

    /// One that is free, or the next that will be.
    pub(super) async fn take(&self) -> Option<Lent<'_>> {
        let place = self.places.acquire().await.ok()?;
        let wire = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Lent { pool: self, wire, _place: place })
    }
}

/// A connection on loan; it goes back when this is dropped.
pub(super) struct Lent<'a> {
    pool: &'a Pool,
    wire: Wire,
    _place: SemaphorePermit<'a>,
}

impl Lent<'_> {
    pub(super) fn wire(&self) -> Wire {
        self.wire.clone()
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        // Before the permit, which is a field: whoever gets that finds a connection.
        self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.wire.clone());
    }
}
