//! A disk that is full, for real: a file system of a few megabytes, in a process that has it to itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use redrive_coordinator::store::{Ending, Enqueue, Enqueued, StoreError};
use redrive_shared::task::TaskState;

use crate::support::{Bed, EnqueueExt, SqliteBackend, fast_directory, id, task};

/// Names the place for the small disk; without it there is nothing to do.
const PLACE_VARIABLE: &str = "REDRIVE_TEST_SMALL_DISK";
/// The test that runs on it.
const NAME: &str = "faults::full_disk::the_store_runs_on_a_small_disk_where_it_is_asked_to";
const DISK: &str = "size=10m";
/// What else lies on the disk, until somebody makes room: as much as the log has by then, which is written back first.
const BALLAST_BYTES: usize = 6 * 1024 * 1024;

#[test]
fn a_full_disk_loses_nothing_and_the_store_goes_on_when_there_is_room_again() {
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
async fn the_store_runs_on_a_small_disk_where_it_is_asked_to() {
    let Some(place) = std::env::var_os(PLACE_VARIABLE) else { return };
    let place = PathBuf::from(place);
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "none"]).arg(&place).status().unwrap();
    assert!(mounted.success(), "the small disk cannot be mounted");
    let ballast = place.join("ballast");
    std::fs::write(&ballast, vec![7; BALLAST_BYTES]).unwrap();

    let mut bed = Bed::new(SqliteBackend::below(scratch_in(&place), "data")).await;
    let lease = bed.put_and_take(task("in-work")).await;
    let acknowledged = fill(&bed).await;
    assert!(acknowledged > 10, "the disk is larger than this");
    // Full stays full: whoever asks is told, again and again, and nothing else happens.
    for _ in 0..5 {
        assert_full(bed.enqueue(vec![large("one-more")]).await.err());
    }
    assert_full(bed.check().await.err());
    assert_eq!(bed.state("in-work").await, TaskState::Leased, "what is only looked at can still be seen");
    assert!(bed.get(&id("one-more")).await.unwrap().is_none());

    std::fs::remove_file(&ballast).unwrap();
    assert!(matches!(bed.put(large("one-more")).await, Enqueued::Created { .. }));
    assert_eq!(bed.finish(&lease, Ending::Done(None)).await.0, TaskState::Succeeded);
    assert_all_there(&bed, acknowledged).await;
    bed.reopen().await;
    assert_all_there(&bed, acknowledged).await;
}

/// The store's directory must be on the small disk.
fn scratch_in(place: &Path) -> tempfile::TempDir {
    tempfile::tempdir_in(place).unwrap()
}

fn large(text: &str) -> Enqueue {
    task(text).payload(&format!("\"{}\"", "x".repeat(100_000)))
}

/// Enqueues until the disk is full; returns how many tasks were acknowledged.
async fn fill(bed: &Bed) -> usize {
    for number in 0.. {
        match bed.enqueue(vec![large(&format!("t{number}"))]).await {
            Ok(_) => {}
            Err(error) => {
                assert_full(Some(error));
                return number;
            }
        }
    }
    unreachable!("no disk is endless")
}

fn assert_full(error: Option<StoreError>) {
    let error = error.expect("the disk is full");
    assert!(matches!(error, StoreError::Full(_)), "{error}");
}

async fn assert_all_there(bed: &Bed, acknowledged: usize) {
    for number in 0..acknowledged {
        assert_eq!(bed.state(&format!("t{number}")).await, TaskState::Scheduled);
    }
    assert_eq!(bed.state("one-more").await, TaskState::Scheduled);
    bed.assert_counts_are_right().await;
}
