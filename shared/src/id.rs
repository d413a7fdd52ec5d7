//! Identifiers that callers choose, checked once where they come in.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limits::{NAME_MAX_BYTES, TASK_ID_MAX_BYTES};

/// Why a name or an id is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("must not be empty")]
    Empty,
    /// Longer than its bound.
    #[error("has {got} bytes; at most {max} are allowed")]
    TooLong {
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// `.` or `..`.
    #[error("must not be . or .., which mean something else in a path")]
    Dots,
    /// A character that would break logs, metric labels or paths.
    #[error("contains {0:?}; use letters, digits and - _ . : / @ + = ~ #")]
    Character(char),
}

/// The ASCII characters that are allowed. A table: every name and id of every call is looked at byte by byte.
const PLAIN: [bool; 256] = {
    let (mut plain, mut byte) = ([false; 256], 0);
    while byte < 128 {
        let here = byte as u8;
        plain[byte] = here.is_ascii_alphanumeric()
            || matches!(here, b'-' | b'_' | b'.' | b':' | b'/' | b'@' | b'+' | b'=' | b'~' | b'#');
        byte += 1;
    }
    plain
};

fn check(text: &str, max: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > max {
        return Err(NameError::TooLong { got: text.len(), max });
    }
    if matches!(text, "." | "..") {
        // Every URL library rewrites a path with such a part.
        return Err(NameError::Dots);
    }
    // Nearly all are; decoding characters costs several times as much.
    if text.bytes().all(|byte| PLAIN[usize::from(byte)]) {
        return Ok(());
    }
    let allowed = |c: char| if c.is_ascii() { PLAIN[c as usize] } else { c.is_alphanumeric() };
    text.chars().find(|c| !allowed(*c)).map_or(Ok(()), |c| Err(NameError::Character(c)))
}

macro_rules! checked_string {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String")]
        #[schema(value_type = String)]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks and takes the text. Refuses what [`NameError`] lists.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                check(&text, $max)?;
                Ok(Self(text.into_boxed_str()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                Self::new(text).map_err(|error| format!("{} {error}", stringify!($name)))
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_string!(
    /// A task's id: the caller's own, unique in its namespace, or a UUIDv7. At most 128 bytes.
    TaskId,
    TASK_ID_MAX_BYTES
);

checked_string!(
    /// The name of a queue, an agent, a task type, a group or a dependency. At most 128 bytes.
    Name,
    NAME_MAX_BYTES
);

impl TaskId {
    /// A new id that sorts by time of making.
    pub fn generate() -> Self {
        let mut text = uuid::Uuid::encode_buffer();
        Self(Box::from(&*uuid::Uuid::now_v7().hyphenated().encode_lower(&mut text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_where_they_come_in() {
        assert!(TaskId::new("order-17:charge/1").is_ok());
        assert!(Name::new("anthropic/acct-1/claude-opus").is_ok());
        assert_eq!(Name::new(""), Err(NameError::Empty));
        assert_eq!(Name::new(".."), Err(NameError::Dots));
        assert_eq!(Name::new("a\nb"), Err(NameError::Character('\n')));
        assert_eq!(TaskId::new("x".repeat(129)), Err(NameError::TooLong { got: 129, max: 128 }));
        let refused = serde_json::from_str::<Name>("\"a b\"").unwrap_err().to_string();
        assert!(refused.contains("Name contains ' '"), "{refused}");
    }

    #[test]
    fn generated_ids_are_valid_and_distinct() {
        let (a, b) = (TaskId::generate(), TaskId::generate());
        assert_ne!(a, b);
        assert!(TaskId::new(a.as_str()).is_ok());
    }
}
