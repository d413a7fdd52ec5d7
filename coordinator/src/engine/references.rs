//! References to blobs, checked before the store is asked: no task comes to refer to what is not there.

use std::collections::BTreeMap;
use std::slice;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use redrive_shared::blob::BlobRef;
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::id::TaskId;
use tokio::time::timeout;

use super::blobs::{failed, no_blobs};
use super::{Engine, Result, unavailable};
use crate::blobs::{BlobError, BlobKey, Depot};

/// References of one batch that are looked at in the storage at once: enough that a batch does not take as long as its items in a
/// row, and few enough for storage that bounds its connections.
const CHECKS_AT_ONCE: usize = 32;

/// How long storage may take to say whether a blob is there: less than those wait who sent the batch, whose other items must not
/// wait for it.
const PATIENCE: Duration = Duration::from_secs(3);

/// What an item of a batch wants its task to refer to.
#[derive(Debug, Clone)]
pub(super) struct Reference {
    /// The item's place.
    pub place: usize,
    /// The task.
    pub id: TaskId,
    /// The blob.
    pub blob: BlobRef,
}

impl Engine {
    /// What is wrong with those of a batch that no task may have, by their items' places.
    pub(super) async fn refused_references(&self, references: Vec<Reference>) -> BTreeMap<usize, Problem> {
        let checks: Vec<_> =
            references.into_iter().map(|reference| self.refused_reference(reference)).collect();
        let refused: Vec<_> = stream::iter(checks).buffer_unordered(CHECKS_AT_ONCE).collect().await;
        refused.into_iter().flatten().collect()
    }

    async fn refused_reference(&self, reference: Reference) -> Option<(usize, Problem)> {
        let problem = self.check_reference(&reference.id, &reference.blob).await.err()?;
        Some((reference.place, problem))
    }

    /// Whether a task may refer to that blob: it was uploaded for it lately, or the task refers to it already, as a request
    /// that is repeated after a long time finds.
    pub(super) async fn check_reference(&self, id: &TaskId, blob: &BlobRef) -> Result<()> {
        let depot = self.depot().ok_or_else(no_blobs)?;
        match timeout(PATIENCE, self.look_for(depot, id, blob)).await {
            Ok(found) => found,
            Err(_) => {
                let why = format!("no answer within {} s", PATIENCE.as_secs());
                Err(failed(depot, BlobError::Unavailable(why)))
            }
        }
    }

    async fn look_for(&self, depot: &Depot, id: &TaskId, blob: &BlobRef) -> Result<()> {
        if depot.may_be_referred_to(id, blob).await.map_err(|error| failed(depot, error))? {
            return Ok(());
        }
        let known = self.store.blobs(slice::from_ref(id)).await.map_err(unavailable)?;
        // Of a task that cannot be read nothing is known.
        if known.iter().flatten().flatten().any(|known| *known == blob.blob) {
            let key = BlobKey { task: id.clone(), blob: blob.blob };
            let bytes = depot.blobs().length(&key).await.map_err(|error| failed(depot, error))?;
            if bytes == Some(blob.bytes) {
                return Ok(());
            }
        }
        let detail = format!(
            "task `{id}` has no blob {} of {} bytes, or it is too old to be referred to: upload it again",
            blob.blob, blob.bytes
        );
        Err(Problem::new(ErrorCode::UnknownBlob, detail))
    }
}

/// The blob was there when it was looked for, and was too old when the store was to write what refers to it.
pub(super) fn too_old(id: &TaskId) -> Problem {
    let detail = format!("the payload of task `{id}` has become too old to be referred to: upload it again");
    Problem::new(ErrorCode::UnknownBlob, detail)
}
