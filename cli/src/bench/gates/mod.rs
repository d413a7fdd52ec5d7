//! What the fleet's gates do in a storm of rate limits, and what they cost while there is none.

mod idle;
mod storm;

use serde::Serialize;

pub use idle::Idle;
pub use storm::Storm;

use super::Options;
use super::talk::Talk;
use super::target::Data;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Gates {
    /// The storm: without gates, with them, and, on a shared store, with several coordinators that share them.
    pub storms: Vec<Storm>,
    /// What they cost while everything passes.
    pub idle: Idle,
}

/// Measures with data in places of their own: `data` says where, by a name.
pub(super) async fn measure<'a>(
    data: impl Fn(&str) -> Data<'a>,
    coordinators: &[usize],
    options: &Options,
    talk: &Talk<'_>,
) -> anyhow::Result<Gates> {
    let mut storms = vec![storm::measure(data("off"), 1, false, options, talk).await?];
    for count in coordinators {
        storms.push(storm::measure(data(&format!("on{count}")), *count, true, options, talk).await?);
    }
    let idle = idle::measure(data("with"), data("without"), options, talk).await?;
    Ok(Gates { storms, idle })
}
