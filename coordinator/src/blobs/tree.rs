//! A tree of directories with blobs in it, by [`layout`]: what `files:` and `file://` have in common.
//!
//! Below its root every step is from an open directory to a name in it, and symbolic links are not followed: whoever can put
//! one there gets nothing written or read elsewhere.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::{BlobError, BlobKey, layout};

/// Only the coordinator's own user reads what agents know.
const DIRECTORY_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Names that are read of a directory at once: what a list keeps in memory of one that has millions.
const NAMES_AT_ONCE: usize = 1_024;
/// Between making a directory and using it, a sweep may remove it, empty as it is.
const TRIES_MAX: u32 = 16;

/// The root of a tree.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    root: PathBuf,
}

/// An open directory.
pub(super) struct Directory(OwnedFd);

impl Tree {
    /// Makes the root, if it is not there.
    pub(super) fn create(root: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        let tree = Self { root: root.to_owned() };
        tree.probe()?;
        Ok(tree)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn open(&self) -> io::Result<Directory> {
        // The root itself may be a link: it is the operator's.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Directory(rustix::fs::open(&self.root, flags, Mode::empty())?))
    }

    /// Whether files can be made in it.
    pub(super) fn probe(&self) -> io::Result<()> {
        // No task's directory begins with a dot.
        let name = format!(".probe-{:016x}", rand::random::<u64>());
        let root = self.open()?;
        root.create(&name)?;
        root.unlink(&name)
    }

    /// The directories of a task, from the root on. `None`: they are not there.
    fn enter(&self, parts: &[String]) -> io::Result<Option<Vec<Directory>>> {
        let mut chain = vec![self.open()?];
        for part in parts {
            let Some(next) = chain.last().map_or(Ok(None), |last| last.child(part))? else { return Ok(None) };
            chain.push(next);
        }
        Ok(Some(chain))
    }

    /// A new file beside where the blob will be, in directories that are made for it.
    pub(super) fn begin(&self, key: &BlobKey) -> io::Result<Part> {
        let parts = layout::parts(&key.task);
        let name = format!("{}{}", layout::file(key.blob), layout::UPLOAD);
        for _ in 0..TRIES_MAX {
            match self.begin_once(&parts, &name) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                Ok((chain, file)) => {
                    return Ok(Part { chain, file, name, whole: layout::file(key.blob), done: false });
                }
            }
        }
        Err(io::Error::other("the task's directory is removed again and again"))
    }

    fn begin_once(&self, parts: &[String], name: &str) -> io::Result<(Vec<Directory>, File)> {
        let mut chain = vec![self.open()?];
        for part in parts {
            let next = chain.last().map(|last| last.make(part)).transpose()?;
            chain.extend(next);
        }
        let file = chain.last().map_or(Err(ErrorKind::NotFound.into()), |last| last.create(name))?;
        Ok((chain, file))
    }

    /// A whole blob, and its length.
    pub(super) fn whole(&self, key: &BlobKey) -> io::Result<Option<(File, u64)>> {
        let chain = self.enter(&layout::parts(&key.task))?;
        let Some(directory) = chain.as_ref().and_then(|chain| chain.last()) else { return Ok(None) };
        let Some(file) = directory.read(&layout::file(key.blob))? else { return Ok(None) };
        let about = file.metadata()?;
        Ok(about.is_file().then_some((file, about.len())))
    }

    /// Removes blobs, what uploads left of them, and directories that are empty then.
    pub(super) fn remove(&self, keys: &[BlobKey]) -> io::Result<()> {
        for of_task in keys.chunk_by(|one, next| one.task == next.task) {
            let Some(task) = of_task.first().map(|key| &key.task) else { continue };
            let parts = layout::parts(task);
            let Some(chain) = self.enter(&parts)? else { continue };
            let Some(directory) = chain.last() else { continue };
            for name in directory.all_names()? {
                let Some(blob) = layout::blob(&name) else { continue };
                if of_task.iter().any(|key| key.blob == blob) {
                    directory.unlink(&name)?;
                }
            }
            for (parent, part) in chain.iter().zip(&parts).rev() {
                match unlinkat(&parent.0, part.as_str(), AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(_in_use) => break,
                }
            }
        }
        Ok(())
    }

    /// Up to `most` blobs above `after`, in the order of their paths.
    pub(super) fn list(&self, after: Option<&BlobKey>, most: usize) -> io::Result<Vec<BlobKey>> {
        let mut walk = Walk { most, last: after.cloned(), found: Vec::new() };
        let after = after.map(layout::path).unwrap_or_default();
        walk.enter(&self.open()?, &mut Vec::new(), &after)?;
        Ok(walk.found)
    }
}

/// On its way through a tree.
struct Walk {
    most: usize,
    /// The key before: a blob and what an upload left of it are one.
    last: Option<BlobKey>,
    found: Vec<BlobKey>,
}

impl Walk {
    fn enter(&mut self, directory: &Directory, path: &mut Vec<String>, after: &[String]) -> io::Result<()> {
        let mut from = after.first().cloned().unwrap_or_default();
        loop {
            let names = directory.names(&from)?;
            for name in &names {
                // Only the first can be the one to go on behind.
                let inner =
                    if after.first() == Some(name) { after.get(1..).unwrap_or_default() } else { &[] };
                self.look(directory, path, name, inner)?;
                if self.found.len() >= self.most {
                    return Ok(());
                }
            }
            match names.last() {
                // The smallest name above that one.
                Some(last) if names.len() == NAMES_AT_ONCE => from = format!("{last}\0"),
                _ => return Ok(()),
            }
        }
    }

    fn look(
        &mut self,
        directory: &Directory,
        path: &mut Vec<String>,
        name: &str,
        after: &[String],
    ) -> io::Result<()> {
        if let Some(blob) = layout::blob(name) {
            let Some(task) = layout::task(path.iter().map(String::as_str)) else { return Ok(()) };
            let key = BlobKey { task, blob };
            if self.last.as_ref() != Some(&key) {
                self.last = Some(key.clone());
                self.found.push(key);
            }
            return Ok(());
        }
        // An id of the greatest length has three parts.
        if path.len() >= 3 {
            return Ok(());
        }
        let Some(child) = directory.child(name)? else { return Ok(()) };
        path.push(name.to_owned());
        let walked = self.enter(&child, path, after);
        path.pop();
        walked
    }
}

impl Directory {
    /// `None`: there is no such directory.
    fn child(&self, name: &str) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.0, name, flags, Mode::empty()) {
            Ok(child) => Ok(Some(Self(child))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn make(&self, name: &str) -> io::Result<Self> {
        match mkdirat(&self.0, name, DIRECTORY_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(openat(&self.0, name, flags, Mode::empty())?))
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.0, name, flags, FILE_MODE)?.into())
    }

    /// `None`: there is no such file, or it is a link.
    fn read(&self, name: &str) -> io::Result<Option<File>> {
        // What is no file at all must not hold up whoever opens it.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match openat(&self.0, name, flags, Mode::empty()) {
            Ok(file) => Ok(Some(file.into())),
            Err(Errno::NOENT | Errno::LOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }

    fn all_names(&self) -> io::Result<Vec<String>> {
        let names = Dir::read_from(&self.0)?.filter_map(|entry| match entry {
            // What is not UTF-8 is not ours.
            Ok(entry) => entry.file_name().to_str().ok().map(|name| Ok(name.to_owned())),
            Err(error) => Some(Err(error.into())),
        });
        names.collect()
    }

    /// The first names from `from` on, in their order.
    fn names(&self, from: &str) -> io::Result<Vec<String>> {
        let mut first = BTreeSet::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name < from || matches!(name, "." | "..") {
                continue;
            }
            if first.len() < NAMES_AT_ONCE || first.last().is_some_and(|last: &String| name < last.as_str()) {
                first.insert(name.to_owned());
            }
            if first.len() > NAMES_AT_ONCE {
                first.pop_last();
            }
        }
        Ok(first.into_iter().collect())
    }
}

/// A blob that is being written. Dropped before it is whole, it is removed.
pub(super) struct Part {
    /// From the root to where it is.
    chain: Vec<Directory>,
    file: File,
    name: String,
    whole: String,
    done: bool,
}

impl Part {
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Makes it whole, durably: bytes first, then the name, then the directories.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        let Some(directory) = self.chain.last() else { return Err(ErrorKind::NotFound.into()) };
        renameat(&directory.0, self.name.as_str(), &directory.0, self.whole.as_str())?;
        self.done = true;
        let synced = self.chain.iter().rev().try_for_each(Directory::sync);
        if synced.is_err() {
            // It may be gone after a power failure, so it must not be there now.
            directory.unlink(&self.whole)?;
        }
        synced
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let (false, Some(directory)) = (self.done, self.chain.last()) {
            // What is left where this fails is found by the next sweep.
            let _left = directory.unlink(&self.name);
        }
    }
}

/// What a file system said.
pub(super) fn failed(error: &io::Error) -> BlobError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => BlobError::Full(error.to_string()),
        _ => BlobError::Unavailable(error.to_string()),
    }
}
