//! A disk that keeps what was flushed, and of the rest what chance decides.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rand::rngs::SmallRng;
use rand::{Rng, RngExt};

use super::trace::Call;

/// What a disk writes at once; a loss of power can leave any of them behind and any other undone.
const SECTOR_BYTES: usize = 512;

/// What becomes of that which was not flushed.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    Nothing,
    /// Each sector, and each change of a directory, with this probability in percent.
    Part(u32),
    Everything,
}

impl Fate {
    pub const ALL: [Self; 5] =
        [Self::Part(50), Self::Part(10), Self::Everything, Self::Part(90), Self::Nothing];

    fn keeps(self, rng: &mut impl Rng) -> bool {
        match self {
            Self::Nothing => false,
            Self::Part(percent) => rng.random_range(0..100) < percent,
            Self::Everything => true,
        }
    }
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

#[derive(Debug, Default)]
struct File {
    flushed: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone, Copy)]
enum Node {
    File(usize),
    Directory,
}

/// Names in a directory: those that are durable, and changes that are not.
#[derive(Debug, Default)]
struct Directory {
    flushed: BTreeMap<String, Node>,
    pending: Vec<(String, Option<Node>)>,
}

impl Directory {
    fn names(&self, mut keeps: impl FnMut() -> bool) -> BTreeMap<String, Node> {
        let mut names = self.flushed.clone();
        for (name, node) in self.pending.iter().filter(|_| keeps()) {
            match node {
                Some(node) => names.insert(name.clone(), *node),
                None => names.remove(name),
            };
        }
        names
    }
}

/// The disk below one directory, which is there and empty in the beginning.
pub struct Disk {
    root: PathBuf,
    files: Vec<File>,
    directories: BTreeMap<PathBuf, Directory>,
}

impl Disk {
    pub fn new(root: &Path) -> Self {
        let directories = BTreeMap::from([(root.to_owned(), Directory::default())]);
        Self { root: root.to_owned(), files: Vec::new(), directories }
    }

    pub fn apply(&mut self, call: Call) {
        match call {
            Call::Create(path) => {
                if self.find(&path).is_none() {
                    self.files.push(File::default());
                    self.link(&path, Some(Node::File(self.files.len() - 1)));
                }
            }
            Call::MakeDirectory(path) => {
                self.link(&path, Some(Node::Directory));
                self.directories.insert(path, Directory::default());
            }
            Call::Remove(path) => self.link(&path, None),
            Call::Write { path, offset, bytes } => self.change(&path, Change::Write { offset, bytes }),
            Call::Truncate { path, length } => self.change(&path, Change::Truncate(length)),
            Call::Flush(path) => self.flush(&path),
            Call::Ack(_) => {}
        }
    }

    fn find(&self, path: &Path) -> Option<Node> {
        let directory = self.directories.get(path.parent()?)?;
        directory.names(|| true).get(path.file_name()?.to_str()?).copied()
    }

    fn link(&mut self, path: &Path, node: Option<Node>) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let parent = self.directories.get_mut(path.parent().unwrap()).expect("a directory that was made");
        parent.pending.push((name, node));
    }

    fn change(&mut self, path: &Path, change: Change) {
        match self.find(path) {
            Some(Node::File(index)) => self.files[index].pending.push(change),
            // A file that has no name any more: nothing of it outlives the process.
            None => {}
            Some(Node::Directory) => panic!("{} is a directory", path.display()),
        }
    }

    fn flush(&mut self, path: &Path) {
        if let Some(directory) = self.directories.get_mut(path) {
            directory.flushed = directory.names(|| true);
            directory.pending.clear();
        } else if let Some(Node::File(index)) = self.find(path) {
            let file = &mut self.files[index];
            for change in std::mem::take(&mut file.pending) {
                apply(&mut file.flushed, &change, || true);
            }
        }
    }

    /// Writes what is left into a directory.
    pub fn after_power_loss(&self, fate: Fate, rng: &mut SmallRng, target: &Path) {
        self.restore(&self.root, target, fate, rng);
    }

    fn restore(&self, directory: &Path, target: &Path, fate: Fate, rng: &mut SmallRng) {
        for (name, node) in self.directories[directory].names(|| fate.keeps(rng)) {
            match node {
                Node::Directory => {
                    std::fs::create_dir(target.join(&name)).unwrap();
                    self.restore(&directory.join(&name), &target.join(&name), fate, rng);
                }
                Node::File(index) => {
                    let file = &self.files[index];
                    let mut contents = file.flushed.clone();
                    for change in &file.pending {
                        apply(&mut contents, change, || fate.keeps(rng));
                    }
                    std::fs::write(target.join(&name), contents).unwrap();
                }
            }
        }
    }
}

/// Applies those sectors of a change that are kept.
fn apply(contents: &mut Vec<u8>, change: &Change, mut keeps: impl FnMut() -> bool) {
    match change {
        Change::Truncate(length) => {
            if keeps() {
                contents.resize(*length, 0);
            }
        }
        Change::Write { offset, bytes } => {
            let (mut at, end) = (*offset, offset + bytes.len());
            while at < end {
                let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
                if keeps() {
                    if contents.len() < next {
                        contents.resize(next, 0);
                    }
                    contents[at..next].copy_from_slice(&bytes[at - offset..next - offset]);
                }
                at = next;
            }
        }
    }
}
