//! A TCP proxy between a client and a server whose network fails on command. It knows bytes and connections, and no
//! protocol.
//!
//! Faults that last, set by [`Proxy::set`] for connections that are open and those to come:
//!
//! | fault | stands for | what the two sides see |
//! |---|---|---|
//! | [`Fault::Latency`] | a far or busy network | everything comes so much later, each way, in order, at full throughput |
//! | [`Fault::BlackHole`] | a partition; a peer that died without a word | writing succeeds, nothing arrives, nobody learns of an end |
//! | [`Fault::Stall`] | a half-open connection; a peer that hangs | one side's bytes are not even read: its writes fill the buffers, then block; the other way works |
//! | [`Fault::Refuse`] | a process that is down | new connections are reset at once; open ones go on until [`Proxy::reset_all`] |
//!
//! A black hole that ends lets everything through that was held, as TCP repeats what a partition swallowed: a command
//! can run long after its client gave up on it. Whoever wants it lost resets the connections first. Since the proxy
//! itself accepts, connecting succeeds in a black hole, and what is refused was connected for a moment.
//!
//! Faults of a moment: [`Proxy::reset_all`] resets what is open (a crash, a firewall that forgets), and [`Proxy::cut`]
//! ends one connection in the middle of a request (the server may have half of a batch) or of a response (it was done,
//! and the client does not know).

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What one read takes at most.
const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks on their way in one direction of a connection, 1 MiB: more than a test sends in any latency.
const CHUNKS_MAX: usize = 64;

/// Which of the bytes a fault befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Requests,
    /// From the server to the client.
    Responses,
    Both,
}

impl Way {
    fn covers(self, way: Self) -> bool {
        self == Self::Both || self == way
    }
}

/// What the network does until told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: bytes pass.
    None,
    /// Bytes arrive this much later, each way: a round trip takes twice as long.
    Latency(Duration),
    /// Bytes are taken and held; ends of connections too.
    BlackHole(Way),
    /// Bytes are not taken from their sender.
    Stall(Way),
    /// New connections are reset.
    Refuse,
}

/// A connection that will end after so many more bytes.
struct Cut {
    way: Way,
    left: u64,
    /// The connection that began to use it up.
    connection: Option<u64>,
}

/// What the connections and the one who breaks them share.
struct Network {
    fault: watch::Sender<Fault>,
    cut: Mutex<Option<Cut>>,
    resets: Mutex<CancellationToken>,
    accepted: AtomicU64,
    open: AtomicU64,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
}

/// A proxy on a free loopback port. It ends with the test, and its connections with it.
pub struct Proxy {
    address: SocketAddr,
    network: Arc<Network>,
    _stop: DropGuard,
}

impl Proxy {
    /// Passes everything to this port on the loopback address.
    pub async fn to_port(upstream: u16) -> Self {
        Self::to(SocketAddr::from(([127, 0, 0, 1], upstream))).await
    }

    /// Passes everything to this address, where nobody has to listen yet.
    pub async fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let network = Arc::new(Network {
            fault: watch::Sender::new(Fault::None),
            cut: Mutex::new(None),
            resets: Mutex::new(CancellationToken::new()),
            accepted: AtomicU64::new(0),
            open: AtomicU64::new(0),
            request_bytes: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
        });
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept(
            listener,
            upstream,
            Arc::clone(&network),
            stop.clone(),
        )));
        Self { address, network, _stop: stop.drop_guard() }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on, this. `Fault::None` heals.
    pub fn set(&self, fault: Fault) {
        self.network.fault.send_replace(fault);
    }

    /// Resets all open connections, on both sides. What was on its way is lost.
    pub fn reset_all(&self) {
        let mut resets = self.network.resets.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *resets).cancel();
    }

    /// Once: of the next bytes that go this way, `bytes` arrive, then their connection ends, in order for the side that
    /// received them, with a reset for the other. With 0, nothing of the next request or response arrives.
    pub fn cut(&self, way: Way, bytes: u64) {
        assert_ne!(way, Way::Both, "it is one way that is cut");
        *self.network.cut() = Some(Cut { way, left: bytes, connection: None });
    }

    /// Whether the cut has not happened yet.
    pub fn is_cut_pending(&self) -> bool {
        self.network.cut().is_some()
    }

    /// Connections so far, refused ones too.
    pub fn connections(&self) -> u64 {
        self.network.accepted.load(Ordering::Relaxed)
    }

    /// Connections that are open now.
    pub fn open_connections(&self) -> u64 {
        self.network.open.load(Ordering::Relaxed)
    }

    /// Bytes that were passed on, over all connections.
    pub fn bytes(&self, way: Way) -> u64 {
        let requests = self.network.request_bytes.load(Ordering::Relaxed);
        let responses = self.network.response_bytes.load(Ordering::Relaxed);
        match way {
            Way::Requests => requests,
            Way::Responses => responses,
            Way::Both => requests + responses,
        }
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, network: Arc<Network>, stop: CancellationToken) {
    loop {
        let (client, _) = listener.accept().await.expect("it accepts");
        let number = network.accepted.fetch_add(1, Ordering::Relaxed);
        if *network.fault.borrow() == Fault::Refuse {
            reset(&client);
            continue;
        }
        let reset = network.resets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let network = Arc::clone(&network);
        let connection = async move {
            network.open.fetch_add(1, Ordering::Relaxed);
            serve(client, upstream, &network, number, &reset).await;
            network.leave_cut(number);
            network.open.fetch_sub(1, Ordering::Relaxed);
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(connection));
    }
}

/// One connection, from beginning to end.
async fn serve(
    mut client: TcpStream,
    upstream: SocketAddr,
    network: &Network,
    number: u64,
    resets: &CancellationToken,
) {
    // The handshake with the server is a part of the way there.
    if unless_reset(resets, network.until_passable(Way::Requests)).await.is_none() {
        return reset(&client);
    }
    // Not given up for a reset: the server, which may have accepted already, is to see it too.
    let Ok(mut server) = TcpStream::connect(upstream).await else {
        return reset(&client);
    };
    for side in [&client, &server] {
        side.set_nodelay(true).expect("a TCP socket");
    }
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let both = async {
            tokio::try_join!(
                network.carry(Way::Requests, number, from_client, to_server),
                network.carry(Way::Responses, number, from_server, to_client),
            )
        };
        unless_reset(resets, both).await
    };
    match end {
        Some(Ok(_)) => {}
        // The side that received what was let through gets an ordinary end, for a reset might overtake the bytes.
        Some(Err(Broken::Cut(Way::Requests))) => reset(&client),
        Some(Err(Broken::Cut(_))) => reset(&server),
        Some(Err(Broken::Peer)) | None => [&client, &server].into_iter().for_each(reset),
    }
}

/// The reset comes first: when a fault ends with it, nothing more gets through.
async fn unless_reset<T>(resets: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = resets.cancelled() => None,
        done = work => Some(done),
    }
}

/// Makes the end of this socket a reset.
fn reset(socket: &TcpStream) {
    // A peer that has gone already cannot be told.
    let _gone = socket.set_zero_linger();
}

/// Why a connection ended early.
enum Broken {
    /// One of the two sides ended it.
    Peer,
    Cut(Way),
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Peer
    }
}

/// Bytes on their way, or that their sender broke off.
type Parcel = (Instant, io::Result<Vec<u8>>);

impl Network {
    fn cut(&self) -> std::sync::MutexGuard<'_, Option<Cut>> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One direction of a connection, until its sender ends it.
    async fn carry(
        &self,
        way: Way,
        number: u64,
        from: ReadHalf<'_>,
        to: WriteHalf<'_>,
    ) -> Result<(), Broken> {
        let (put, take) = mpsc::channel(CHUNKS_MAX);
        tokio::try_join!(self.load(way, from, put), self.deliver(way, number, take, to)).map(|_| ())
    }

    async fn load(&self, way: Way, mut from: ReadHalf<'_>, put: mpsc::Sender<Parcel>) -> Result<(), Broken> {
        let mut fault = self.fault.subscribe();
        loop {
            drop(fault.wait_for(|fault| !matches!(fault, Fault::Stall(of) if of.covers(way))).await);
            let mut chunk = vec![0; CHUNK_BYTES];
            let read = tokio::select! {
                biased;
                // A stall may have begun: nothing more is read then.
                _ = fault.changed() => continue,
                read = from.read(&mut chunk) => read,
            };
            let latency = match *self.fault.borrow() {
                Fault::Latency(latency) => latency,
                _ => Duration::ZERO,
            };
            let ended = !matches!(read, Ok(1..));
            let parcel = read.map(|bytes| {
                chunk.truncate(bytes);
                chunk
            });
            if put.send((Instant::now() + latency, parcel)).await.is_err() || ended {
                return Ok(());
            }
        }
    }

    async fn deliver(
        &self,
        way: Way,
        number: u64,
        mut take: mpsc::Receiver<Parcel>,
        mut to: WriteHalf<'_>,
    ) -> Result<(), Broken> {
        while let Some((due, parcel)) = take.recv().await {
            sleep_until(due).await;
            self.until_passable(way).await;
            let chunk = parcel?;
            let passed = self.uncut(way, number, chunk.len());
            if let Some(bytes) = passed {
                self.write(way, &mut to, &chunk[..bytes]).await?;
                return Err(Broken::Cut(way));
            }
            self.write(way, &mut to, &chunk).await?;
        }
        // The other direction may still have something to say.
        Ok(to.shutdown().await?)
    }

    async fn write(&self, way: Way, to: &mut WriteHalf<'_>, bytes: &[u8]) -> io::Result<()> {
        to.write_all(bytes).await?;
        let counter = if way == Way::Requests { &self.request_bytes } else { &self.response_bytes };
        counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn until_passable(&self, way: Way) {
        let mut fault = self.fault.subscribe();
        drop(fault.wait_for(|fault| !matches!(fault, Fault::BlackHole(of) if of.covers(way))).await);
    }

    /// A connection that ended before it was cut leaves that to the next.
    fn leave_cut(&self, number: u64) {
        if let Some(cut) = self.cut().as_mut().filter(|cut| cut.connection == Some(number)) {
            cut.connection = None;
        }
    }

    /// How many of the bytes still pass if the connection is cut within them.
    fn uncut(&self, way: Way, number: u64, bytes: usize) -> Option<usize> {
        let mut pending = self.cut();
        let cut = pending.as_mut()?;
        if bytes == 0 || cut.way != way || *cut.connection.get_or_insert(number) != number {
            return None;
        }
        if cut.left > bytes as u64 {
            cut.left -= bytes as u64;
            return None;
        }
        let passed = cut.left as usize;
        *pending = None;
        Some(passed)
    }
}
