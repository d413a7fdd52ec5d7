//! Power loss, played: a real load runs against the embedded store while `strace` records what it asks of the disk. Then
//! the disk is put together as it may have been at many moments of that run (what was flushed, and of the rest nothing,
//! all, or any part), the store is opened on it, and everything acknowledged up to that moment must be there.
//!
//! Killing the process would prove little: the page cache survives it. This holds the store to what the kernel promises:
//! data is durable after `fsync` of the file, and a name after `fsync` of its directory.

mod disk;
mod load;
mod trace;

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use redrive_shared::task::TaskView;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use self::disk::{Disk, Fate};
use self::load::{Ack, DATA_DIR, LOAD_VARIABLE};
use self::trace::Call;
use crate::support::{Bed, SqliteBackend, fast_directory};

/// Losses of power after an acknowledgement, and as many before a commit is flushed. Each costs opening a store.
const CUTS: usize = 70;

#[test]
fn nothing_acknowledged_is_missing_after_a_power_loss() {
    let scratch = fast_directory();
    let calls = record(scratch.path());
    let plan = plan(&calls);
    let losses: usize = plan.iter().map(Vec::len).sum();
    assert!(losses > CUTS, "{losses} losses of power: the load was not recorded");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut rng = SmallRng::seed_from_u64(7);
    let (mut disk, mut acks) = (Disk::new(scratch.path()), Vec::new());
    for ((index, call), fates) in calls.into_iter().enumerate().zip(plan) {
        for fate in fates {
            let survivors = fast_directory();
            disk.after_power_loss(fate, &mut rng, survivors.path());
            let moment = format!("before call {index}, {fate:?} of what was not flushed survives");
            runtime.block_on(assert_nothing_is_missing(survivors, &acks, &moment));
        }
        match call {
            Call::Ack(line) => acks.push(Ack::parse(&line)),
            call => disk.apply(call),
        }
    }
}

/// Before which calls the power goes, and what then becomes of what was not flushed.
///
/// Nothing of it survives right after an acknowledgement: that finds a flush that is missing. Some of it survives right
/// before a commit is flushed: that finds a commit that can be half there. The few flushes of the database itself and of
/// directories (checkpoints, new files) get every fate.
fn plan(calls: &[Call]) -> Vec<Vec<Fate>> {
    let mut plan = vec![Vec::new(); calls.len()];
    let mut told = Vec::new();
    let mut commits = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        match call {
            Call::Ack(_) => told.push(index),
            Call::Flush(path) if path.to_string_lossy().ends_with("-wal") => commits.push(index),
            Call::Flush(_) => plan[index].extend(Fate::ALL),
            _ => {}
        }
    }
    for index in sample(&told) {
        if let Some(after) = plan.get_mut(index + 1) {
            after.push(Fate::Nothing);
        }
    }
    for (number, index) in sample(&commits).enumerate() {
        plan[index].push(Fate::ALL[number % Fate::ALL.len()]);
    }
    plan
}

fn sample(moments: &[usize]) -> impl Iterator<Item = usize> {
    moments.iter().copied().step_by((moments.len() / CUTS).max(1))
}

/// Runs the load in a process of its own, under `strace`.
fn record(scratch: &Path) -> Vec<Call> {
    let trace = scratch.join("trace");
    let output = Command::new("strace")
        .args(["-f", "-y", "-xx", "-s", "10000000", "-qq", "-e", "signal=none", "--seccomp-bpf", "-o"])
        .arg(&trace)
        .args(["-e", &format!("trace={}", trace::SYSTEM_CALLS)])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", load::NAME, "--test-threads=1", "--nocapture"])
        .env(LOAD_VARIABLE, scratch)
        .stdin(Stdio::null())
        .output()
        .expect("strace is needed (apt-get install strace)");
    assert!(output.status.success(), "the load failed: {}", String::from_utf8_lossy(&output.stderr));
    trace::parse(&trace, scratch)
}

async fn assert_nothing_is_missing(survivors: TempDir, acks: &[Ack], moment: &str) {
    let data = survivors.path().join(DATA_DIR);
    let bed = Bed::open(SqliteBackend::below(survivors, DATA_DIR)).await;
    let known: HashMap<String, TaskView> =
        bed.everything().await.into_iter().map(|view| (view.id.to_string(), view)).collect();
    for ack in acks {
        ack.assert_kept(&known, moment);
    }
    bed.assert_counts_are_right().await;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(data.join("redrive.sqlite"), flags).unwrap();
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok", "{moment}");
}
