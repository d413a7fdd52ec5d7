//! Real RabbitMQ: a node that all tests share ([`shared`]), which is the cheap one, a node of the test's own
//! ([`RabbitServer`]) for those that kill it or set it up otherwise, and three that are joined ([`RabbitCluster`]).
//!
//! What a node takes to start, some 5 s of one core, is why the first is there; see [`shared`] for how it ends.

mod client;
mod cluster;
mod epmd;
mod node;
mod server;
mod shared;

pub use client::RabbitClient;
pub use cluster::RabbitCluster;
pub use node::{RabbitOptions, VHOST};
pub use server::RabbitServer;
pub use shared::{SharedRabbit, shared, shared_within};
