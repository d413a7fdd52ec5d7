//! Blobs: JSON too large to lie in the store. It goes to object storage, and a reference takes its place: the *claim check* of
//! Hohpe and Woolf's Enterprise Integration Patterns.
//!
//! A blob belongs to one task, is written once and never changed. Its reference says how long it is and what its hash is, so
//! that whoever fetches it knows whether it got what was meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

/// Names a blob among those of its task. It begins with when it was made, so that one which nothing ever referred to shows
/// its age by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, example = "01975cc4-6c00-7a3e-b1f5-3d1c5a0e9b42")]
pub struct BlobId(Uuid);

impl BlobId {
    /// A name that nobody else has, made at that moment (ms since the Unix epoch; before it counts as at it).
    pub fn new(now_ms: i64, random: [u8; 10]) -> Self {
        let now_ms = u64::try_from(now_ms).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(now_ms, &random).into_uuid())
    }

    /// When it was made, in ms since the Unix epoch.
    pub fn made_at_ms(self) -> i64 {
        // The first 48 bits of a UUID of version 7 (RFC 9562, 5.7).
        i64::try_from(self.0.as_u128() >> 80).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// A text that names no blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a blob's name is a UUID of version 7, as the upload's answer gave it")]
pub struct NotABlobId;

impl FromStr for BlobId {
    type Err = NotABlobId;

    fn from_str(text: &str) -> Result<Self, NotABlobId> {
        match Uuid::try_parse(text) {
            Ok(id) if id.get_version_num() == 7 => Ok(Self(id)),
            _ => Err(NotABlobId),
        }
    }
}

/// A SHA-256, as 64 hex digits on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
pub struct Sha256Sum(pub [u8; 32]);

impl From<Sha256Sum> for String {
    fn from(sum: Sha256Sum) -> Self {
        sum.to_string()
    }
}

impl fmt::Display for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl TryFrom<String> for Sha256Sum {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || "a SHA-256 has 64 hex digits".to_owned();
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut sum = [0; 32];
        for (byte, digits) in sum.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(sum))
    }
}

/// What stands in the place of a blob's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BlobRef {
    /// Which of the task's blobs.
    pub blob: BlobId,
    /// Its length, in bytes.
    pub bytes: u64,
    /// Its hash.
    pub sha256: Sha256Sum,
}

impl BlobRef {
    /// Whether both say the same contents, whatever they are called.
    pub fn same_contents(&self, other: &Self) -> bool {
        (self.bytes, self.sha256) == (other.bytes, other.sha256)
    }

    /// Whether that JSON is its contents, byte for byte.
    pub fn is_of(&self, json: &str) -> bool {
        // The length first: mostly it tells, and costs nothing.
        self.bytes == json.len() as u64 && self.sha256.0 == *Sha256::digest(json)
    }
}

/// A payload, a result or a state: itself, or a reference to it.
#[derive(Debug, Clone)]
pub enum Content {
    /// The JSON, byte for byte.
    Inline(Box<RawValue>),
    /// Where it is.
    Blob(BlobRef),
}

impl From<Box<RawValue>> for Content {
    fn from(json: Box<RawValue>) -> Self {
        Self::Inline(json)
    }
}

impl Content {
    /// Of the two fields that carry it on the wire; the reference goes first.
    pub fn of(inline: Option<Box<RawValue>>, blob: Option<BlobRef>) -> Option<Self> {
        blob.map(Self::Blob).or_else(|| inline.map(Self::Inline))
    }

    /// As the two fields that carry it on the wire.
    pub fn split(self) -> (Option<Box<RawValue>>, Option<BlobRef>) {
        match self {
            Self::Inline(json) => (Some(json), None),
            Self::Blob(blob) => (None, Some(blob)),
        }
    }

    /// Its bytes, where it is not a blob.
    pub fn inline_bytes(&self) -> usize {
        match self {
            Self::Inline(json) => json.get().len(),
            Self::Blob(_) => 0,
        }
    }

    /// The blob that it refers to.
    pub fn blob(&self) -> Option<&BlobRef> {
        match self {
            Self::Inline(_) => None,
            Self::Blob(blob) => Some(blob),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_when_it_was_made() {
        for now_ms in [0, 1_700_000_000_123, (1 << 48) - 1] {
            let id = BlobId::new(now_ms, [7; 10]);
            assert_eq!(id.made_at_ms(), now_ms);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!(BlobId::new(-5, [0; 10]).made_at_ms(), 0);
        assert!(BlobId::new(1, [0xff; 10]) < BlobId::new(2, [0; 10]), "names are in order of time");
    }

    #[test]
    fn what_names_no_blob_is_refused() {
        // The third is of version 4: nobody knows how old it is.
        for text in ["", "../x", "9f86d081-884c-4d65-9a2f-eaa0c55ad015", "01975cc4"] {
            assert_eq!(text.parse::<BlobId>(), Err(NotABlobId), "{text}");
        }
    }

    #[test]
    fn a_reference_comes_back_as_it_was() {
        let blob = BlobRef { blob: BlobId::new(5, [1; 10]), bytes: 9, sha256: Sha256Sum([0xab; 32]) };
        let json = serde_json::to_string(&blob).unwrap();
        assert_eq!(serde_json::from_str::<BlobRef>(&json).unwrap(), blob);
        for hash in ["", &"g".repeat(64), &"é".repeat(32)] {
            assert!(Sha256Sum::try_from(hash.to_owned()).is_err(), "{hash}");
        }
    }
}
