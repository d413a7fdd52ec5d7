//! The highest token that a file was committed with.
//!
//! A fence has two slots, written in turn: one that is torn by a crash leaves the other. It gets its name with its first slot
//! whole, so that at any time at least one is.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use redrive_shared::lock::Token;
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::FencedFileError;
use super::place::Place;
use super::stage::{Stage, drop_old_names, is_named};

/// A slot: `redrive-fence-1`, the number of the write, the token, and the beginning of the SHA-256 of these; padded with spaces.
const SLOT_BYTES: usize = 128;
const FORMAT: &str = "redrive-fence-1";
/// How long to wait until the lock is tried again: the first time, and at most.
const TRY_AFTER: Duration = Duration::from_millis(1);
const TRY_AFTER_MAX: Duration = Duration::from_millis(20);

/// What one slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    /// Rises with every write.
    write: u64,
    token: Token,
}

/// A fence that nobody else may change as long as this lives.
pub(super) struct Fence {
    file: File,
    place: Place,
    newest: Slot,
}

impl Fence {
    /// The token, without a lock: it may rise at any time.
    pub fn look(place: &Place) -> Result<Option<Token>, FencedFileError> {
        match open(place) {
            Ok(file) => Ok(Some(read(&file, place)?.token).filter(|token| token.0 > 0)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FencedFileError::io("read", &place.fence(), error)),
        }
    }

    /// The fence, once nobody else has it.
    pub fn lock(place: &Place, wait: Duration) -> Result<Self, FencedFileError> {
        let failed = |error| FencedFileError::io("lock", &place.fence(), error);
        let (began, mut pause) = (Instant::now(), TRY_AFTER);
        loop {
            let file = match open(place) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    make(place)?;
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            match file.try_lock() {
                // Somebody may have removed it, and made another, between the opening and the lock.
                Ok(()) if is_named(&file, &place.fence()).map_err(failed)? => {
                    let newest = read(&file, place)?;
                    drop_old_names(&file, place).map_err(failed)?;
                    return Ok(Self { file, place: place.clone(), newest });
                }
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            if began.elapsed() >= wait {
                return Err(FencedFileError::Busy { path: place.target.clone(), waited: began.elapsed() });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(TRY_AFTER_MAX);
        }
    }

    /// The highest token so far.
    pub fn token(&self) -> Option<Token> {
        Some(self.newest.token).filter(|token| token.0 > 0)
    }

    /// Makes it this token, on disk.
    pub fn raise(&mut self, token: Token) -> Result<(), FencedFileError> {
        // Also where it is this token already: whoever wrote that may have been killed before it was on disk.
        let slot = Slot { write: self.newest.write + 1, token };
        let written =
            self.file.write_all_at(&slot.to_bytes(), slot.offset()).and_then(|()| self.file.sync_all());
        written.map_err(|error| FencedFileError::io("write", &self.place.fence(), error))?;
        self.newest = slot;
        Ok(())
    }
}

impl Slot {
    fn offset(self) -> u64 {
        self.write % 2 * SLOT_BYTES as u64
    }

    fn to_bytes(self) -> [u8; SLOT_BYTES] {
        let text = format!("{FORMAT} {} {}", self.write, self.token);
        let line = format!("{text} {}\n", check(&text));
        let mut bytes = [b' '; SLOT_BYTES];
        bytes[..line.len()].copy_from_slice(line.as_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(bytes).ok()?.split_once('\n')?.0;
        let (text, found) = line.rsplit_once(' ')?;
        let mut words = text.strip_prefix(FORMAT)?.trim_start().split(' ');
        let slot = Self { write: words.next()?.parse().ok()?, token: Token(words.next()?.parse().ok()?) };
        (found == check(text)).then_some(slot)
    }
}

/// 64 bits of a hash: what a torn write leaves does not fit.
fn check(text: &str) -> String {
    Sha256::digest(text)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn open(place: &Place) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(place.fence())
}

/// The newest slot that is whole.
fn read(file: &File, place: &Place) -> Result<Slot, FencedFileError> {
    let mut slots = [0; 2 * SLOT_BYTES];
    let mut length = 0;
    while length < slots.len() {
        match file.read_at(&mut slots[length..], length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(FencedFileError::io("read", &place.fence(), error)),
        }
    }
    let whole = slots.chunks_exact(SLOT_BYTES).filter_map(Slot::parse);
    whole.max_by_key(|slot| slot.write).ok_or_else(|| FencedFileError::Damaged { path: place.fence() })
}

/// Makes a fence that no commit has raised yet, unless there is one. It is written where new contents are, so that what a
/// killed writer leaves of it is found by the next one, too.
fn make(place: &Place) -> Result<(), FencedFileError> {
    let stage = Stage::new(place)?;
    let first = Slot { write: 0, token: Token(0) }.to_bytes();
    // Under its own name it is there for everybody who may write the directory; the stage has its name no longer then.
    stage.publish(&first, |path| name(place, path))
}

fn name(place: &Place, new: &Path) -> io::Result<()> {
    // Unlike a rename, it replaces nothing.
    match fs::hard_link(new, place.fence()) {
        Ok(()) => File::open(&place.directory)?.sync_all(),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}
