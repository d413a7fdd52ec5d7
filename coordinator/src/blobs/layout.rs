//! What blobs are called where names are paths: `<task>/<blob>.json`.
//!
//! In the task's part everything but lower-case letters, digits, `-` and `_` is written as `%` and two hexadecimal digits: so
//! no id leads out of its place, and ids that differ in case alone are apart on file systems that do not see case. A part that
//! would be too long is cut; all but the last end with `+`, which no other part does. What an upload that is not whole writes
//! is called as the blob, with `#` and something more behind it.

use redrive_shared::blob::BlobId;
use redrive_shared::id::TaskId;

use super::BlobKey;

/// Longest part of a path, in bytes: file systems allow 255, and some that encrypt names fewer.
const PART_MAX_BYTES: usize = 140;
/// What the name of a whole blob ends with.
const ENDING: &str = ".json";
/// What the name of an upload ends with.
pub(super) const UPLOAD: &str = "#upload";
/// Length of a blob's id.
const ID_BYTES: usize = 36;

/// The directories of a task.
pub(super) fn parts(task: &TaskId) -> Vec<String> {
    let mut encoded = String::with_capacity(task.len());
    for byte in task.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02x}")),
        }
    }
    let mut parts = Vec::new();
    let mut rest = encoded.as_str();
    // The encoded id is ASCII: it can be cut anywhere.
    while let Some((part, more)) = rest.split_at_checked(PART_MAX_BYTES).filter(|(_, more)| !more.is_empty())
    {
        parts.push(format!("{part}+"));
        rest = more;
    }
    parts.push(rest.to_owned());
    parts
}

/// The task of these directories. `None`: they are nobody's.
pub(super) fn task<'a>(parts: impl Iterator<Item = &'a str> + Clone) -> Option<TaskId> {
    let encoded: String = parts.clone().map(|part| part.strip_suffix('+').unwrap_or(part)).collect();
    let id = redrive_link::address::decode(&encoded, "the task").ok()?;
    let task = TaskId::new(id).ok()?;
    // Only what this would write itself: nothing is found under two names.
    self::parts(&task).iter().map(String::as_str).eq(parts).then_some(task)
}

/// The name of a whole blob.
pub(super) fn file(blob: BlobId) -> String {
    format!("{blob}{ENDING}")
}

/// The blob of that name, whole or not. `None`: it is something else.
pub(super) fn blob(file: &str) -> Option<BlobId> {
    let (id, rest) = file.split_at_checked(ID_BYTES)?;
    let rest = rest.strip_prefix(ENDING)?;
    let blob: BlobId = id.parse().ok()?;
    // Upper-case digits would be another name for it.
    ((rest.is_empty() || rest.starts_with('#')) && blob.to_string() == id).then_some(blob)
}

/// All parts of a whole blob's path.
pub(super) fn path(key: &BlobKey) -> Vec<String> {
    let mut path = parts(&key.task);
    path.push(file(key.blob));
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_paths_that_lead_nowhere_else_and_back() {
        let long = "é".repeat(64);
        for id in
            ["a", "A", "a/b", "../../etc/passwd", "/", "%2e", "a+", "x.json", "con", &"a".repeat(128), &long]
        {
            let Ok(task) = TaskId::new(id) else { continue };
            let parts = parts(&task);
            for part in &parts {
                assert!(part.len() <= PART_MAX_BYTES + 1 && !part.contains(['/', '.', '#']), "{part}");
                assert_eq!(part.to_lowercase(), *part);
            }
            assert_eq!(super::task(parts.iter().map(String::as_str)), Some(task), "{parts:?}");
        }
        assert_eq!(parts(&TaskId::new("Ab/c").unwrap()), ["%41b%2fc"]);
        assert_eq!(parts(&TaskId::new(long).unwrap()).len(), 3);
    }

    #[test]
    fn names_that_are_not_ours_are_nobodys() {
        for parts in [&["%41%"][..], &["A"], &["a+"], &["a", "b"], &[""], &["%61"]] {
            assert_eq!(task(parts.iter().copied()), None, "{parts:?}");
        }
        let blob = BlobId::new(5, [1; 10]);
        assert_eq!(super::blob(&file(blob)), Some(blob));
        assert_eq!(super::blob(&format!("{blob}.json#3")), Some(blob));
        for other in ["", "x.json", &format!("{blob}.jsonx"), &format!("{blob}"), &file(blob).to_uppercase()]
        {
            assert_eq!(super::blob(other), None, "{other}");
        }
    }
}
