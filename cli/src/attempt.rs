//! The attempt that this process works for, if it was started by a handler.

use redrive_shared::id::TaskId;
use redrive_shared::lock::Owner;
use redrive_worker::client::{CONTEXT_URL, ContextClient};

use crate::failure::Usage;

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

/// The attempt as an owner of locks.
pub fn owner() -> Option<Owner> {
    let task = TaskId::new(variable("REDRIVE_TASK_ID")?).ok()?;
    let epoch = variable("REDRIVE_EPOCH")?.parse().ok()?;
    Some(Owner::Attempt { task, epoch })
}

/// The coordinator of the worker that runs it.
pub fn coordinator() -> Option<String> {
    variable("REDRIVE_API_URL")
}

/// An empty one is as good as none.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
