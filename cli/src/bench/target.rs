//! The coordinators under measurement: this very binary, in processes of its own.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use redrive_worker::client::Client;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::cpu;
use super::push::Broker;

/// How long a coordinator may take to come up, and to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where coordinators keep their tasks.
#[derive(Clone, Copy)]
pub(super) enum Data<'a> {
    /// On the embedded store.
    Directory(&'a Path),
    /// On a shared one.
    Shared { url: &'a str, prefix: &'a str },
}

/// Coordinators, and the clients that calls are spread over.
pub(super) struct Targets {
    children: Vec<Child>,
    clients: Vec<Client>,
}

impl Targets {
    /// Starts so many coordinators on free ports, with so many threads each.
    pub async fn start(data: Data<'_>, count: usize, threads: u16) -> anyhow::Result<Self> {
        let mut targets = Self { children: Vec::new(), clients: Vec::new() };
        for _ in 0..count {
            targets.add(start(command(data, threads)?).await?)?;
        }
        Ok(targets)
    }

    /// The same, of which gates hold work back or only watch.
    pub async fn start_with_gates(
        data: Data<'_>,
        count: usize,
        threads: u16,
        gates: bool,
    ) -> anyhow::Result<Self> {
        let mut targets = Self { children: Vec::new(), clients: Vec::new() };
        for _ in 0..count {
            let mut command = command(data, threads)?;
            command.env("REDRIVE__COORDINATOR__GATES", gates.to_string());
            targets.add(start(command).await?)?;
        }
        Ok(targets)
    }

    /// Starts one that pushes.
    pub async fn start_pushing(data: Data<'_>, threads: u16, broker: &Broker) -> anyhow::Result<Self> {
        let mut targets = Self { children: Vec::new(), clients: Vec::new() };
        let mut command = command(data, threads)?;
        broker.tell(&mut command);
        targets.add(start(command).await?)?;
        Ok(targets)
    }

    fn add(&mut self, (child, url): (Child, String)) -> anyhow::Result<()> {
        self.children.push(child);
        self.clients.push(Client::new(&url)?);
        Ok(())
    }

    /// One a coordinator.
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// What they have used together. None where the system does not tell.
    pub fn cpu_time(&self) -> Option<Duration> {
        self.children.iter().map(|child| cpu::of_process(child.id()?)).sum()
    }

    /// Ends them; their data is not looked at again.
    pub async fn stop(mut self) {
        for child in &mut self.children {
            let _ = child.start_kill();
            let _ = tokio::time::timeout(PATIENCE, child.wait()).await;
        }
    }
}

/// What a coordinator is started with.
fn command(data: Data<'_>, threads: u16) -> anyhow::Result<Command> {
    /// Stores and brokers that are configured for other coordinators are none of ours.
    const OTHERS: [&str; 2] = ["REDRIVE__COORDINATOR__STORE__", "REDRIVE__COORDINATOR__AMQP__"];
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    command.args(["--json", "coordinator", "--listen", "127.0.0.1:0", "--threads", &threads.to_string()]);
    command.env_remove("REDRIVE_CONFIG");
    for (name, _) in std::env::vars_os() {
        if OTHERS.iter().any(|others| name.to_string_lossy().starts_with(others)) {
            command.env_remove(name);
        }
    }
    match data {
        Data::Directory(directory) => command.arg("--data-dir").arg(directory),
        // Not as an argument: everybody on the machine can read those, and there may be a password in it.
        Data::Shared { url, prefix } => command.env("REDRIVE__COORDINATOR__STORE__URL", url).args([
            "--key-prefix",
            prefix,
            "--allow-unsafe",
        ]),
    };
    Ok(command)
}

async fn start(mut command: Command) -> anyhow::Result<(Child, String)> {
    let mut child = command
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
    Ok((child, url))
}
