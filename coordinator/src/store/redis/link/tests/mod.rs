//! The link against real servers, each test with its own.

mod cluster;
mod gate;
mod hints;
mod replicas;
mod sentinel;
mod server;
mod single;
mod tls;
