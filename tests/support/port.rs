//! Ports for servers that are told theirs: free, and kept for this test until it ends, also while its server is down.
//!
//! They lie below the range from which Linux takes the ports of outgoing connections (32768 and up), so that no
//! connection of a neighbour sits on the port of a server that is about to be started again. Among test processes a
//! port belongs to whoever holds the abstract Unix socket named after it, which ends with its holder, however it ends.

use std::net::TcpListener;
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// A cluster node's second port, its bus, is this much higher by Redis's own default.
const BUS_OFFSET: u16 = 10_000;
/// With the bus, still below 32768.
const PORTS: Range<u16> = 12_000..22_000;
/// Far more than there are servers in all tests that run at once.
const TRIES_MAX: u32 = 1_000;

/// A port on 127.0.0.1 that no other test gets.
pub struct Port {
    number: u16,
    _claims: Vec<UnixListener>,
}

impl Port {
    /// A port that is free now.
    pub fn free() -> Self {
        Self::claim(&[0])
    }

    /// One whose bus port is free as well.
    pub fn free_with_bus() -> Self {
        Self::claim(&[0, BUS_OFFSET])
    }

    /// The bus port of a cluster node with this port.
    pub fn bus_of(number: u16) -> u16 {
        number + BUS_OFFSET
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    fn claim(offsets: &[u16]) -> Self {
        for _ in 0..TRIES_MAX {
            let number = rand::random_range(PORTS);
            let claims: Option<Vec<_>> = offsets.iter().map(|offset| claim_one(number + offset)).collect();
            if let Some(claims) = claims {
                return Self { number, _claims: claims };
            }
        }
        panic!("no free port in {PORTS:?} in {TRIES_MAX} tries");
    }
}

fn claim_one(number: u16) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("redrive-test-port-{number}")).expect("a short name");
    let claim = UnixListener::bind_addr(&name).ok()?;
    // Whoever else listens there does not know of claims.
    TcpListener::bind(("127.0.0.1", number)).ok()?;
    Some(claim)
}
