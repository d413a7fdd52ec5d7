//! A real S3 server over HTTP, of a test's own: moto, which keeps everything in its memory. It ends with the test.

use std::ffi::OsStr;
use std::time::Duration;

use tempfile::TempDir;

use super::daemon::Daemon;
use super::fast_directory;
use super::port::Port;
use super::wait::eventually;

/// A start takes some seconds, and the first one on a machine fetches it.
const START: Duration = Duration::from_secs(120);
const BUCKET: &str = "bucket";

/// A server with one bucket, `bucket`.
pub struct S3Server {
    daemon: Daemon,
    port: Port,
    _directory: TempDir,
}

impl S3Server {
    pub async fn start() -> Self {
        let (port, directory) = (Port::free(), fast_directory());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/python");
        let arguments = ["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.number().to_string()];
        let log = directory.path().join("log");
        let daemon = Daemon::start(OsStr::new(script), &arguments.map(str::to_owned), &log);
        let mut server = Self { daemon, port, _directory: directory };
        server.make_bucket().await;
        server
    }

    /// What the environment of a coordinator says to reach it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://127.0.0.1:{}", self.port.number());
        [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "hidden-secret"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// The address of blobs under a prefix.
    pub fn url(prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// kill -9; what it had is gone.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// The uploads of several parts that were begun and not ended, as the server tells them.
    pub async fn uploads_under_way(&self) -> usize {
        let url = format!("http://127.0.0.1:{}/{BUCKET}?uploads", self.port.number());
        let answer = reqwest::get(url).await.expect("an answer").text().await.expect("a body");
        answer.matches("<UploadId>").count()
    }

    async fn make_bucket(&mut self) {
        // Also chooses the process's TLS provider, which a bare client asks for.
        drop(redrive_worker::client::Client::new("http://127.0.0.1:1"));
        let (http, url) =
            (reqwest::Client::new(), format!("http://127.0.0.1:{}/{BUCKET}", self.port.number()));
        let daemon = &mut self.daemon;
        eventually("the S3 server makes a bucket", START, async || {
            assert!(!daemon.has_ended(), "the S3 server ended:\n{}", daemon.log_tail());
            let made = http.put(&url).send().await.ok()?;
            assert!(made.status().is_success(), "{}", made.status());
            Some(())
        })
        .await;
    }
}
