//! Changes of a policy as people read them.

use crate::output::{Output, printable};
use crate::queue_file::Change;

/// A line each, what was and what is.
pub fn lines(changes: &[Change], output: &Output) -> std::io::Result<()> {
    let width = changes.iter().map(|change| change.setting.len()).max().unwrap_or(0);
    changes.iter().try_for_each(|Change { setting, old, new }| {
        output.line(format!("  {setting:width$}  {} -> {}", printable(old), printable(new)))
    })
}

/// `1 mistake`, `2 mistakes`.
pub fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
