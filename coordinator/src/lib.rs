//! The coordinator: the truth about every task, behind an HTTP API.

pub mod alarm;
pub mod api;
pub mod config;
mod connections;
pub mod dispatch;
pub mod duties;
pub mod engine;
pub mod metrics;
mod serve;
pub mod store;
mod watch;

pub use config::{CoordinatorConfig, StoreConfig};
pub use serve::{CoordinatorError, run};
