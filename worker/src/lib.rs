//! The worker: link, runtime, breaker, handlers.

pub mod client;
