//! Whether a directory can be trusted with the embedded store. A coordinator that runs on it is not disturbed: its lock is
//! looked up, not tried, and its tables are only read.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use redrive_shared::limits::STORE_FREE_MIN_BYTES;
use rusqlite::Connection;

use super::open::{DATABASE, LOCK, Location, SCHEMA_VERSION, open_reader};
use crate::store::doctor::{Finding, Report, Verdict};

/// Flushes for the measurement, and for how long at most.
const FLUSHES: usize = 20;
const FLUSHING: Duration = Duration::from_secs(2);
/// What a commit of a few tasks writes.
const FLUSHED_BYTES: usize = 8_192;
/// Each commit waits for a flush: slower ones are felt; quicker ones than any disk's are none.
const FLUSH_SLOW: Duration = Duration::from_millis(20);
const FLUSH_TOO_QUICK: Duration = Duration::from_micros(15);
/// Room that is soon used up.
const FREE_WARNED_BYTES: u64 = 1 << 30;
/// For reading the tables through.
const INTEGRITY: Duration = Duration::from_secs(5);
const MIB: u64 = 1 << 20;

/// Examines a data directory. Blocks.
pub fn examine(directory: &Path) -> Report {
    let mut findings = vec![writable(directory)];
    // Before the first start there is only the place where it will be.
    let there = existing(directory);
    findings.push(space(there));
    if directory.is_dir() {
        findings.extend([flush(directory), lock(&directory.join(LOCK))]);
        let file = directory.join(DATABASE);
        if file.is_file() {
            findings.extend(tables(Location { file, durable: true }));
        }
    }
    let place = directory.display().to_string();
    Report::new(findings.into_iter().map(|finding| finding.at(&place)))
}

/// The directory, or the nearest above it that is there.
fn existing(directory: &Path) -> &Path {
    let there = directory.ancestors().find(|path| path.is_dir());
    there.unwrap_or(Path::new("."))
}

fn writable(directory: &Path) -> Finding {
    const CHECK: &str = "directory";
    let there = existing(directory);
    match tempfile::tempfile_in(there) {
        Ok(_) if there == directory => Finding::ok(CHECK, "can be written"),
        Ok(_) => Finding::ok(CHECK, "is not there yet: the first start makes it"),
        Err(error) => Finding::bad(
            CHECK,
            Verdict::Refused,
            format!("cannot write to {}: {error}", there.display()),
            "give it to the user that runs the coordinator, or choose another with --data-dir",
        ),
    }
}

fn space(directory: &Path) -> Finding {
    const CHECK: &str = "space";
    const REMEDY: &str = "free some space, or choose another --data-dir";
    let Ok(disk) = rustix::fs::statvfs(directory) else {
        return Finding::bad(CHECK, Verdict::Skipped, "the system does not tell", "look with df");
    };
    let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    let found = format!("{} MiB free", free_bytes / MIB);
    if free_bytes < STORE_FREE_MIN_BYTES {
        Finding::bad(CHECK, Verdict::Refused, found, REMEDY)
    } else if free_bytes < FREE_WARNED_BYTES {
        Finding::bad(CHECK, Verdict::Warning, found, REMEDY)
    } else {
        Finding::ok(CHECK, found)
    }
}

/// How long this disk takes to promise that it has something.
fn flush(directory: &Path) -> Finding {
    const CHECK: &str = "flush";
    let measured = tempfile::tempfile_in(directory).and_then(|mut file| {
        let (begun, mut took) = (Instant::now(), Vec::with_capacity(FLUSHES));
        while took.len() < FLUSHES && begun.elapsed() < FLUSHING {
            file.write_all(&[7; FLUSHED_BYTES])?;
            let sent = Instant::now();
            file.sync_data()?;
            took.push(sent.elapsed());
        }
        took.sort_unstable();
        Ok(took)
    });
    let took = match measured {
        Ok(took) => took,
        Err(error) => {
            let remedy = "the disk cannot be trusted: see the system's log, and choose another --data-dir";
            return Finding::bad(CHECK, Verdict::Refused, format!("a flush failed: {error}"), remedy);
        }
    };
    let (median, max) = (took[took.len() / 2], took[took.len() - 1]);
    let ms = |took: Duration| took.as_secs_f64() * 1_000.0;
    let found = format!("median {:.3} ms, max {:.3} ms", ms(median), ms(max));
    if median < FLUSH_TOO_QUICK {
        let found = format!("{found}: nothing reaches a disk so quickly");
        let remedy =
            "if this is a memory file system (tmpfs), a restart of the machine loses every task: use a disk";
        return Finding::bad(CHECK, Verdict::Warning, found, remedy);
    }
    if median > FLUSH_SLOW {
        let remedy = "each commit waits for one: use a faster disk, or larger batches";
        return Finding::bad(CHECK, Verdict::Warning, found, remedy);
    }
    Finding::ok(CHECK, found)
}

/// Who holds the directory, as Linux lists it. Trying the lock would keep out a coordinator that starts just then.
fn lock(path: &Path) -> Finding {
    const CHECK: &str = "lock";
    let (Ok(file), Ok(locks)) = (path.metadata(), std::fs::read_to_string("/proc/locks")) else {
        return match path.exists() {
            false => Finding::ok(CHECK, "nobody has used it yet"),
            true => {
                Finding::bad(CHECK, Verdict::Skipped, "the system does not tell", "look with fuser or lsof")
            }
        };
    };
    match holder(&locks, file.ino()) {
        Some(pid) => Finding::ok(CHECK, format!("held by process {pid}: a coordinator runs on it")),
        None => Finding::ok(CHECK, "free: no coordinator runs on it"),
    }
}

/// The process that holds a file, in lines of `1: FLOCK  ADVISORY  WRITE 708 08:02:11923 0 EOF`.
fn holder(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, place, ..] = words[..] else { return None };
        let held: u64 = place.rsplit(':').next()?.parse().ok()?;
        (held == inode).then(|| pid.parse().ok())?
    })
}

/// The tables' version, and whether they are whole.
fn tables(location: Location) -> Vec<Finding> {
    const CHECK: &str = "schema";
    let version = open_reader(&location).and_then(|connection| {
        Ok((connection.pragma_query_value(None, "user_version", |row| row.get(0))?, connection))
    });
    match version {
        Ok((0, _)) => vec![Finding::ok(CHECK, "no tables yet")],
        Ok((SCHEMA_VERSION, connection)) => {
            vec![Finding::ok(CHECK, format!("version {SCHEMA_VERSION}")), integrity(connection)]
        }
        Ok((version, _)) => {
            let remedy = "use the release that made it, or a newer one";
            let found = format!("version {version}, and this release knows {SCHEMA_VERSION}");
            vec![Finding::bad(CHECK, Verdict::Refused, found, remedy)]
        }
        Err(error) => {
            let remedy = "put back a backup, or choose another --data-dir";
            vec![Finding::bad(CHECK, Verdict::Refused, format!("cannot be read: {error}"), remedy)]
        }
    }
}

/// SQLite's own look at every page, for so long.
fn integrity(connection: Connection) -> Finding {
    const CHECK: &str = "integrity";
    let interrupt = connection.get_interrupt_handle();
    let (done, waiting) = mpsc::channel::<()>();
    let timer = std::thread::spawn(move || {
        let late = waiting.recv_timeout(INTEGRITY) == Err(mpsc::RecvTimeoutError::Timeout);
        if late {
            interrupt.interrupt();
        }
        late
    });
    let said = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    drop(done);
    let late = timer.join().unwrap_or(false);
    match said {
        Ok(said) if said == "ok" => Finding::ok(CHECK, "quick_check found nothing"),
        Err(error)
            if late && error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) =>
        {
            let found = format!(
                "quick_check found nothing in {} s, and did not come to its end",
                INTEGRITY.as_secs()
            );
            Finding::bad(
                CHECK,
                Verdict::Skipped,
                found,
                "run it to the end: sqlite3 redrive.sqlite 'PRAGMA quick_check'",
            )
        }
        Ok(said) | Err(rusqlite::Error::SqliteFailure(_, Some(said))) => {
            Finding::bad(CHECK, Verdict::Refused, said, "stop the coordinator and put back a backup")
        }
        Err(error) => Finding::bad(
            CHECK,
            Verdict::Refused,
            error.to_string(),
            "stop the coordinator and put back a backup",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use redrive_shared::clock::SystemClock;

    use super::{examine, holder};
    use crate::store::doctor::Verdict;
    use crate::store::sqlite::SqliteStore;

    #[test]
    fn the_holder_of_a_lock_is_read() {
        let locks = "1: POSIX  ADVISORY  WRITE 12 08:02:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 708 08:02:77 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 08:02:77 0 EOF\n";
        assert_eq!(holder(locks, 77), Some(708));
        assert_eq!(holder(locks, 78), None);
    }

    #[test]
    fn a_directory_is_examined_before_during_and_after() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("data");
        let found = |check: &str| {
            let report = examine(&directory);
            let finding = report.findings().iter().find(|finding| finding.check == check).cloned();
            finding.map(|finding| (finding.verdict, finding.found))
        };
        assert_eq!(found("directory").unwrap().1, "is not there yet: the first start makes it");
        assert!(!directory.exists(), "looking makes nothing");
        let store = SqliteStore::open(&directory, Arc::new(SystemClock)).unwrap();
        assert_eq!(found("directory").unwrap().1, "can be written");
        assert!(found("lock").unwrap().1.contains(&format!("process {}:", std::process::id())));
        assert_eq!(found("integrity").unwrap(), (Verdict::Ok, "quick_check found nothing".into()));
        drop(store);
        assert!(found("lock").unwrap().1.starts_with("free"));
        assert_eq!(
            std::fs::read_dir(&directory)
                .unwrap()
                .filter(|entry| {
                    let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
                    !name.starts_with("redrive.sqlite") && name != "lock"
                })
                .count(),
            0,
            "nothing is left behind"
        );
        let raw = rusqlite::Connection::open(directory.join("redrive.sqlite")).unwrap();
        raw.pragma_update(None, "user_version", 99).unwrap();
        drop(raw);
        assert_eq!(
            found("schema").unwrap(),
            (Verdict::Refused, "version 99, and this release knows 1".into())
        );
        std::fs::write(
            directory.join("redrive.sqlite"),
            "not a database, and long enough to be looked at".repeat(9),
        )
        .unwrap();
        assert_eq!(found("schema").unwrap().0, Verdict::Refused);
    }
}
