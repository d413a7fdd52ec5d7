//! The coordinator: the truth about every task, behind an HTTP API.

pub mod alarm;
pub mod amqp;
pub mod api;
pub mod blobs;
pub mod config;
mod connections;
pub mod dispatch;
pub mod duties;
pub mod engine;
pub mod gates;
mod json;
pub mod locks;
pub mod metrics;
mod serve;
pub mod store;
mod watch;

pub use amqp::AmqpConfig;
pub use config::{BlobsConfig, CoordinatorConfig, StoreConfig};
pub use serve::{CoordinatorError, run};
