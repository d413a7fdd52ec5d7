//! The integration tests, as one binary: what every store must do (`suite`), a reference model that random commands are
//! compared with (`model`), power loss (`durability`), and what the embedded store does in adversity (`faults`).

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod durability;
mod faults;
mod model;
mod suite;
mod support;
