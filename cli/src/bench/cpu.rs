//! Processor time of processes.

use std::time::Duration;

/// User and system time of a process so far, from /proc. None where the system does not tell.
pub(super) fn of_process(pid: u32) -> Option<Duration> {
    /// Linux counts in hundredths of a second for every program (`USER_HZ`).
    const TICK_MS: u64 = 10;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in brackets, which may contain anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * TICK_MS))
}
