//! Fenced commits, killed: whoever reads the file finds it whole, and never an older one than before.
//!
//! | variable | meaning |
//! |---|---|
//! | `REDRIVE_KILLS` | how many writers are killed at random moments, 300 if it is not set; 10,000 take some three minutes |

use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redrive_shared::lock::Token;
use redrive_worker::fenced_file::{Commit, FencedFile};

use crate::support::fast_directory;
use crate::support::process::REDRIVE;

const KILLS: usize = 300;
const SEED: u64 = 4_711;
/// Most bytes of the contents: written in several pieces, so that a file can be torn.
const LENGTH_MAX: usize = 100_000;
const FILE: &str = "REDRIVE_TEST_FILE";
const FIRST_TOKEN: &str = "REDRIVE_TEST_FIRST_TOKEN";

/// Contents that show what they are: the token and their length, and then the token again and again.
fn contents(token: i64, length: usize) -> Vec<u8> {
    let mut bytes = format!("{token} {length}\n").into_bytes();
    let line = format!("{token:019}\n");
    bytes.extend(line.repeat(length / line.len() + 1).as_bytes());
    bytes
}

/// The token of contents that are whole.
fn token_of(bytes: &[u8]) -> i64 {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap();
    let line = std::str::from_utf8(line).unwrap();
    let (token, length) = line.split_once(' ').unwrap_or_else(|| panic!("torn: {line:?}"));
    let (token, length): (i64, usize) = (token.parse().unwrap(), length.parse().unwrap());
    assert!(bytes == contents(token, length), "the file of {token} is torn: {} bytes", bytes.len());
    token
}

/// What the file holds: 0 where there is none.
fn look(path: &Path) -> i64 {
    match std::fs::read(path) {
        Ok(bytes) => token_of(&bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => panic!("{error}"),
    }
}

/// Commits under rising tokens until it is killed, and says so each time. Two commits share a token, as those of one holder do.
///
/// Not a test by itself: the process that is killed. Anywhere else it does nothing.
#[test]
fn a_writer_until_it_is_killed() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let file = FencedFile::at(path).unwrap();
    let first: i64 = std::env::var(FIRST_TOKEN).unwrap().parse().unwrap();
    let mut rng = StdRng::seed_from_u64(first as u64);
    for number in 0_i64.. {
        let token = first + number / 2;
        let contents = contents(token, rng.random_range(0..LENGTH_MAX));
        file.commit(Cursor::new(contents), &Commit::new(Token(token))).unwrap();
        println!("committed {token}");
    }
}

fn start_writer(path: &Path, first: i64) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", "crash::commits::a_writer_until_it_is_killed"]);
    command.env(FILE, path).env(FIRST_TOKEN, first.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// The tokens in what a writer said, as far as it got.
fn committed(lines: impl Iterator<Item = std::io::Result<String>>) -> impl Iterator<Item = i64> {
    lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("committed ")?.parse().ok())
}

#[test]
fn writers_that_are_killed_leave_the_file_whole_and_never_an_older_one() {
    let kills = std::env::var("REDRIVE_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let scratch = fast_directory();
    let path = scratch.path().join("report.md");
    let mut rng = StdRng::seed_from_u64(SEED);
    let done = AtomicBool::new(false);
    let (mut told, mut between) = (0, 0);
    std::thread::scope(|threads| {
        // A reader that takes no lock, all the while.
        let reader = threads.spawn(|| {
            let (mut last, mut reads) = (0, 0_u64);
            while !done.load(Ordering::Acquire) {
                let token = look(&path);
                assert!(token >= last, "{token} came after {last}");
                (last, reads) = (token, reads + 1);
                std::thread::sleep(Duration::from_micros(500));
            }
            reads
        });
        for _ in 0..kills {
            let before = look(&path);
            let mut writer = start_writer(&path, before + 1);
            let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
            let seen: Vec<i64> = committed(&mut lines).take(rng.random_range(1..4)).collect();
            std::thread::sleep(Duration::from_micros(rng.random_range(0..1_500)));
            writer.kill().unwrap();
            writer.wait().unwrap();
            let acknowledged = seen.into_iter().chain(committed(lines)).last().unwrap();
            let after = look(&path);
            assert!(after >= acknowledged, "{acknowledged} was committed, and {after} is there");
            let fence = FencedFile::at(&path).unwrap().token().unwrap().unwrap();
            assert!(fence.0 >= after, "the fence is at {fence} before a file of {after}");
            told += usize::from(after > acknowledged);
            between += usize::from(fence.0 > after);
        }
        done.store(true, Ordering::Release);
        let reads = reader.join().unwrap();
        println!(
            "{kills} writers killed: no file torn, none older than before; {told} killed after the rename and before they said \
             so, {between} between the fence and the rename; read {reads} times meanwhile"
        );
    });
    // What they left is written over.
    let file = FencedFile::at(&path).unwrap();
    let token = file.token().unwrap().unwrap();
    let stale = file.commit(Cursor::new("x"), &Commit::new(Token(token.0 - 1)));
    assert!(stale.is_err());
    file.commit(Cursor::new(contents(token.0, 5)), &Commit::new(token)).unwrap();
    let left = std::fs::read_dir(scratch.path()).unwrap().count();
    assert_eq!(left, 2, "the file and its fence");
}

/// Commits by the command, killed before its so-manieth call of that kind. Whether it ended well, and what it said.
fn commit(path: &Path, token: i64, kill: Option<(&str, usize)>) -> (bool, String) {
    let mut command = match kill {
        Some((call, nth)) => {
            let mut command = Command::new("strace");
            let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=KILL:when={nth}"));
            command.args(["-f", "-o", "/dev/null", "-e", &trace, "-e", &inject, REDRIVE]);
            command
        }
        None => Command::new(REDRIVE),
    };
    command.args(["commit-file", "--path", path.to_str().unwrap(), "--token", &token.to_string()]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // A writer that is killed early does not read it.
    let _ = std::io::Write::write_all(&mut input, &contents(token, 100_000));
    drop(input);
    let (mut said, mut errors) = (String::new(), child.stderr.take().unwrap());
    errors.read_to_string(&mut said).unwrap();
    (child.wait().unwrap().success(), said)
}

/// The first commit of a file makes its fence. Killed anywhere in that, it leaves nothing that the next one does not use or
/// remove.
#[test]
fn a_first_commit_that_is_killed_leaves_nothing_for_ever() {
    let mut killed = 0;
    for call in ["flock", "fchmod", "write", "fsync", "linkat", "unlink", "rename"] {
        for nth in 1.. {
            let scratch = tempfile::tempdir().unwrap();
            let path = scratch.path().join("report.md");
            let (ended_well, said) = commit(&path, 1, Some((call, nth)));
            assert!(matches!((ended_well, look(&path)), (_, 1) | (false, 0)), "{call} {nth}: {said}");
            let (next, said) = commit(&path, 2, None);
            assert!(next && look(&path) == 2, "{call} {nth}: {said}");
            let names = std::fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = names.collect();
            names.sort();
            assert_eq!(names, [".report.md.fence", "report.md"], "{call} {nth}");
            if ended_well {
                break;
            }
            killed += 1;
            assert!(nth < 100, "{call} ends");
        }
    }
    println!("killed at {killed} steps");
    assert!(killed >= 8, "{killed}");
}

/// At each of its steps, one after the other: before every call by which it changes or makes durable anything.
#[test]
fn a_commit_that_is_killed_at_each_of_its_steps_leaves_the_old_file_or_the_new_one() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("report.md");
    let run = |token: i64, kill: Option<(&str, usize)>| commit(&path, token, kill);
    let (mut token, mut killed) = (1, 0);
    assert!(run(token, None).0);
    for call in ["flock", "fchmod", "write", "pwrite64", "fsync", "rename"] {
        for nth in 1.. {
            token += 1;
            let (ended_well, said) = run(token, Some((call, nth)));
            let found = look(&path);
            assert!(
                found == token || (!ended_well && found < token),
                "{call} {nth}: {found}, not {token}: {said}"
            );
            assert!(run(token, None).0, "whoever has the lock goes on");
            assert_eq!(look(&path), token);
            assert!(!run(token - 1, None).0, "and nobody before it");
            if ended_well {
                break;
            }
            killed += 1;
            assert!(nth < 100, "{call} ends");
        }
    }
    println!("killed at {killed} steps");
    assert!(killed >= 8, "{killed}");
}
