//! Just enough HTTP/1.1 over a raw socket: heads, bodies, responses.
//!
//! A web framework would not let us reset a connection, break off a stream or notice that a client has left, which are
//! the faults this server is for.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::limits;

/// A request that cannot be served as it stands, and what to tell its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    pub message: String,
}

impl Refusal {
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Refusal { status, message: message.into() }
    }
}

/// Why there is no request.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The client left, or never asked anything.
    Gone,
    /// It asked in a way we do not serve; the connection is out of step and must close.
    Refused(Refusal),
}

impl From<io::Error> for ReadError {
    fn from(_: io::Error) -> Self {
        ReadError::Gone
    }
}

impl From<Refusal> for ReadError {
    fn from(refusal: Refusal) -> Self {
        ReadError::Refused(refusal)
    }
}

/// How a request says where its body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyLength {
    Bytes(u64),
    Chunked,
}

/// The part of a request's head that matters here.
#[derive(Debug)]
pub(super) struct Head {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub keep_alive: bool,
    pub idempotency_key: Option<String>,
    pub task: Option<String>,
    pub attempt: Option<u32>,
    pub epoch: Option<u64>,
    body: BodyLength,
    expects_continue: bool,
}

impl Head {
    /// Parses a head from the start of `bytes`; `None` if it has not all arrived. The number is its length.
    fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Refusal> {
        let mut headers = [httparse::EMPTY_HEADER; limits::HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(Refusal::new(431, format!("more than {} headers", limits::HEADERS_MAX)));
            }
            Err(error) => return Err(Refusal::new(400, format!("malformed HTTP request: {error}"))),
        };
        let path = request.path.unwrap_or("/");
        let mut head = Head {
            method: request.method.unwrap_or_default().to_owned(),
            path: path.split('?').next().unwrap_or(path).to_owned(),
            keep_alive: request.version == Some(1),
            idempotency_key: None,
            task: None,
            attempt: None,
            epoch: None,
            body: BodyLength::Bytes(0),
            expects_continue: false,
        };
        head.take_headers(request.headers)?;
        Ok(Some((head, length)))
    }

    fn take_headers(&mut self, headers: &[httparse::Header<'_>]) -> Result<(), Refusal> {
        let (mut length, mut chunked) = (None, false);
        for header in headers {
            let name = header.name.to_ascii_lowercase();
            let text = || std::str::from_utf8(header.value).unwrap_or_default().trim();
            match name.as_str() {
                "content-length" => {
                    let bytes = text().parse::<u64>();
                    let bytes = bytes.map_err(|_| Refusal::new(400, "content-length is not a number"))?;
                    if length.is_some_and(|before| before != bytes) {
                        return Err(Refusal::new(400, "two content-length headers disagree"));
                    }
                    length = Some(bytes);
                }
                "transfer-encoding" if text().eq_ignore_ascii_case("chunked") => chunked = true,
                "transfer-encoding" => {
                    return Err(Refusal::new(501, "the only transfer-encoding served is chunked"));
                }
                "connection" => self.take_connection(text()),
                "expect" => self.expects_continue = text().eq_ignore_ascii_case("100-continue"),
                "idempotency-key" => {
                    let key =
                        check_key(std::str::from_utf8(header.value).ok(), "the idempotency-key header")?;
                    self.idempotency_key = Some(key.to_owned());
                }
                "x-redrive-task" => self.task = Some(text().chars().take(limits::KEY_BYTES_MAX).collect()),
                "x-redrive-attempt" => self.attempt = text().parse().ok(),
                "x-redrive-epoch" => self.epoch = text().parse().ok(),
                _ => {}
            }
        }
        self.body = match (length, chunked) {
            (Some(_), true) => {
                return Err(Refusal::new(400, "both content-length and transfer-encoding: chunked"));
            }
            (Some(bytes), false) => BodyLength::Bytes(bytes),
            (None, true) => BodyLength::Chunked,
            (None, false) => BodyLength::Bytes(0),
        };
        Ok(())
    }

    fn take_connection(&mut self, value: &str) {
        for token in value.split(',').map(str::trim) {
            if token.eq_ignore_ascii_case("close") {
                self.keep_alive = false;
            } else if token.eq_ignore_ascii_case("keep-alive") {
                self.keep_alive = true;
            }
        }
    }
}

/// A key as it may be remembered: not empty, not long. `whose` names its place for the error message.
pub(super) fn check_key<'a>(key: Option<&'a str>, whose: &str) -> Result<&'a str, Refusal> {
    match key.map(str::trim) {
        Some(key) if (1..=limits::KEY_BYTES_MAX).contains(&key.len()) => Ok(key),
        _ => Err(Refusal::new(400, format!("{whose} must be text of 1 to {} bytes", limits::KEY_BYTES_MAX))),
    }
}

/// A response that is sent whole.
#[derive(Debug)]
pub(super) struct Response {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// Its bytes up to the empty line, with `framing` as the headers that say where the body ends.
    pub fn head_bytes(&self, framing: &str, keep_alive: bool) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let connection = if keep_alive { "keep-alive" } else { "close" };
        head.push_str(&format!("{framing}\r\nconnection: {connection}\r\n\r\n"));
        head.into_bytes()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Temporarily Unavailable",
        529 => "Overloaded",
        // HTTP/1.1 allows an empty reason, and no client reads it.
        _ => "",
    }
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// The time is up and the client is still there.
    Elapsed,
    /// The client closed its side first.
    ClientGone,
}

/// A connection: the socket and what has been read from it but not used.
pub(super) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    head_timeout: Duration,
    /// Whether a request has been read: the first may not keep us waiting, later ones may.
    used: bool,
}

impl Wire {
    pub fn new(stream: TcpStream, head_timeout: Duration) -> Self {
        // Failing to set it costs a few ms, never an answer.
        let _ = stream.set_nodelay(true);
        Wire { stream, buffer: Vec::new(), head_timeout, used: false }
    }

    /// Reads the next request's head.
    pub async fn read_head(&mut self) -> Result<Head, ReadError> {
        if self.used && self.buffer.is_empty() {
            // Between requests a client may rest; a new connection has to come to the point.
            timeout(limits::IDLE_TIMEOUT, self.fill()).await.map_err(|_| ReadError::Gone)??;
        }
        self.used = true;
        let read = timeout(self.head_timeout, self.finish_head()).await;
        match read {
            Ok(head) => head,
            // Whoever has not begun to ask gets no answer.
            Err(_) if self.buffer.is_empty() => Err(ReadError::Gone),
            Err(_) => {
                let waited_ms = self.head_timeout.as_millis();
                Err(Refusal::new(408, format!("no complete request head within {waited_ms} ms")).into())
            }
        }
    }

    async fn finish_head(&mut self) -> Result<Head, ReadError> {
        loop {
            match Head::parse(&self.buffer)? {
                Some((head, length)) if length <= limits::HEAD_BYTES_MAX => {
                    self.buffer.drain(..length);
                    return Ok(head);
                }
                None if self.buffer.len() <= limits::HEAD_BYTES_MAX => self.fill().await?,
                _ => {
                    let message = format!("request head larger than {} bytes", limits::HEAD_BYTES_MAX);
                    return Err(Refusal::new(431, message).into());
                }
            }
        }
    }

    /// Reads the body that belongs to `head`.
    pub async fn read_body(&mut self, head: &Head) -> Result<Vec<u8>, ReadError> {
        if let BodyLength::Bytes(bytes) = head.body {
            check_body_size(bytes)?;
        }
        if head.expects_continue && self.buffer.is_empty() {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let reading = async {
            match head.body {
                // Checked above: it fits.
                BodyLength::Bytes(bytes) => self.take(bytes as usize).await.map_err(ReadError::from),
                BodyLength::Chunked => self.take_chunks().await,
            }
        };
        timeout(limits::BODY_TIMEOUT, reading).await.unwrap_or_else(|_| {
            let waited_s = limits::BODY_TIMEOUT.as_secs();
            Err(Refusal::new(408, format!("no complete request body within {waited_s} s")).into())
        })
    }

    async fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill().await?;
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    async fn take_chunks(&mut self) -> Result<Vec<u8>, ReadError> {
        let mut body = Vec::new();
        loop {
            let line = self.take_line(limits::CHUNK_LINE_BYTES_MAX).await?;
            let size = match httparse::parse_chunk_size(&line) {
                Ok(httparse::Status::Complete((_, size))) => size,
                _ => return Err(Refusal::new(400, "malformed chunk size").into()),
            };
            if size == 0 {
                // Trailers, which nobody here needs, up to an empty line.
                while !self.take_line(limits::HEAD_BYTES_MAX).await?.trim_ascii().is_empty() {}
                return Ok(body);
            }
            check_body_size(size.saturating_add(body.len() as u64))?;
            body.append(&mut self.take(size as usize).await?);
            if self.take(2).await? != b"\r\n" {
                return Err(Refusal::new(400, "a chunk is longer than its size").into());
            }
        }
    }

    async fn take_line(&mut self, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return Ok(self.take(end + 1).await?);
            }
            if self.buffer.len() > bytes_max {
                return Err(Refusal::new(400, "a line of a chunked body is too long").into());
            }
            self.fill().await?;
        }
    }

    /// Reads what there is. The end of the stream is an error: each caller wants more.
    async fn fill(&mut self) -> io::Result<()> {
        // Left to itself, a full Vec offers the socket 64 bytes.
        self.buffer.reserve(limits::READ_BYTES);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Waits, watching the client. One that shuts down its sending side only counts as gone, as in most servers.
    pub async fn wait(&mut self, delay: Duration) -> Waited {
        if delay.is_zero() {
            return Waited::Elapsed;
        }
        let watching = async {
            // Requests sent ahead are kept for later, but not without end.
            while self.buffer.len() <= limits::HEAD_BYTES_MAX {
                if self.fill().await.is_err() {
                    return;
                }
            }
            std::future::pending().await
        };
        match timeout(delay, watching).await {
            Ok(()) => Waited::ClientGone,
            Err(_) => Waited::Elapsed,
        }
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(limits::WRITE_TIMEOUT, self.stream.write_all(bytes))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Sends a whole response; without its body to a HEAD request, which must not get one.
    pub async fn respond(&mut self, response: &Response, bodiless: bool, keep_alive: bool) -> io::Result<()> {
        let framing = format!("content-length: {}", response.body.len());
        let mut bytes = response.head_bytes(&framing, keep_alive);
        if !bodiless {
            bytes.extend_from_slice(&response.body);
        }
        // One write: a head and a body in separate segments would wait for each other (Nagle, delayed ack).
        self.write(&bytes).await
    }

    /// Ends the connection so that what was written arrives.
    pub async fn close(mut self) {
        let drain = async {
            self.stream.shutdown().await?;
            let mut drained = 0;
            while drained < limits::DRAIN_BYTES_MAX {
                self.buffer.clear();
                self.fill().await?;
                drained += self.buffer.len();
            }
            io::Result::Ok(())
        };
        // However draining ends, the socket closes now.
        let _ = timeout(limits::DRAIN_TIMEOUT, drain).await;
    }

    /// Ends the connection with a reset (RST) instead of an orderly end.
    pub fn reset(self) {
        // If the option cannot be set, the client sees an early end instead: still a transport fault.
        let _ = self.stream.set_zero_linger();
    }
}

fn check_body_size(bytes: u64) -> Result<(), Refusal> {
    if bytes <= limits::BODY_BYTES_MAX as u64 {
        return Ok(());
    }
    Err(Refusal::new(413, format!("request body larger than {} bytes", limits::BODY_BYTES_MAX)))
}
