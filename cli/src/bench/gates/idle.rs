//! What gates cost while everything passes: the same cycles at two coordinators, one of which leaves them out, in turn.

use anyhow::Context;
use redrive_shared::id::Name;
use serde::Serialize;

use crate::bench::Options;
use crate::bench::cycles::{Work, measure_work};
use crate::bench::median::median;
use crate::bench::talk::Talk;
use crate::bench::target::{Data, Targets};

/// Pairs of rounds.
const PAIRS: usize = 9;

/// Medians.
#[derive(Debug, Clone, Serialize)]
pub struct Idle {
    /// Cycles (enqueue, claim, succeed) a second of tasks with a dependency, with gates.
    pub with_per_s: f64,
    /// The same without.
    pub without_per_s: f64,
    /// With to without, the median over the pairs.
    pub ratio: f64,
    /// How many pairs.
    pub pairs: usize,
}

pub(super) async fn measure(
    with: Data<'_>,
    without: Data<'_>,
    options: &Options,
    talk: &Talk<'_>,
) -> anyhow::Result<Idle> {
    let gated = Targets::start_with_gates(with, 1, options.threads, true).await?;
    let free = Targets::start_with_gates(without, 1, options.threads, false).await?;
    let work =
        Work { queue: "bench-idle-gates", dependency: Some(Name::new("bench/well")?), first_fails: false };
    let (mut withs, mut withouts) = (Vec::new(), Vec::new());
    for pair in 0..=PAIRS {
        talk.step(&format!("cycles with and without gates, pair {pair} of {PAIRS}"));
        // In turn also within a pair, so that neither has the warmer machine.
        let order: [(&Targets, &mut Vec<f64>); 2] = if pair % 2 == 0 {
            [(&gated, &mut withs), (&free, &mut withouts)]
        } else {
            [(&free, &mut withouts), (&gated, &mut withs)]
        };
        for (targets, rates) in order {
            let cycles = measure_work(targets.clients(), options, &work).await.context("cycles")?;
            // The first pair warms up.
            if pair > 0 {
                rates.push(cycles.per_second());
            }
        }
    }
    gated.stop().await;
    free.stop().await;
    let ratios = withs.iter().zip(&withouts).map(|(with, without)| with / without).collect();
    let nothing = || anyhow::anyhow!("nothing was measured");
    Ok(Idle {
        ratio: median(ratios).ok_or_else(nothing)?,
        with_per_s: median(withs).ok_or_else(nothing)?,
        without_per_s: median(withouts).ok_or_else(nothing)?,
        pairs: PAIRS,
    })
}
