//! The tables, as Markdown.

use std::fmt::Write as _;

use super::judge::{Judged, Row, Rows};
use super::kind::{Kind, On};
use super::losses::Loss;

/// What runs here.
pub struct Machine {
    cores: usize,
    processor: String,
    memory_gib: u64,
    redis: String,
}

impl Machine {
    pub fn look() -> Self {
        let file = |path| std::fs::read_to_string(path).unwrap_or_default();
        let (processors, memory) = (file("/proc/cpuinfo"), file("/proc/meminfo"));
        let after_colon = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?.split_once(':')?.1;
            Some(line.trim().to_owned())
        };
        let kib = after_colon(&memory, "MemTotal").unwrap_or_default();
        let kib = kib.split(' ').next().and_then(|kib| kib.parse::<u64>().ok());
        let server = std::env::var_os("REDRIVE_REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let redis =
            std::process::Command::new(server).arg("--version").output().expect("it says its version");
        let redis = String::from_utf8_lossy(&redis.stdout).into_owned();
        let version = redis.split(' ').find_map(|word| word.strip_prefix("v=")).unwrap_or(redis.trim());
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: after_colon(&processors, "model name").unwrap_or_else(|| "?".to_owned()),
            memory_gib: kib.unwrap_or(0).div_ceil(1024 * 1024),
            redis: version.to_owned(),
        }
    }
}

const HEAD: &str = "\
# The crash matrix

Written by `tests/crash_matrix`; not by hand. Every number is counted or measured in one run of it.

Three coordinators and four workers, all real processes, work off a load whose producers repeat every call of unknown
outcome until it is acknowledged. One fault after the other befalls them, each kind in turn, at random moments. At the end
every acknowledged id is asked after, and its history is compared with what the workers' endpoint saw. The command fails if
an acknowledged task is lost or ends otherwise than its script says, if two leases of a task overlap, if something ran
without a lease of its own or beside one by a worker that could know, or if a settlement under a lease that was over is
taken.
";

const LEGEND: &str = "\
- **acknowledged**: tasks that producers were told are safe, from this fault to the next. **lost**: those of them that
  nobody knows at the end. **overlapping leases**: pairs of leases of one task that were valid at once.
- **late settlements refused**: before each fault somebody takes a lease of 1 s; after it, when another has done the task,
  the first settles it all the same.
- **executions repeated**: executions beyond the scripted ones. Each belongs to a lease that was cut off; none is left
  unexplained. **side by side**: those that still ran when the next one began. Only a suspended process does that: it cannot
  see that its lease is over, and what it settles afterwards is refused.
- **works again**: until 48 tasks, spread over the shards, were enqueued and some of them claimed and settled, through a
  coordinator that was not itself the victim. Counted from the fault; for one Redis, from the moment at which it is back (for a connection, at which
  it broke); for a failover, from the master's death, the restart of the dead one as a replica included: with
  `wait_replicas = 1` and one replica nothing can be acknowledged before.
- **runs again**: from the fault until a task that was being executed, and whose lease it cut off, is executed again. Faults
  follow each other within seconds: some of these tasks met the next one on their way, and all wait behind what was due
  before them. Not so at default lease: there slots are free, and the time is the 2 s of grace, a delay of up to 1 s (2 s for
  a task that is lost a second time) and what Redrive itself takes.
- Leases are 2 s, heartbeats a third of that; where it says *default lease*, everything about leases and presence is as it is
  by default (lease 30 s, heartbeat 5 s, presence grace 2 s).
";

const LOSSES: &str = "\
## Where Redis itself can lose acknowledged writes

What Redis has acknowledged and then loses, Redrive cannot bring back; with `appendfsync always`, or `wait_replicas` of at
least one, the table above has none.
";

const LOSSES_LEGEND: &str = "\
`appendfsync everysec` loses nothing when only the process dies: the kernel has what was written. A machine that dies loses up
to about a second, which cannot be shown on one that goes on. An asynchronous failover loses what was still on
its way to the replica; the more it lags behind, the more. With `wait_replicas = 1` nothing is acknowledged before the replica has it.
";

pub fn render(machine: &Machine, rows: &Rows, judged: &[Judged], losses: &[Loss], seed: u64) -> String {
    let faults: u64 = rows.values().map(|row| row.faults).sum();
    let acknowledged: u64 = rows.values().map(|row| row.acknowledged).sum();
    let executions: usize = judged.iter().map(|judged| judged.executions).sum();
    let stale: u64 = judged.iter().map(|judged| judged.stale_calls).sum();
    let mut out = format!(
        "{HEAD}\n**{faults} faults, {acknowledged} tasks acknowledged, {} lost, {} overlapping leases**, {executions} \
         executions, seed {seed}.\n\nRedrive {}, Redis {}, {} cores ({}), {} GiB, Linux; all servers and processes on this one machine, \
         files in memory, debug build.\n\n",
        rows.values().map(|row| row.lost).sum::<u64>(),
        rows.values().map(|row| row.overlapping).sum::<u64>(),
        env!("CARGO_PKG_VERSION"),
        machine.redis,
        machine.cores,
        machine.processor,
        machine.memory_gib,
    );
    out += "| on | fault | faults | acknowledged | lost | overlapping leases | late settlements refused | executions \
            repeated | side by side | works again, median / max | runs again, median / p99 / max |\n";
    out += "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n";
    for ((on, kind), row) in rows {
        line(&mut out, *on, *kind, row);
    }
    let _ = write!(
        out,
        "\n{LEGEND}- The coordinators' own counters, as far as they survived, say that {stale} calls with a stale epoch \
         were refused in all.\n"
    );
    if !losses.is_empty() {
        out += "\n";
        out += LOSSES;
        out += "\n| what happened | times | acknowledged | lost | at most at once |\n|---|--:|--:|--:|--:|\n";
        for Loss { what, times, acknowledged, lost, most } in losses {
            let _ = writeln!(out, "| {what} | {times} | {acknowledged} | {lost} | {most} |");
        }
        out += "\n";
        out += LOSSES_LEGEND;
    }
    out
}

fn line(out: &mut String, on: On, kind: Kind, row: &Row) {
    let recovery = sorted(&row.recovery_ms);
    let again = sorted(&row.again_ms);
    let works = format!("{} / {}", share(&recovery, 50), share(&recovery, 100));
    let runs = if again.is_empty() {
        "–".to_owned()
    } else {
        format!("{} / {} / {}", share(&again, 50), share(&again, 99), share(&again, 100))
    };
    let _ = writeln!(
        out,
        "| {} | {} | {} | {} | {} | {} | {} of {} | {} | {} | {works} | {runs} |",
        on.words(),
        kind.words(),
        row.faults,
        row.acknowledged,
        row.lost,
        row.overlapping,
        row.refused,
        row.late,
        row.repeated,
        row.side_by_side,
    );
}

fn sorted(times: &[u64]) -> Vec<u64> {
    let mut times = times.to_vec();
    times.sort_unstable();
    times
}

/// The value below which so many per cent lie, in seconds.
fn share(sorted: &[u64], percent: usize) -> String {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    let ms = sorted.get(rank).copied().unwrap_or_default();
    format!("{}.{:02} s", ms / 1_000, ms % 1_000 / 10)
}
