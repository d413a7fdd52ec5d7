//! The attempt that this process works for, if it was started by a handler.

use redrive_worker::client::{CONTEXT_URL, ContextClient};

use crate::failure::Usage;

/// Most bytes of a state that are read: as many as a worker can be told to take. Whether it takes them is for the worker to say;
/// this only ends what never ends.
pub const STATE_MAX_BYTES: u64 = 1 << 30;

/// Its context.
///
/// # Errors
/// There is none: a usage error.
pub fn context() -> anyhow::Result<ContextClient> {
    let Some(url) = variable(CONTEXT_URL) else {
        return Err(Usage::new(format!(
            "{CONTEXT_URL} is not set: this command is for handlers, which `redrive worker --exec` runs; others save with \
             PUT /v1/tasks/ID/checkpoint"
        ))
        .into());
    };
    Ok(ContextClient::new(&url)?)
}

/// Whether this process works for an attempt.
pub fn is_ours() -> bool {
    variable(CONTEXT_URL).is_some()
}

/// The coordinator of the worker that runs it.
pub fn coordinator() -> Option<String> {
    variable("REDRIVE_API_URL")
}

/// An empty one is as good as none.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
