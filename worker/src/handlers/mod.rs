//! Handlers that need no Rust: a process a task, or an HTTP endpoint. `docs/handlers.md` is their contract.

mod answer;
mod context_server;
mod document;
mod http;
mod process;

pub use http::HttpHandler;
pub use process::ProcessHandler;
