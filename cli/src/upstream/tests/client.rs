//! A raw HTTP client that sees what a library would hide, and a server to talk to.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::{Options, Upstream, UpstreamHandle};

pub(super) struct Server {
    pub addr: SocketAddr,
    pub handle: UpstreamHandle,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<()>,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub async fn start_with(options: Options) -> Self {
        let upstream = Upstream::bind_with((Ipv4Addr::LOCALHOST, 0).into(), options).await.unwrap();
        let (addr, handle) = (upstream.addr(), upstream.handle());
        assert_eq!(upstream.url(), format!("http://{addr}"));
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(upstream.run(shutdown.clone()));
        Server { addr, handle, shutdown, task }
    }

    pub async fn client(&self) -> Client {
        Client { stream: TcpStream::connect(self.addr).await.unwrap(), buffer: Vec::new() }
    }

    /// One call of `key` on its own connection.
    pub async fn call(&self, key: &str, script: &[&str]) -> io::Result<Response> {
        self.client().await.call(key, script).await
    }

    pub async fn arrived(&self, calls: u64) {
        self.handle.progress().wait_for(|progress| progress.arrived >= calls).await.unwrap();
    }

    pub async fn ended(&self, calls: u64) {
        self.handle.progress().wait_for(|progress| progress.ended >= calls).await.unwrap();
    }
}

#[derive(Debug)]
pub(super) struct Response {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
    /// Whether the body ended as its framing says, or before.
    pub complete: bool,
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

pub(super) struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub async fn call(&mut self, key: &str, script: &[&str]) -> io::Result<Response> {
        self.post(&[("Idempotency-Key", key)], &json!({ "script": script }).to_string()).await?;
        self.response().await
    }

    pub async fn post(&mut self, headers: &[(&str, &str)], body: &str) -> io::Result<()> {
        let mut head = format!("POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        self.raw(format!("{head}\r\n{body}").as_bytes()).await
    }

    pub async fn get(&mut self, path: &str) -> Response {
        self.raw(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        self.response().await.unwrap()
    }

    pub async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    pub async fn response(&mut self) -> io::Result<Response> {
        let head = loop {
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break String::from_utf8(self.buffer.drain(..end + 4).collect()).unwrap();
            }
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: BTreeMap<String, String> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut response = Response { status, headers, body: String::new(), complete: true };
        let body = if response.header("transfer-encoding") == "chunked" {
            self.chunks(&mut response.complete).await?
        } else {
            let length = response.headers.get("content-length").map_or(0, |length| length.parse().unwrap());
            self.take(length, &mut response.complete).await?
        };
        response.body = String::from_utf8(body).unwrap();
        Ok(response)
    }

    async fn take(&mut self, length: usize, complete: &mut bool) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length && *complete {
            *complete = self.fill().await?;
        }
        let length = length.min(self.buffer.len());
        Ok(self.buffer.drain(..length).collect())
    }

    async fn chunks(&mut self, complete: &mut bool) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            while *complete && !self.buffer.contains(&b'\n') {
                *complete = self.fill().await?;
            }
            let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') else { return Ok(body) };
            let line = String::from_utf8(self.buffer.drain(..=end).collect()).unwrap();
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            body.extend(self.take(size, complete).await?);
            self.take(2, complete).await?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    async fn fill(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// What the server still sends until it closes.
    pub async fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill().await? {}
        Ok(std::mem::take(&mut self.buffer))
    }
}
