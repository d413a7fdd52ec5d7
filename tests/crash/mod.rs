//! kill -9 where it hurts. The sink is the flaky upstream: it logs every call that reaches it and hides no repeat.
//!
//! Each test prints its figures: `cargo nextest run -p redrive -E 'test(crash::)' --no-capture`.

mod commits;
mod coordinator;
mod crash_loop;
mod matrix;
mod worker;
mod workflow;

use std::time::Duration;

use crate::support::sink::{Sink, all_succeed, sink};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
