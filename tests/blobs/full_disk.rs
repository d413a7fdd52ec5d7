//! A disk that is full, for real: a file system of a few megabytes, in a process that has it to itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use redrive_coordinator::blobs::{BlobError, open};

use super::bed::{MIB, body, bytes, key};
use crate::support::fast_directory;

/// Names the place for the small disk; without it there is nothing to do.
const PLACE_VARIABLE: &str = "REDRIVE_TEST_SMALL_DISK_FOR_BLOBS";
/// The test that runs on it.
const NAME: &str = "blobs::full_disk::blobs_are_put_on_a_small_disk_where_it_is_asked_to";
const DISK: &str = "size=12m";
/// What else lies on the disk, until somebody makes room.
const BALLAST_BYTES: usize = 4 * MIB;

#[test]
fn a_full_disk_takes_no_half_blobs_and_goes_on_when_there_is_room_again() {
    let place = fast_directory();
    // A namespace of its own: the small disk ends with the process, whatever becomes of it. No privileges are needed.
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--test-threads=1", "--nocapture"])
        .env(PLACE_VARIABLE, place.path())
        .stdin(Stdio::null())
        .output()
        .expect("unshare is needed (util-linux)");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
}

/// Not a test by itself: what the process in the namespace does. Anywhere else it does nothing.
#[tokio::test]
async fn blobs_are_put_on_a_small_disk_where_it_is_asked_to() {
    let Some(place) = std::env::var_os(PLACE_VARIABLE) else { return };
    let place = PathBuf::from(place);
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "none"]).arg(&place).status().unwrap();
    assert!(mounted.success(), "the small disk cannot be mounted");
    for kind in ["files:", "file://", "sqlite:"] {
        let ballast = place.join("ballast");
        std::fs::write(&ballast, vec![7; BALLAST_BYTES]).unwrap();
        let address = format!("{kind}{}/blobs", place.display());
        let blobs = open(&address.parse().unwrap(), &[]).await.unwrap();
        let small = key("task", 1);
        blobs.put(&small, body(bytes(MIB))).await.unwrap();
        for number in 2..4 {
            let large = key("task", number);
            let error = blobs.put(&large, body(bytes(20 * MIB))).await.unwrap_err();
            assert!(matches!(error, BlobError::Full(_)), "{kind} {error:?}");
            assert_eq!(blobs.length(&large).await.unwrap(), None);
        }
        // What SQLite has no room to take back, it lists.
        let left = blobs.list(None, 10).await.unwrap();
        assert!(left == std::slice::from_ref(&small) || kind == "sqlite:", "{kind} {left:?}");
        std::fs::remove_file(&ballast).unwrap();
        blobs.remove(&left[1..]).await.unwrap();
        assert_eq!(blobs.list(None, 10).await.unwrap(), std::slice::from_ref(&small));
        blobs.put(&key("task", 2), body(bytes(2 * MIB))).await.unwrap();
        assert_eq!(blobs.length(&small).await.unwrap(), Some(MIB as u64));
        drop(blobs);
        empty(&place);
    }
}

/// Removes everything below a directory.
fn empty(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap()
        } else {
            std::fs::remove_file(path).unwrap()
        }
    }
}
