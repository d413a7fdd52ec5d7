//! The coordinator: the truth about every task, behind an HTTP API.

pub mod alarm;
pub mod config;
pub mod dispatch;
pub mod duties;
pub mod engine;
pub mod metrics;
pub mod store;
