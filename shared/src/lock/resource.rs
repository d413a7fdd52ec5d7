//! What is locked.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Longest name of a resource, in bytes.
pub const RESOURCE_MAX_BYTES: usize = 1_024;

/// The name of what is locked: any text in one line, such as `db/customers/17`, or a file's path. Two names are one resource
/// only if they are equal byte by byte; so a path has to be canonical, and one that visibly is not is refused. What only the
/// file system knows (symbolic links, names that differ in case alone) is resolved by whoever names the file:
/// `redrive lock --path` does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String)]
pub struct Resource(Box<str>);

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// Nothing there.
    #[error("must not be empty")]
    Empty,
    /// Longer than its bound.
    #[error("has {0} bytes; at most {RESOURCE_MAX_BYTES} are allowed: use a hash of it")]
    TooLong(usize),
    /// Something that cannot be seen: two names that look alike would be two locks.
    #[error("contains the control character {0:?}")]
    Control(char),
    /// A space where nobody sees it.
    #[error("begins or ends with white space")]
    Space,
    /// `.`, `..` or nothing between two slashes: the same file would have two names.
    #[error(
        "has the part {0:?}; name a file by its canonical path (realpath prints it), without . and .. and with single slashes"
    )]
    Part(String),
}

impl Resource {
    /// Checks and takes the name. Refuses what [`ResourceError`] lists.
    pub fn new(text: impl Into<String>) -> Result<Self, ResourceError> {
        let text = text.into();
        if text.is_empty() {
            return Err(ResourceError::Empty);
        }
        if text.len() > RESOURCE_MAX_BYTES {
            return Err(ResourceError::TooLong(text.len()));
        }
        if let Some(found) = text.chars().find(|c| c.is_control()) {
            return Err(ResourceError::Control(found));
        }
        if text.trim().len() != text.len() {
            return Err(ResourceError::Space);
        }
        // The first slash of an absolute path has nothing before it.
        let parts = text.strip_prefix('/').unwrap_or(&text).split('/');
        if let Some(part) = parts.into_iter().find(|part| matches!(*part, "" | "." | "..")) {
            return Err(ResourceError::Part(part.to_owned()));
        }
        Ok(Self(text.into_boxed_str()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Resource {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::new(text).map_err(|error| format!("the resource {error}"))
    }
}

impl Borrow<str> for Resource {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_has_one_name() {
        for good in ["report.md", "/srv/out/report 1.md", "db/customers/17", "käse", "a..b/.c"] {
            assert!(Resource::new(good).is_ok(), "{good}");
        }
        let refused = |text: &str| Resource::new(text).unwrap_err();
        assert_eq!(refused(""), ResourceError::Empty);
        assert_eq!(refused(&"x".repeat(1_025)), ResourceError::TooLong(1_025));
        assert_eq!(refused("a\0b"), ResourceError::Control('\0'));
        assert_eq!(refused(" a"), ResourceError::Space);
        for (text, part) in
            [("../a", ".."), ("a/../b", ".."), ("/a//b", ""), ("./a", "."), ("a/", ""), ("/", "")]
        {
            assert_eq!(refused(text), ResourceError::Part(part.to_owned()), "{text}");
        }
    }
}
