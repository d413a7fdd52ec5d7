//! Erlang's port mapper, by which nodes find each other. A node starts one where it finds none, which would outlive it:
//! here it is there before.

use std::ffi::OsStr;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::support::daemon::Daemon;
use crate::support::fast_directory;
use crate::support::port::Port;
use crate::support::wait::eventually;

/// A start takes some milliseconds; this is for a machine that is very busy.
const START: Duration = Duration::from_secs(60);
/// Ports that are tried when others are faster to take them.
pub(super) const PORT_TRIES_MAX: u32 = 5;

/// A port mapper for nodes that know each other, and for nobody else.
pub(super) struct Epmd {
    daemon: Daemon,
    port: Port,
    _directory: TempDir,
}

impl Epmd {
    pub(super) async fn start() -> Self {
        for _ in 0..PORT_TRIES_MAX {
            let (port, directory) = (Port::free(), fast_directory());
            let arguments = ["-port", &port.number().to_string(), "-address", "127.0.0.1"].map(str::to_owned);
            let daemon = Daemon::start(OsStr::new("epmd"), &arguments, &directory.path().join("epmd.log"));
            let mut epmd = Self { daemon, port, _directory: directory };
            if epmd.is_ready().await {
                return epmd;
            }
        }
        panic!("epmd found {PORT_TRIES_MAX} ports taken that were free before");
    }

    /// Waits until it listens; false if it ended instead.
    async fn is_ready(&mut self) -> bool {
        let address = ("127.0.0.1", self.port());
        let daemon = &mut self.daemon;
        let ready = eventually("epmd listens", START, async || {
            if daemon.has_ended() {
                return Some(false);
            }
            TcpStream::connect(address).await.is_ok().then_some(true)
        });
        ready.await.0
    }

    pub(super) fn port(&self) -> u16 {
        self.port.number()
    }
}
