//! The coordinator under measurement: this very binary, in a process of its own.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use redrive_worker::client::Client;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long the coordinator may take to come up, and to go.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Target {
    child: Child,
    url: String,
}

impl Target {
    /// Starts a coordinator on a free port.
    pub async fn start(data_dir: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut child = Command::new(program)
            .args(["--json", "coordinator", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .env("REDRIVE_LOG", "error")
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a coordinator")?;
        let stdout = child.stdout.take().context("the coordinator has no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line())
            .await
            .context("the coordinator did not get ready")??;
        let Some(line) = line else { bail!("the coordinator stopped before it was ready") };
        let ready: serde_json::Value = serde_json::from_str(&line).context("the coordinator's ready line")?;
        let url = ready["url"].as_str().context("the ready line has no url")?.to_owned();
        Ok(Self { child, url })
    }

    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(&self.url)?)
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends the coordinator; its data is not looked at again.
    pub async fn stop(mut self) {
        let _ = self.child.start_kill();
        let _ = tokio::time::timeout(PATIENCE, self.child.wait()).await;
    }
}
