//! Locks: how many a second where nobody else wants them, and how a lock that a hundred wait for is handed on; beside what the same
//! Redis does for clients that use it bare, with `SET NX PX`.

mod bare;
mod served;

use std::time::Duration;

use serde::Serialize;

pub(super) use self::bare::Bare;
use super::talk::Talk;
use super::target::{Data, Targets};
use super::{Options, median::median};

/// Rounds of what nobody else wants; bare and served in turn.
const ROUNDS: usize = 7;
/// For how long one round asks.
const ROUND: Duration = Duration::from_millis(700);
/// Those that wait for one lock.
const WAITERS: usize = 100;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Locks {
    /// Each caller takes a lock of its own and gives it back: pairs a second, the median of the rounds.
    pub free_per_s: f64,
    /// The same with bare Redis: `SET NX PX`, and a comparing delete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bare_free_per_s: Option<f64>,
    /// Served to bare, the median over the rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// One lock handed on through those that wait.
    pub handed_on: HandedOn,
    /// The same with bare Redis, asked again every 10 ms by each that waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bare_handed_on: Option<HandedOn>,
    /// Callers at once, where nobody waits.
    pub callers: usize,
    /// Rounds.
    pub rounds: usize,
}

/// How a lock went through the hands of those that waited for it.
#[derive(Debug, Clone, Serialize)]
pub struct HandedOn {
    /// How many waited.
    pub waiters: usize,
    /// From when a holder sends its release until the next one knows, in ms.
    pub p50_ms: f64,
    /// 99 of 100 knew by then.
    pub p99_ms: f64,
    /// From the first release to the last grant, in ms.
    pub all_ms: f64,
    /// How many were served before somebody who came earlier.
    pub out_of_order: usize,
}

impl HandedOn {
    /// Moments are in ms, by place in line: when it was granted, and when it sent its release.
    fn of(first_release_ms: f64, mut held: Vec<Held>) -> Self {
        held.sort_by(|one, other| one.granted_ms.total_cmp(&other.granted_ms));
        let mut latest = 0;
        let mut out_of_order = 0;
        for one in &held {
            out_of_order += usize::from(one.place < latest);
            latest = latest.max(one.place);
        }
        let releases = std::iter::once(first_release_ms).chain(held.iter().map(|one| one.released_ms));
        let mut waits: Vec<f64> =
            held.iter().zip(releases).map(|(one, released_ms)| one.granted_ms - released_ms).collect();
        waits.sort_by(f64::total_cmp);
        let at = |share: f64| {
            waits.get(((waits.len() as f64 * share) as usize).min(waits.len().saturating_sub(1)))
        };
        let last_ms = held.last().map_or(first_release_ms, |one| one.granted_ms);
        Self {
            waiters: held.len(),
            p50_ms: at(0.5).copied().unwrap_or_default(),
            p99_ms: at(0.99).copied().unwrap_or_default(),
            all_ms: last_ms - first_release_ms,
            out_of_order,
        }
    }
}

/// One that waited.
struct Held {
    place: usize,
    granted_ms: f64,
    released_ms: f64,
}

/// Measures; `bare` is the same Redis, where there is one.
pub(super) async fn measure(
    data: Data<'_>,
    bare: Option<&Bare>,
    options: &Options,
    talk: &Talk<'_>,
) -> anyhow::Result<Locks> {
    let targets = Targets::start(data, 1, options.threads).await?;
    let (mut served_rates, mut bare_rates) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        talk.step(&format!("locks that nobody else wants, round {round} of {ROUNDS}"));
        let served = served::free(targets.clients(), options.callers, ROUND).await?;
        let bare = match bare {
            Some(bare) => Some(bare.free(options.callers, ROUND).await?),
            None => None,
        };
        // The first round warms up.
        if round > 0 {
            served_rates.push(served);
            bare_rates.extend(bare);
        }
    }
    talk.step(&format!("a lock that {WAITERS} wait for"));
    let handed_on = served::handed_on(targets.clients(), WAITERS).await?;
    let bare_handed_on = match bare {
        Some(bare) => Some(bare.handed_on(WAITERS).await?),
        None => None,
    };
    targets.stop().await;
    let ratios = served_rates.iter().zip(&bare_rates).map(|(served, bare)| served / bare).collect();
    let nothing = || anyhow::anyhow!("nothing was measured");
    Ok(Locks {
        free_per_s: median(served_rates).ok_or_else(nothing)?,
        ratio: median(ratios),
        bare_free_per_s: median(bare_rates),
        handed_on,
        bare_handed_on,
        callers: options.callers,
        rounds: ROUNDS,
    })
}
