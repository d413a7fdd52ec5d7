//! New contents, in a file of their own until they take the place of the old ones.
//!
//! Its name is one of a few, and whoever writes there holds its lock: what a killed writer left is found by the next one and
//! written over, so nothing piles up and nothing has to be swept. A new fence is written in the same way.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256 as Hasher};

use super::place::Place;
use super::{Committed, FencedFileError, Sha256};

/// Most writers of one file that prepare its contents at once.
const STAGES_MAX: usize = 64;
/// Permissions of contents that are not the file yet.
const PRIVATE: u32 = 0o600;
const COPY_BYTES: usize = 128 * 1024;

/// A file for new contents, that nobody else writes.
pub(super) struct Stage {
    file: File,
    path: PathBuf,
    target: PathBuf,
    /// It is the file now.
    is_named: bool,
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.is_named {
            // What stays is written over by the next writer.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// New contents, on disk.
pub(super) struct Staged {
    stage: Stage,
    committed: Committed,
}

impl Stage {
    pub fn new(place: &Place) -> Result<Self, FencedFileError> {
        for path in (0..STAGES_MAX).map(|number| place.stage(number)) {
            let failed = |error| FencedFileError::io("write", &path, error);
            let file = match open(&path) {
                Ok(file) => file,
                // Somebody else's, or a link that leads elsewhere: not to be touched.
                Err(error) if is_taken(&error) && path.symlink_metadata().is_ok() => continue,
                Err(error) => return Err(failed(error)),
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            // Between the opening and the lock it may have become the file itself.
            if !is_ours(&file, &path).map_err(failed)? {
                continue;
            }
            // What a killed writer left may have had the permissions of the file.
            file.set_permissions(Permissions::from_mode(PRIVATE)).map_err(failed)?;
            file.set_len(0).map_err(failed)?;
            return Ok(Self { file, path, target: place.target.clone(), is_named: false });
        }
        Err(FencedFileError::Path { path: place.target.clone(), why: "has 64 writers already" })
    }

    /// Writes a fence that is not there yet, flushes it, and lets it have its own name; then it has no other.
    pub fn publish(
        mut self,
        fence: &[u8],
        name: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), FencedFileError> {
        let written = (|| {
            self.file.write_all(fence)?;
            self.file.set_permissions(Permissions::from_mode(0o666 & !umask()))?;
            self.file.sync_all()?;
            name(&self.path)
        })();
        written.map_err(|error| FencedFileError::io("write", &self.path, error))
    }

    /// Writes the contents, and flushes them.
    pub fn fill(self, contents: impl Read, max_bytes: u64) -> Result<Staged, FencedFileError> {
        let failed = |error| FencedFileError::io("write", &self.path, error);
        let mut read = Watched { input: contents.take(max_bytes.saturating_add(1)), failed: false };
        let committed = match copy(&mut read, &self.file) {
            Ok(committed) => committed,
            Err(error) if read.failed => return Err(FencedFileError::Contents(error)),
            Err(error) => return Err(failed(error)),
        };
        if committed.bytes > max_bytes {
            return Err(FencedFileError::TooLarge { path: self.target.clone(), max_bytes });
        }
        let mode = match fs::metadata(&self.target) {
            // Without setuid and the like: the file becomes this user's.
            Ok(found) => found.permissions().mode() & 0o777,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0o666 & !umask(),
            Err(error) => return Err(failed(error)),
        };
        self.file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
        self.file.sync_all().map_err(failed)?;
        Ok(Staged { stage: self, committed })
    }
}

impl Staged {
    /// Becomes the file.
    pub fn take_name_of(mut self, place: &Place) -> Result<Committed, FencedFileError> {
        if let Err(error) = fs::rename(&self.stage.path, &place.target) {
            return Err(FencedFileError::io("replace", &place.target, error));
        }
        self.stage.is_named = true;
        let flushed = File::open(&place.directory).and_then(|directory| directory.sync_all());
        let not_flushed = |source| FencedFileError::NotFlushed { path: place.target.clone(), source };
        flushed.map(|()| self.committed).map_err(not_flushed)
    }
}

/// Copies to the end, and hashes on the way.
pub(super) fn copy(input: &mut impl Read, mut output: impl Write) -> io::Result<Committed> {
    let (mut hasher, mut buffer, mut bytes) = (Hasher::new(), vec![0; COPY_BYTES], 0);
    loop {
        let read = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..read]);
        output.write_all(&buffer[..read])?;
        bytes += read as u64;
    }
    Ok(Committed { bytes, sha256: Sha256(hasher.finalize().into()) })
}

/// Tells errors of reading from those of writing.
struct Watched<R> {
    input: R,
    failed: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer);
        self.failed = read.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        read
    }
}

/// The permissions that this process gives to nobody. The system tells them only by setting others, which other threads would
/// see; Linux says so here as well.
fn umask() -> u32 {
    const STRICT: u32 = 0o077;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).unwrap_or(STRICT)
}

/// Opens a file beside the guarded one for reading and writing, or makes it; follows no link.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = OpenOptions::new();
    // Nobody else reads it before it is the file.
    options.read(true).write(true).create(true).truncate(false).mode(PRIVATE).custom_flags(flags).open(path)
}

/// Removes the names that a fence had while it was made. Whoever makes one has its lock until it has one name; so has the
/// caller of this: whoever made it was killed.
pub(super) fn drop_old_names(fence: &File, place: &Place) -> io::Result<()> {
    if fence.metadata()?.nlink() == 1 {
        return Ok(());
    }
    for path in (0..STAGES_MAX).map(|number| place.stage(number)) {
        if is_named(fence, &path)? {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn is_taken(error: &io::Error) -> bool {
    let link = rustix::io::Errno::LOOP.raw_os_error();
    let kinds = [io::ErrorKind::PermissionDenied, io::ErrorKind::IsADirectory];
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(link)
}

/// Whether the path still names this file, and nobody else has another name for it or owns it.
fn is_ours(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    let alone = held.is_file() && held.nlink() == 1 && held.uid() == rustix::process::geteuid().as_raw();
    Ok(is_named(file, path)? && alone)
}

/// Whether the path names this file.
pub(super) fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let named = match fs::symlink_metadata(path) {
        Ok(named) => named,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let held = file.metadata()?;
    Ok(held.ino() == named.ino() && held.dev() == named.dev())
}
