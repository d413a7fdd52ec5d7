//! The file of queues and their policies: read, written, and compared with what is in force. `docs/queues.toml` shows every
//! setting, `docs/policies.md` says what they do.
//!
//! A setting of a policy is one line in [`settings`]: from it the file is read, written, and compared.

mod difference;
mod read;
mod settings;
#[cfg(test)]
mod tests;
mod write;

pub use difference::{Change, changes, strategy_line};
pub use read::{Entry, FILE_MAX_BYTES, parse};
pub use write::write;
