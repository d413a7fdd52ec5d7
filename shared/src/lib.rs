//! The domain of Redrive: types and rules that need no I/O.
//!
//! Everything here is a function of its arguments: time and randomness are passed in. `coordinator`, `worker` and `cli`
//! depend on this crate, and it depends on none of them.

pub mod blob;
pub mod breaker;
pub mod charges;
pub mod checkpoint;
pub mod classify;
pub mod clock;
pub mod config;
pub mod cost;
pub mod error;
pub mod failure;
pub mod gate;
pub mod id;
pub mod lifecycle;
pub mod limits;
pub mod lock;
pub mod retry;
pub mod stored;
pub mod task;
pub mod window;
pub mod wire;
