//! One connection: read a request, decide, answer, again.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::answer::{Answer, Subject, answer, refusal};
use super::http::{Head, ReadError, Response, Waited, Wire};
use super::log::Outcome;
use super::request::Ask;
use super::state::{Call, Decision, Shared, UpstreamHandle};

/// What becomes of the connection after an exchange.
enum Next {
    /// Read the next request.
    KeepAlive,
    /// Everything is sent: end in good order.
    Close,
    /// End with a reset.
    Reset,
    /// The client has gone, or nothing more is to be said to it.
    Drop,
}

/// A connection and what it needs from the server.
pub(super) struct Connection {
    wire: Wire,
    shared: Arc<Shared>,
    /// Its number on this server.
    id: u64,
    hang_max: Duration,
}

impl Connection {
    pub fn new(
        stream: TcpStream,
        shared: Arc<Shared>,
        id: u64,
        hang_max: Duration,
        head_timeout: Duration,
    ) -> Self {
        Connection { wire: Wire::new(stream, head_timeout), shared, id, hang_max }
    }

    /// Serves requests until either side ends the connection.
    pub async fn serve(mut self) {
        loop {
            match self.exchange().await {
                Next::KeepAlive => {}
                Next::Close => return self.wire.close().await,
                Next::Reset => return self.wire.reset(),
                Next::Drop => return,
            }
        }
    }

    async fn exchange(&mut self) -> Next {
        let mut head = match self.wire.read_head().await {
            Ok(head) => head,
            Err(ReadError::Gone) => return Next::Drop,
            // Without a head it is not a request yet: refused, and not logged.
            Err(ReadError::Refused(fault)) => {
                let sent = self.wire.respond(&refusal(&fault), false, false).await;
                return if sent.is_ok() { Next::Close } else { Next::Drop };
            }
        };
        let ask = Ask::new(&head, self.id);
        let body = match self.wire.read_body(&head).await {
            Ok(body) => body,
            Err(ReadError::Gone) => return Next::Drop,
            Err(ReadError::Refused(fault)) => {
                // The rest of the body is unread, so the connection cannot go on, whatever is decided.
                head.keep_alive = false;
                return self.work(&head, Ask { fault: Some(fault), ..ask }).await;
            }
        };
        match (head.method.as_str(), head.path.as_str()) {
            ("GET", "/health") => self.control(&head, Response::new(200, "text/plain", "ok\n")).await,
            ("GET", "/log") => self.control(&head, self.log()).await,
            _ => {
                let ask = ask.with_body(&head, &body);
                self.work(&head, ask).await
            }
        }
    }

    /// Answers a question about the server itself: not logged, and not part of any outage.
    async fn control(&mut self, head: &Head, response: Response) -> Next {
        let sent = self.wire.respond(&response, false, head.keep_alive).await;
        after(sent.is_ok(), head.keep_alive)
    }

    fn log(&self) -> Response {
        let handle = UpstreamHandle { shared: Arc::clone(&self.shared) };
        let mut lines = Vec::new();
        for entry in handle.log() {
            // An entry is plain data and a Vec takes any write: neither step can fail.
            if serde_json::to_writer(&mut lines, &entry).is_ok() {
                lines.push(b'\n');
            }
        }
        Response::new(200, "application/x-ndjson", lines)
    }

    /// Answers a request, as its script or an outage says.
    async fn work(&mut self, head: &Head, ask: Ask) -> Next {
        let (mut call, decision) = self.shared.admit(&ask);
        let step = match decision {
            Decision::Step(step) => step,
            Decision::Refuse(fault) => return self.send(head, call, refusal(&fault)).await,
        };
        if self.wire.wait(step.delay).await == Waited::ClientGone {
            call.end(Outcome::ClientGone, None);
            return Next::Drop;
        }
        let subject = Subject {
            key: &call.key,
            call: call.number,
            seq: call.seq,
            model: &ask.model,
            input: ask.input.as_ref(),
        };
        match answer(step.reply, &subject) {
            Answer::Whole(response) => self.send(head, call, response).await,
            Answer::Cut { head: response, chunks } => self.cut(call, response, chunks).await,
            Answer::Hang => {
                let outcome = match self.wire.wait(self.hang_max).await {
                    Waited::ClientGone => Outcome::ClientGone,
                    Waited::Elapsed => Outcome::BrokenOff,
                };
                call.end(outcome, None);
                Next::Close
            }
            Answer::Reset => {
                call.end(Outcome::BrokenOff, None);
                Next::Reset
            }
        }
    }

    async fn send(&mut self, head: &Head, mut call: Call, response: Response) -> Next {
        call.end(Outcome::Answered, Some(response.status));
        let sent = self.wire.respond(&response, head.method == "HEAD", head.keep_alive).await;
        if sent.is_err() {
            call.undelivered();
        }
        after(sent.is_ok(), head.keep_alive)
    }

    async fn cut(&mut self, mut call: Call, response: Response, chunks: Vec<u8>) -> Next {
        // A client that believes the head keeps the connection, and is surprised: as in life.
        let mut bytes = response.head_bytes("transfer-encoding: chunked", true);
        bytes.extend_from_slice(&chunks);
        call.end(Outcome::BrokenOff, Some(response.status));
        if self.wire.write(&bytes).await.is_err() {
            call.undelivered();
        }
        Next::Close
    }
}

fn after(sent: bool, keep_alive: bool) -> Next {
    match (sent, keep_alive) {
        (true, true) => Next::KeepAlive,
        (true, false) => Next::Close,
        (false, _) => Next::Drop,
    }
}
