//! What stands in front of several coordinators: each new connection goes to the next one that takes it. It knows
//! nothing of their health, so a coordinator that hangs hangs its share of the callers.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Ends with the test, and its connections with it.
pub struct Balancer {
    address: SocketAddr,
    _stop: DropGuard,
}

impl Balancer {
    pub async fn new(behind: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept(listener, behind, stop.clone())));
        Self { address, _stop: stop.drop_guard() }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn accept(listener: TcpListener, behind: Vec<SocketAddr>, stop: CancellationToken) {
    for turn in 0.. {
        let (client, _) = listener.accept().await.expect("it accepts");
        let mut order = behind.clone();
        order.rotate_left(turn % behind.len());
        tokio::spawn(stop.clone().run_until_cancelled_owned(serve(client, order)));
    }
}

async fn serve(mut client: TcpStream, order: Vec<SocketAddr>) {
    for address in order {
        if let Ok(mut server) = TcpStream::connect(address).await {
            for side in [&client, &server] {
                side.set_nodelay(true).expect("a TCP socket");
            }
            // Whichever side breaks, both end: that is all that a balancer can say.
            let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}
