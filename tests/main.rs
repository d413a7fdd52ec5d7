//! The integration tests, as one binary: what every store must do (`suite`), a reference model that random commands are
//! compared with (`model`), claims that nobody waits for (`dispatch`), power loss (`durability`), what the embedded store does in adversity (`faults`), and the shared one (`shared_store`), what either makes of policies that a newer
//! release wrote (`newer`), the API
//! over real sockets (`api`), checkpoints over it (`checkpoints`), what is too large for the store (`blobs`), the gates of the fleet (`gates`), its locks (`locks`), what a worker gives its handlers (`worker_context`), the command line as real processes (`cli`), kill -9 (`crash`), what the tests' own
//! servers and faults are worth (`fixtures`), and the house rules (`tidy`).

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod amqp;
mod api;
mod blobs;
mod checkpoints;
mod cli;
mod crash;
mod dispatch;
mod doctor;
mod durability;
mod faults;
mod fixtures;
mod gates;
mod locks;
mod model;
mod newer;
mod shared_store;
mod suite;
mod support;
mod tidy;
mod worker_context;
