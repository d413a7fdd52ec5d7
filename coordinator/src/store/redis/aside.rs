//! Tasks that cannot be read: a newer release wrote them, or they are damaged. They hold up nobody: what looks through many
//! tasks passes them over, says so in one line of the log, and puts them off where they are.

use redrive_shared::id::TaskId;

use super::Inner;
use super::reach::Part;
use super::scripts::ASIDE;
use super::transition::Place;
use crate::store::{Result, StoreError};

/// Tells a task that cannot be read (`Ok(Err(_))`) from a store that does not work (`Err(_)`).
pub(super) fn readable<T>(tried: Result<T>) -> Result<Result<T>> {
    match tried {
        Err(error @ StoreError::Corrupt(_)) => Ok(Err(error)),
        Err(error) => Err(error),
        Ok(read) => Ok(Ok(read)),
    }
}

/// Tasks of one shard that were passed over in one sweep.
#[derive(Debug, Default)]
pub(super) struct Aside {
    passed_over: usize,
    /// The first of them, and why.
    first: Option<StoreError>,
    /// Where those are that are to be put off.
    places: Vec<(Place, TaskId)>,
}

impl Aside {
    /// What was tried with a task; none if it is passed over, since it cannot be read.
    pub fn pass_over<T>(
        &mut self,
        id: &TaskId,
        place: impl FnOnce() -> Option<Place>,
        tried: Result<T>,
    ) -> Result<Option<T>> {
        match readable(tried)? {
            Ok(read) => Ok(Some(read)),
            Err(error) => {
                self.passed_over += 1;
                self.first.get_or_insert(error);
                self.places.extend(place().map(|place| (place, id.clone())));
                Ok(None)
            }
        }
    }

    /// One line of the log for all of them: they may be many.
    pub fn tell(&self) {
        if let Some(error) = &self.first {
            tracing::error!(
                passed_over = self.passed_over,
                first = %error,
                "tasks that cannot be read are passed over; was a newer release here?"
            );
        }
    }
}

impl Inner {
    /// Says which tasks of a shard were passed over, and puts them off.
    pub async fn set_aside(&self, shard: u16, aside: Aside) -> Result<()> {
        aside.tell();
        if aside.places.is_empty() {
            return Ok(());
        }
        let mut call = ASIDE.on(self.keys.shard(shard));
        call.arg(self.time.argument());
        for (place, id) in &aside.places {
            call.arg(place.name()).arg(id.as_str());
        }
        self.noted(Part::Shard(shard), self.link.write(call)).await.map(|_| ())
    }
}
