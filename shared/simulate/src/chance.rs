//! Random draws. The generator is a named algorithm, not the library's "standard" one, which may change with a release: a
//! seed must give the same figures next year.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::scenario::Spread;

/// The source of everything random in one run.
pub(crate) type Chance = Xoshiro256PlusPlus;

pub(crate) fn seeded(seed: u64) -> Chance {
    Chance::seed_from_u64(seed)
}

/// Whether something of this probability happens. Draws nothing where it is certain.
pub(crate) fn happens(probability: f64, chance: &mut Chance) -> bool {
    match probability {
        p if p <= 0.0 => false,
        p if p >= 1.0 => true,
        p => chance.random::<f64>() < p,
    }
}

/// Exponentially distributed with mean 1: the gaps of a Poisson process of rate 1, by inversion.
pub(crate) fn exponential(chance: &mut Chance) -> f64 {
    // 1 − U lies in (0, 1], where the logarithm is finite.
    -(1.0 - chance.random::<f64>()).ln()
}

/// A duration in microseconds: normally distributed, by Box and Muller's transform, and its absolute value where the draw
/// is negative.
pub(crate) fn duration_us(spread: Spread, chance: &mut Chance) -> u64 {
    if spread.sd_ms <= 0.0 {
        return (spread.mean_ms * 1_000.0) as u64;
    }
    let radius = (2.0 * exponential(chance)).sqrt();
    let angle = std::f64::consts::TAU * chance.random::<f64>();
    let draw_ms = spread.mean_ms + spread.sd_ms * radius * angle.cos();
    (draw_ms.abs() * 1_000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_mean_and_the_deviation_that_were_asked_for() {
        let mut chance = seeded(1);
        let spread = Spread { mean_ms: 10.0, sd_ms: 2.0 };
        let draws: Vec<f64> =
            (0..20_000).map(|_| duration_us(spread, &mut chance) as f64 / 1_000.0).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!((mean - 10.0).abs() < 0.1, "mean {mean}");
        assert!((variance.sqrt() - 2.0).abs() < 0.1, "deviation {}", variance.sqrt());
    }

    #[test]
    fn gaps_have_mean_1_and_certain_things_draw_nothing() {
        let mut chance = seeded(2);
        let mean = (0..20_000).map(|_| exponential(&mut chance)).sum::<f64>() / 20_000.0;
        assert!((mean - 1.0).abs() < 0.05, "mean {mean}");
        let mut untouched = chance.clone();
        assert!(happens(1.0, &mut chance) && !happens(0.0, &mut chance));
        assert_eq!(chance.random::<u64>(), untouched.random::<u64>());
    }
}
