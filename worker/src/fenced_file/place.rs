//! Where a file is, and what lies beside it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{FencedFileError, beside};

/// Longest file name that is part of the names beside it; file systems allow 255 bytes.
const NAME_MAX_BYTES: usize = 200;

/// Where a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The file, without symbolic links.
    pub target: PathBuf,
    /// The directory that it is in.
    pub directory: PathBuf,
    /// What the names beside it begin with.
    stem: String,
}

impl Place {
    pub fn of(path: &Path) -> Result<Self, FencedFileError> {
        let refuse = |why| Err(FencedFileError::Path { path: path.to_owned(), why });
        let io = |error| FencedFileError::io("find", path, error);
        if path.as_os_str().is_empty() {
            return refuse("is empty; name a file");
        }
        let target = match fs::canonicalize(path) {
            Ok(target) => target,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let Some(name) = path.file_name() else { return refuse("names no file") };
                if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
                    return refuse("is a directory; name a file");
                }
                if path.is_symlink() {
                    return refuse("is a symbolic link to something that is not there; name that");
                }
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                fs::canonicalize(parent.unwrap_or(Path::new("."))).map_err(io)?.join(name)
            }
            Err(error) => return Err(io(error)),
        };
        match fs::symlink_metadata(&target) {
            Ok(found) if found.is_dir() => return refuse("is a directory; name a file"),
            Ok(found) if !found.is_file() => {
                return refuse("is no ordinary file; only those can be replaced");
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        let (Some(name), Some(directory)) = (target.file_name(), target.parent()) else {
            return refuse("names no file");
        };
        let stem = match name.to_str() {
            Some(name) if name.len() <= NAME_MAX_BYTES => format!(".{name}.fence"),
            _ => format!(".{}.fence", hex(&Sha256::digest(name.as_encoded_bytes())[..16])),
        };
        if name.to_str().is_some_and(is_ours) {
            return refuse("belongs to a fence; name the file that it guards");
        }
        let directory = directory.to_owned();
        Ok(Self { target, directory, stem })
    }

    /// The file that holds the token.
    pub fn fence(&self) -> PathBuf {
        beside(&self.target, &self.stem)
    }

    /// Where contents are written before they take the file's name, and a fence before it takes its own.
    pub fn stage(&self, number: usize) -> PathBuf {
        beside(&self.target, &format!("{}.{number}.new", self.stem))
    }
}

fn is_ours(name: &str) -> bool {
    name.starts_with('.')
        && (name.ends_with(".fence") || (name.contains(".fence.") && name.ends_with(".new")))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
