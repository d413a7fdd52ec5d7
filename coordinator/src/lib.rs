//! The coordinator: the truth about every task, behind an HTTP API.

pub mod config;
pub mod store;
