//! Who holds a lock.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
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

/// An owner, as a request may name it: with nothing beside it, since a field that is mistyped would name another owner.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    task: Option<TaskId>,
    epoch: Option<i64>,
    name: Option<Name>,
}

impl Owner {
    /// Reads an owner out of a request, where what is not known is refused. In replies it is passed over.
    ///
    /// # Errors
    /// It has other fields, too few of them, or those of both kinds.
    pub fn strict<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Fields { task, epoch, name } = Fields::deserialize(deserializer)?;
        match (task, epoch, name) {
            (Some(task), Some(epoch), None) => Ok(Self::Attempt { task, epoch }),
            (None, None, Some(name)) => Ok(Self::Named { name }),
            (Some(_), None, None) => Err(D::Error::custom(
                "`epoch` is missing: a task's lock belongs to one lease; send that lease's epoch",
            )),
            (None, Some(_), None) => {
                Err(D::Error::custom("`task` is missing: an epoch is that of a task's lease; name the task"))
            }
            (None, None, None) => Err(D::Error::custom(
                "an owner is missing: send the `task` and the `epoch` of a lease, or a `name` that nobody else uses",
            )),
            (_, _, Some(_)) => Err(D::Error::custom(
                "an owner is an attempt of a task or a `name`, not both; leave out one of them",
            )),
        }
    }
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
