//! What a linter cannot hold: sizes, leftovers, files that nobody uses, crates that must not come in.

use std::path::{Path, PathBuf};

const FILE_MAX_LINES: usize = 500;
const FUNCTION_MAX_LINES: usize = 70;
/// One TLS stack and one crypto provider; a second copy of these means twice the build and two truths.
const BANNED_CRATES: [&str; 4] = ["aws-lc-sys", "aws-lc-rs", "native-tls", "openssl-sys"];
const SINGLE_CRATES: [&str; 7] = ["tokio", "hyper", "http", "rustls", "axum", "tower", "reqwest"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every source file of the project with this ending.
fn sources(ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for directory in ["shared", "coordinator", "worker", "cli", "tests"] {
        walk(&root().join(directory), ending, &mut found);
    }
    assert!(!found.is_empty(), "no {ending} files: is this the project's root?");
    found
}

fn walk(directory: &Path, ending: &str, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, ending, found);
        } else if path.extension().is_some_and(|extension| extension == ending) {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

#[test]
fn files_fit_a_few_screens() {
    for (path, text) in sources("rs") {
        let lines = text.lines().count();
        assert!(
            lines <= FILE_MAX_LINES,
            "{} has {lines} lines; at most {FILE_MAX_LINES}: split it",
            path.display()
        );
    }
}

#[test]
fn functions_fit_a_screen() {
    for (path, text) in sources("rs") {
        let lines: Vec<&str> = text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            if !is_function(line) {
                continue;
            }
            // rustfmt puts the closing brace of an item in the column of its first line.
            let close = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            let length = lines[start..].iter().position(|end| **end == close).map_or(1, |end| end + 1);
            assert!(
                length <= FUNCTION_MAX_LINES,
                "{}:{} has {length} lines; at most {FUNCTION_MAX_LINES}: split it",
                path.display(),
                start + 1
            );
        }
    }
}

fn is_function(line: &str) -> bool {
    let words = line.trim_start();
    let words = words.strip_prefix("pub(super) ").or(words.strip_prefix("pub(crate) ")).unwrap_or(words);
    let words = words.strip_prefix("pub ").unwrap_or(words);
    let words = words.strip_prefix("const ").unwrap_or(words);
    let words = words.strip_prefix("async ").unwrap_or(words);
    // A macro's `fn $name` closes with the repetition around it.
    words.starts_with("fn ") && !words.starts_with("fn $") && line.trim_end().ends_with(['{', '('])
}

#[test]
fn every_statement_file_is_used() {
    let code: String = sources("rs").into_iter().map(|(_, text)| text).collect();
    for (path, text) in sources("sql") {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(code.contains(&format!("sql/{name}")), "{} is used nowhere", path.display());
        assert!(text.starts_with("-- "), "{} does not say what it is for", path.display());
    }
}

#[test]
fn nothing_is_left_half_done() {
    // Spelt in pieces, so that this file does not find itself.
    let leftovers = [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("#[ig", "nore"),
        concat!("FIX", "ME"),
    ];
    for (path, text) in sources("rs") {
        for leftover in leftovers {
            assert!(!text.contains(leftover), "{} has {leftover}", path.display());
        }
    }
}

#[test]
fn one_copy_of_what_must_be_one_and_none_of_what_is_banned() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let names: Vec<&str> =
        lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    for banned in BANNED_CRATES {
        assert!(
            !names.contains(&banned),
            "{banned} came in; find out through whom with cargo tree -i {banned}"
        );
    }
    for single in SINGLE_CRATES {
        let copies = names.iter().filter(|name| **name == single).count();
        assert!(copies <= 1, "{copies} copies of {single}; see cargo tree -d");
    }
    let elsewhere =
        lock.lines().find(|line| line.starts_with("source = ") && !line.contains("crates.io-index"));
    assert_eq!(elsewhere, None, "a dependency that does not come from the registry");
}
