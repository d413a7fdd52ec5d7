//! What a command is run with.

use redrive_shared::clock::{Clock, SystemClock};
use redrive_worker::client::{Client, ClientError};
use tokio_util::sync::CancellationToken;

use crate::attempt;
use crate::cli::Global;
use crate::config::Config;
use crate::output::Output;

/// Where `redrive dev` and `redrive coordinator` listen unless they are told otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:7878";

/// The options of every command, and what follows from them.
#[derive(Debug)]
pub struct Context {
    /// As given.
    pub global: Global,
    /// Where data and talk go.
    pub output: Output,
    /// Cancelled when the user wants the process to end at once.
    pub impatience: CancellationToken,
}

impl Context {
    /// Looks at the terminal once.
    pub fn new(global: Global) -> Self {
        let output = Output::detect(global.json);
        Self { global, output, impatience: CancellationToken::new() }
    }

    /// A client of the coordinator at `--url`; in a handler, by default, of its worker's.
    pub fn client(&self) -> Result<Client, ClientError> {
        let url = self.global.url.clone().or_else(attempt::coordinator);
        Client::new(url.as_deref().unwrap_or(DEFAULT_URL))
    }

    /// The merged configuration; `flags` are those of the command line that set a key.
    pub fn config(&self, flags: toml::Table) -> anyhow::Result<Config> {
        Ok(crate::config::merged(self.global.config.as_deref(), flags)?.read()?)
    }

    /// The time, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        SystemClock.now_ms()
    }
}
