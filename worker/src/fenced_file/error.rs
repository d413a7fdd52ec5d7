//! Why a file is not committed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redrive_shared::lock::Token;

use super::{Expected, Sha256};

/// Why a file is not committed.
#[derive(Debug, thiserror::Error)]
pub enum FencedFileError {
    /// No lock has such a token.
    #[error("the token is {0}, but tokens begin at 1: use the one that the lock was granted with")]
    Token(Token),
    /// A later lock's holder has committed already.
    #[error(
        "{} was committed under the token {highest}, and {given} is older: the lock was lost meanwhile. Nothing was \
         changed; take the lock again and begin from the file as it is now", path.display()
    )]
    Stale {
        /// The file.
        path: PathBuf,
        /// The token that was brought.
        given: Token,
        /// The highest one that it was committed with.
        highest: Token,
    },
    /// It is not what the new contents were made from.
    #[error("{} {}, but {} was expected. Nothing was changed", path.display(), is(.found.as_ref()), wanted(expected))]
    Changed {
        /// The file.
        path: PathBuf,
        /// What was expected.
        expected: Expected,
        /// What is there.
        found: Option<Sha256>,
    },
    /// Others were committing all the time, or one is stopped in the middle of it.
    #[error(
        "another process has been committing {} for {} ms; it may be stopped. Nothing was changed", path.display(),
        waited.as_millis()
    )]
    Busy {
        /// The file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// More than may be written.
    #[error("there are more than {max_bytes} bytes to write to {}. Nothing was changed", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Most bytes allowed.
        max_bytes: u64,
    },
    /// The path names nothing that can be replaced.
    #[error("{} {why}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What it is.
        why: &'static str,
    },
    /// The fence was written by something else.
    #[error(
        "the fence {} is damaged: which token it holds cannot be told. Remove it once no process that was granted the lock \
         earlier is alive", path.display()
    )]
    Damaged {
        /// The fence.
        path: PathBuf,
    },
    /// The new contents could not be read.
    #[error("the new contents cannot be read: {0}")]
    Contents(#[source] io::Error),
    /// The system refused. The file is as it was.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is replaced, but whether that outlives a power cut is not known.
    #[error("{} is replaced, but its directory cannot be flushed: {source}; commit it once more", path.display())]
    NotFlushed {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl FencedFileError {
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), source }
    }
}

fn is(found: Option<&Sha256>) -> String {
    found.map_or("is not there".to_owned(), |sha256| format!("has the SHA-256 {sha256}"))
}

fn wanted(expected: &Expected) -> String {
    match expected {
        Expected::Absent => "no such file".to_owned(),
        Expected::Contents(sha256) => sha256.to_string(),
    }
}
