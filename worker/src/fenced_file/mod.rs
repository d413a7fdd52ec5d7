//! A file that only the holder of the newest lock may replace, and that is never seen half written.
//!
//! A lock alone does not keep two writers apart: who was granted it may sleep past its end (a stopped process, a slow disk, a
//! virtual machine that was moved) and write then. So each writer brings its lock's fencing token, and the file remembers the
//! highest one. In this order, each step on disk before the next:
//!
//! 1. the new contents, into a file of their own in the same directory;
//! 2. the file's fence is locked by `flock`; a token lower than the highest one so far is refused, and so is a file that
//!    changed since the caller read it;
//! 3. the token is written into the fence;
//! 4. the new contents take the file's name (`rename`), and the directory is flushed.
//!
//! Killed anywhere, that leaves the old file or the new one, whole. Killed between 3 and 4 it leaves the old one and the new
//! token: whoever held that lock, or a later one, can commit again.
//!
//! **What it cannot do.** It holds among those who commit through it on one host: a writer that opens the file itself goes past
//! it, and on network file systems it is as good as their `flock` and `rename`. A writer that is stopped between 2 and 4 makes
//! others wait until it goes on or is killed. Owner, extended attributes and hard links of the old file are not taken over; its
//! permissions are. The fence lies beside the file (`.NAME.fence`) and has to live as long: without it any token is good.

mod error;
mod fence;
mod place;
mod stage;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use redrive_shared::lock::Token;

pub use self::error::FencedFileError;
use self::fence::Fence;
use self::place::Place;
use self::stage::Stage;
use crate::telemetry;

/// Largest file that is written where the caller does not say, in bytes: 1 GiB.
pub const FILE_MAX_BYTES: u64 = 1 << 30;
/// How long a commit waits for others that commit, where the caller does not say.
pub const COMMIT_WAIT: Duration = Duration::from_secs(10);

/// SHA-256 of a file's contents.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sha256([u8; 32]);

/// What a file has to be for a commit to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Not there.
    Absent,
    /// There, with these contents.
    Contents(Sha256),
}

/// How to commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Of the lock under which the contents were made. At least 1.
    pub token: Token,
    /// What the file has to be, for contents that were made from it.
    pub expected: Option<Expected>,
    /// Most bytes that are written.
    pub max_bytes: u64,
    /// How long to wait for others that commit.
    pub wait: Duration,
}

impl Commit {
    /// With the lock's token, and everything else as it usually is.
    pub fn new(token: Token) -> Self {
        Self { token, expected: None, max_bytes: FILE_MAX_BYTES, wait: COMMIT_WAIT }
    }
}

/// What was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Its length in bytes.
    pub bytes: u64,
    /// Its hash: what the next commit expects.
    pub sha256: Sha256,
}

/// A file that is replaced under fencing tokens. All calls block: in async code, use `spawn_blocking`.
#[derive(Debug, Clone)]
pub struct FencedFile {
    place: Place,
}

impl FencedFile {
    /// The file at a path. Symbolic links are followed: however it is named, it has one fence.
    ///
    /// # Errors
    /// The path names no file that could be replaced: its directory is missing, it is a directory, or something that is no
    /// ordinary file.
    pub fn at(path: impl AsRef<Path>) -> Result<Self, FencedFileError> {
        Ok(Self { place: Place::of(path.as_ref())? })
    }

    /// Where it is, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.place.target
    }

    /// Replaces the file's contents, or makes the file.
    ///
    /// # Errors
    /// [`FencedFileError`]: then the file is as it was, except after [`FencedFileError::Io`] at its very end, which says so.
    pub fn commit(&self, contents: impl Read, commit: &Commit) -> Result<Committed, FencedFileError> {
        if commit.token.0 < 1 {
            return Err(FencedFileError::Token(commit.token));
        }
        // Cheap to find out before anything is written; found out once more under the lock.
        self.check_token(commit.token, Fence::look(&self.place)?)?;
        let staged = Stage::new(&self.place)?.fill(contents, commit.max_bytes)?;
        let mut fence = Fence::lock(&self.place, commit.wait)?;
        self.check_token(commit.token, fence.token())?;
        self.check_expected(commit.expected)?;
        fence.raise(commit.token)?;
        staged.take_name_of(&self.place)
    }

    /// The highest token that the file was committed with; none: it never was.
    ///
    /// # Errors
    /// The fence cannot be read.
    pub fn token(&self) -> Result<Option<Token>, FencedFileError> {
        Fence::look(&self.place)
    }

    /// The hash of the file as it is; none: it is not there.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn sha256(&self) -> Result<Option<Sha256>, FencedFileError> {
        let failed = |error| FencedFileError::io("read", &self.place.target, error);
        match File::open(&self.place.target) {
            Ok(mut file) => Ok(Some(stage::copy(&mut file, io::sink()).map_err(failed)?.sha256)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn check_token(&self, given: Token, highest: Option<Token>) -> Result<(), FencedFileError> {
        match highest {
            Some(highest) if given < highest => {
                telemetry::fence_rejected();
                Err(FencedFileError::Stale { path: self.place.target.clone(), given, highest })
            }
            _ => Ok(()),
        }
    }

    fn check_expected(&self, expected: Option<Expected>) -> Result<(), FencedFileError> {
        let Some(expected) = expected else { return Ok(()) };
        let found = self.sha256()?;
        let same = match expected {
            Expected::Absent => found.is_none(),
            Expected::Contents(sha256) => found == Some(sha256),
        };
        let path = self.place.target.clone();
        if same { Ok(()) } else { Err(FencedFileError::Changed { path, expected, found }) }
    }
}

impl Sha256 {
    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let value = |digit: u8| char::from(digit).to_digit(16);
            *byte = u8::try_from(value(pair[0])? * 16 + value(pair[1])?).ok()?;
        }
        Some(Self(bytes))
    }
}

impl std::fmt::Display for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sha256({self})")
    }
}

/// The directory of a file that is being committed, and names beside it.
fn beside(target: &Path, name: &str) -> PathBuf {
    target.with_file_name(name)
}

#[cfg(test)]
mod tests;
