//! Who holds a lock.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{Name, TaskId};

/// Who holds a lock: one attempt of a task, or anything that has a name of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = LockOwner)]
pub enum Owner {
    /// One attempt of a task. A later one (of a higher epoch) ends what earlier ones hold: the lease that they held it under
    /// is over.
    Attempt {
        /// The task.
        task: TaskId,
        /// The epoch of its lease.
        epoch: i64,
    },
    /// Somebody else, by a name that nobody else uses.
    Named {
        /// The name.
        name: Name,
    },
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attempt { task, epoch } => write!(f, "the attempt {epoch} of `{task}`"),
            Self::Named { name } => write!(f, "`{name}`"),
        }
    }
}

impl Owner {
    /// What all attempts of a task have in common; of others, the name.
    pub fn key(&self) -> &str {
        match self {
            Self::Attempt { task, .. } => task,
            Self::Named { name } => name,
        }
    }

    /// Whether this is an earlier attempt of the same task.
    pub fn is_before(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Attempt { task, epoch }, Self::Attempt { task: same, epoch: later }) => {
                task == same && epoch < later
            }
            _ => false,
        }
    }
}
