//! What a gate stands before.

use std::borrow::Cow;
use std::fmt;

use crate::id::Name;

/// What keys begin with in stores. A name has no space, so none of a dependency begins like this.
const QUEUE: &str = "queue ";
/// See [`QUEUE`]. Queue and group follow, with a space between them.
const GROUP: &str = "group ";

/// The tasks that one gate holds back. A task can be behind three: that of its dependency, of its queue, and of its group there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Those that need an upstream, in any queue.
    Dependency(Name),
    /// Those of a queue, whatever they need.
    Queue(Name),
    /// Those of one group of a queue.
    Group {
        /// The queue.
        queue: Name,
        /// The group.
        group: Name,
    },
}

impl Scope {
    /// The dependency, if it is one's.
    pub const fn dependency(&self) -> Option<&Name> {
        match self {
            Self::Dependency(dependency) => Some(dependency),
            Self::Queue(_) | Self::Group { .. } => None,
        }
    }

    /// The queue outside of which it holds nothing back.
    pub const fn queue(&self) -> Option<&Name> {
        match self {
            Self::Dependency(_) => None,
            Self::Queue(queue) | Self::Group { queue, .. } => Some(queue),
        }
    }

    /// How stores name it: a dependency by its name alone.
    pub fn key(&self) -> Cow<'_, str> {
        match self {
            Self::Dependency(dependency) => Cow::Borrowed(dependency.as_str()),
            Self::Queue(queue) => Cow::Owned(format!("{QUEUE}{queue}")),
            Self::Group { queue, group } => Cow::Owned(format!("{GROUP}{queue} {group}")),
        }
    }

    /// What a store names so; none: it is of no kind that is known here.
    pub fn of_key(key: &str) -> Option<Self> {
        if let Some(queue) = key.strip_prefix(QUEUE) {
            return Some(Self::Queue(Name::new(queue).ok()?));
        }
        if let Some((queue, group)) = key.strip_prefix(GROUP).and_then(|rest| rest.split_once(' ')) {
            return Some(Self::Group { queue: Name::new(queue).ok()?, group: Name::new(group).ok()? });
        }
        Some(Self::Dependency(Name::new(key).ok()?))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dependency(dependency) => write!(f, "dependency `{dependency}`"),
            Self::Queue(queue) => write!(f, "queue `{queue}`"),
            Self::Group { queue, group } => write!(f, "group `{group}` of queue `{queue}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_one_scope_each_and_those_of_dependencies_are_their_names() {
        let name = |text: &str| Name::new(text).unwrap();
        let scopes = [
            (Scope::Dependency(name("queue")), "queue"),
            (Scope::Dependency(name("openai/main/gpt")), "openai/main/gpt"),
            (Scope::Queue(name("emails")), "queue emails"),
            (Scope::Group { queue: name("emails"), group: name("tenant-7") }, "group emails tenant-7"),
        ];
        for (scope, key) in scopes {
            assert_eq!(scope.key(), key);
            assert_eq!(Scope::of_key(key), Some(scope));
        }
        for unknown in ["", "queue ", "queue a b", "group a", "group  a", "group a ", "group a b c", "task 7"]
        {
            assert_eq!(Scope::of_key(unknown), None, "{unknown:?}");
        }
    }
}
