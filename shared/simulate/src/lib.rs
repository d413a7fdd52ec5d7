//! What a retry policy does to a dependency, seen in virtual time before it is rolled out.
//!
//! Pure: a scenario's text in, figures and a picture out. No clock, no threads, no files; what is random comes from the
//! scenario's seed, so the same text gives the same figures. Every decision is made by the code that makes it in
//! production: [`redrive_shared::retry`] and [`redrive_shared::breaker`].
//!
//! ```text
//!  text ──▶ Scenario ──▶ simulate ──▶ Report ──▶ picture::draw
//!                          │
//!      Come ──▶ Try ──▶ Reach ──▶ Answer ─┬─ worked: the client's next task, or it is done
//!                │ ▲                      └─ failed: RetryPolicy::decide ─┬─▶ Try, after its delay
//!                ▼ │                                                      └─▶ given up
//!               brakes: whether a call may be made now, and who may go on when that changes
//! ```
//!
//! * [`scenario`]: what is simulated, and how its file is read; `docs/simulate.md` documents the format.
//! * `world`: the loop over events, and what each does. `dependency`: the system that is called. `brakes`: what holds
//!   calls back.
//! * [`report`]: the figures. [`picture`]: their curves over time, as SVG.

mod agenda;
mod arrivals;
mod brakes;
mod chance;
mod curve;
mod dependency;
pub mod limits;
mod peak;
pub mod picture;
#[cfg(test)]
mod published;
pub mod report;
pub mod scenario;
mod tally;
mod world;

pub use report::{Curve, Ending, Figures, Point, Report, VariantReport, simulate};
pub use scenario::{Scenario, ScenarioError};
