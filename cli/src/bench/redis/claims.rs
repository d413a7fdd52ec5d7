//! What a claim costs when more and more tasks are parked in the same lane.

use std::time::Instant;

use anyhow::{Context, ensure};
use serde::Serialize;

use super::memory::park;
use super::server::Server;
use super::straight::Straight;
use super::{Names, SMALL_PARKED};
use crate::bench::Options;
use crate::bench::median::median;
use crate::bench::talk::Talk;

/// Tasks that a claim takes.
const DUE: usize = 100;
/// Claims of a round, one after the other, and rounds: the time is the median of all claims, so that one that waited for
/// the disk does not decide, and the processor time that of the rounds, since asking for it costs as well.
const CLAIMS: usize = 20;
const ROUNDS: usize = 5;
/// Between the first and the last size, where they are far apart.
const MIDDLE: usize = 1_000_000;

/// Claims of 100 due tasks.
#[derive(Debug, Clone, Serialize)]
pub struct Claims {
    /// By tasks parked, the fewest first.
    pub sizes: Vec<Size>,
    /// Time with the most parked, to that with the fewest.
    pub time_ratio: f64,
    /// The same of Redis's processor time.
    pub redis_ratio: f64,
}

/// With so many parked.
#[derive(Debug, Clone, Serialize)]
pub struct Size {
    /// Tasks parked in the same lane.
    pub parked: usize,
    /// A claim, in µs: the median.
    pub claim_us: f64,
    /// Redis's processor time for it, in µs.
    pub redis_us: f64,
}

pub(super) async fn measure(
    server: &Server,
    names: &Names,
    options: &Options,
    talk: &Talk<'_>,
) -> anyhow::Result<Claims> {
    let straight = Straight::open(&names.address, &names.claims(), options.payload_bytes).await?;
    let mut sizes: Vec<Size> = Vec::new();
    for parked in steps(options.parked) {
        talk.step(&format!("claims, with {parked} tasks parked in the lane"));
        let more = parked - sizes.last().map_or(0, |size| size.parked);
        park(&straight, more, options.callers, false).await?;
        // What the parking left to do in the background is no claim's.
        server.settled_memory().await?;
        sizes.push(measure_size(server, &straight, parked).await?);
    }
    drop(straight);
    server.remove(&names.claims()).await?;
    let (Some(fewest), Some(most)) = (sizes.first(), sizes.last()) else {
        anyhow::bail!("nothing was parked")
    };
    Ok(Claims {
        time_ratio: most.claim_us / fewest.claim_us,
        redis_ratio: most.redis_us / fewest.redis_us,
        sizes,
    })
}

fn steps(most: usize) -> Vec<usize> {
    let fewest = SMALL_PARKED.min(most / 10).max(1);
    if most > MIDDLE { vec![fewest, MIDDLE, most] } else { vec![fewest, most] }
}

async fn measure_size(server: &Server, straight: &Straight, parked: usize) -> anyhow::Result<Size> {
    let (mut times, mut redis) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for _ in 0..CLAIMS {
            straight.enqueue(DUE, 0, false).await?;
        }
        let before = server.cpu_time().await?;
        for _ in 0..CLAIMS {
            let started = Instant::now();
            let (leases, _) = straight.claim(0, DUE).await.context("claiming")?;
            times.push(started.elapsed().as_secs_f64() * 1e6);
            ensure!(leases.len() == DUE, "a claim got {} of {DUE} due tasks", leases.len());
        }
        let used = server.cpu_time().await?.saturating_sub(before);
        redis.push(used.as_secs_f64() * 1e6 / CLAIMS as f64);
    }
    Ok(Size {
        parked,
        claim_us: median(times).unwrap_or(f64::NAN),
        redis_us: median(redis).unwrap_or(f64::NAN),
    })
}

#[cfg(test)]
mod tests {
    use super::steps;

    #[test]
    fn far_sizes_have_one_between_them() {
        assert_eq!(steps(1_000), [100, 1_000]);
        assert_eq!(steps(1_000_000), [10_000, 1_000_000]);
        assert_eq!(steps(10_000_000), [10_000, 1_000_000, 10_000_000]);
    }
}
