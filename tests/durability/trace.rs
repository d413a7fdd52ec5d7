//! What `strace` wrote, as calls on files of one directory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::load::ACKS;

/// Every system call that changes a file or makes it durable. One that is here and not understood below is an error, so
/// that a store which writes in a new way cannot pass unseen.
pub const SYSTEM_CALLS: &str = "openat,creat,mkdir,mkdirat,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,\
    fallocate,fsync,fdatasync,sync_file_range,unlink,unlinkat,rmdir,rename,renameat,renameat2,link,linkat";

#[derive(Debug)]
pub enum Call {
    /// Opened, and made where it was not there.
    Create(PathBuf),
    MakeDirectory(PathBuf),
    Write {
        path: PathBuf,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        path: PathBuf,
        length: usize,
    },
    Flush(PathBuf),
    Remove(PathBuf),
    /// Somebody was told something.
    Ack(String),
}

/// Reads the record of everything that was done below `root`, in order.
pub fn parse(trace: &Path, root: &Path) -> Vec<Call> {
    let text = std::fs::read_to_string(trace).unwrap();
    let (mut calls, mut unfinished) = (Vec::new(), HashMap::<&str, String>::new());
    for line in text.lines() {
        let (thread, rest) = line.split_once(' ').unwrap();
        let rest = rest.trim_start();
        // A call during which another thread was seen is written in two halves; it counts when it returns.
        let whole = if let Some(first) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, first.to_owned());
            continue;
        } else if let Some(second) = rest.strip_prefix("<... ") {
            let (_, tail) = second.split_once("resumed>").unwrap();
            unfinished.remove(thread).expect("its first half") + tail
        } else {
            rest.to_owned()
        };
        calls.extend(call(&whole, root));
    }
    calls
}

fn call(line: &str, root: &Path) -> Option<Call> {
    let (name, rest) = line.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    let result = result.split(['<', ' ']).next()?;
    if result.starts_with('-') || result == "?" {
        return None;
    }
    let arguments: Vec<&str> = arguments.trim_end().strip_suffix(')')?.split(", ").collect();
    let below = |path: PathBuf| path.starts_with(root).then_some(path);
    let number = |index: usize| arguments[index].parse::<usize>().expect("a number");
    match name {
        "openat" => {
            let path = below(text_path(arguments[1]))?;
            arguments[2].contains("O_CREAT").then_some(Call::Create(path))
        }
        "mkdir" => Some(Call::MakeDirectory(below(text_path(arguments[0]))?)),
        "unlink" => Some(Call::Remove(below(text_path(arguments[0]))?)),
        "pwrite64" => {
            let (path, bytes) = (below(file_path(arguments[0]))?, decode(arguments[1]));
            assert_eq!(result, bytes.len().to_string(), "a short write");
            Some(Call::Write { path, offset: number(3), bytes })
        }
        "ftruncate" => Some(Call::Truncate { path: below(file_path(arguments[0]))?, length: number(1) }),
        "fsync" | "fdatasync" => Some(Call::Flush(below(file_path(arguments[0]))?)),
        "write" => {
            let path = below(file_path(arguments[0]))?;
            assert!(path.ends_with(ACKS), "not understood: {name} to {}", path.display());
            Some(Call::Ack(String::from_utf8(decode(arguments[1])).unwrap()))
        }
        other => {
            let touched = arguments.iter().any(|text| text_path(text).starts_with(root));
            assert!(!touched, "not understood: {other}({})", arguments.join(", "));
            None
        }
    }
}

/// The file behind a descriptor: `5<\x2f…>`.
fn file_path(argument: &str) -> PathBuf {
    let hex = argument
        .split_once('<')
        .map_or("", |(_, rest)| rest.trim_end_matches("(deleted)").trim_end_matches('>'));
    path_of(&decode(hex))
}

/// A path among the arguments: `"\x2f…"`, or a descriptor.
fn text_path(argument: &str) -> PathBuf {
    if argument.contains('<') { file_path(argument) } else { path_of(&decode(argument)) }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

/// Bytes written as `\x00\x01…`, with or without quotes.
fn decode(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let hex = text.trim_matches('"').as_bytes().chunks_exact(4);
    hex.map_while(|four| Some(digit(four[2])? << 4 | digit(four[3])?)).collect()
}
