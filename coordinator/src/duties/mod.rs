//! Background duties. All have one shape: `run(shutdown)` repeats `run_once()` and sleeps until the next is due.

mod forget;
mod listen;
mod reap;
mod sweep;

pub use forget::Forgetter;
pub use listen::Listener;
pub use reap::Reaper;
pub use sweep::{Sweeper, Swept};
