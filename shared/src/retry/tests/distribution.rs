//! The shape of the draws. The seeds are fixed, so these tests give the same answer every time.

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::retry::Strategy;

const DRAWS: usize = 40_000;
const BINS: usize = 20;
/// The 99.9th percentile of chi-square with `BINS − 1` = 19 degrees of freedom.
const CHI_SQUARE_LIMIT: f64 = 43.82;

fn draws(strategy: &Strategy, attempt: u32, previous_ms: Option<u64>) -> Vec<u64> {
    let mut rng = StdRng::seed_from_u64(20_240_229);
    (0..DRAWS).map(|_| strategy.delay_ms(attempt, previous_ms, &mut rng)).collect()
}

/// Asserts that the draws are spread evenly over the integers `low..=high`: range, mean and chi-square.
fn assert_uniform(draws: &[u64], low: u64, high: u64) {
    assert!(draws.iter().all(|ms| (low..=high).contains(ms)), "outside {low}..={high}");

    let mean = draws.iter().sum::<u64>() as f64 / draws.len() as f64;
    let width = (high - low) as f64;
    // Four standard errors of the mean of a uniform draw.
    let tolerance = 4.0 * width / (12.0 * draws.len() as f64).sqrt();
    let middle = (low + high) as f64 / 2.0;
    assert!((mean - middle).abs() < tolerance, "mean {mean}, expected {middle} ± {tolerance}");

    let values = high - low + 1;
    assert_eq!(values % BINS as u64, 0, "choose a range that the bins divide, so that each expects the same");
    let mut counts = [0_u32; BINS];
    for ms in draws {
        counts[usize::try_from((ms - low) * BINS as u64 / values).unwrap()] += 1;
    }
    let expected = draws.len() as f64 / BINS as f64;
    let chi_square: f64 = counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
    assert!(chi_square < CHI_SQUARE_LIMIT, "chi-square {chi_square}, counts {counts:?}");
}

#[test]
fn full_jitter_is_uniform_from_the_floor_to_the_ceiling() {
    // Attempt 4: 1 s · 2^3 = 8 s.
    let strategy = Strategy::FullJitter { base_ms: 1_000, min_ms: 101, max_ms: 300_000 };
    assert_uniform(&draws(&strategy, 4, None), 101, 8_000);
}

#[test]
fn full_jitter_at_the_cap_is_still_uniform() {
    let strategy = Strategy::FullJitter { base_ms: 1_000, min_ms: 1, max_ms: 300_000 };
    assert_uniform(&draws(&strategy, u32::MAX, None), 1, 300_000);
}

#[test]
fn equal_jitter_is_uniform_over_the_upper_half() {
    // Attempt 3: t = 3,998 ms, so ⌊t/2⌋ = 1,999 to t, 2,000 values.
    let strategy = Strategy::EqualJitter { base_ms: 1_000, min_ms: 0, max_ms: 3_998 };
    assert_uniform(&draws(&strategy, 3, None), 1_999, 3_998);
}

#[test]
fn equal_jitter_does_not_pile_up_on_a_floor_in_its_upper_half() {
    let strategy = Strategy::EqualJitter { base_ms: 1_000, min_ms: 3_001, max_ms: 4_000 };
    assert_uniform(&draws(&strategy, 3, None), 3_001, 4_000);
}

#[test]
fn exponential_jitter_is_uniform_on_top_of_the_power() {
    let strategy = Strategy::ExponentialJitter { base_ms: 1_000, jitter_ms: 999, max_ms: 300_000 };
    assert_uniform(&draws(&strategy, 2, None), 2_000, 2_999);
}

#[test]
fn decorrelated_is_uniform_up_to_three_times_the_previous() {
    let strategy = Strategy::Decorrelated { base_ms: 1_001, cap_ms: 300_000 };
    assert_uniform(&draws(&strategy, 7, Some(2_000)), 1_001, 6_000);
}

#[test]
fn decorrelated_starts_from_its_base() {
    let strategy = Strategy::Decorrelated { base_ms: 1_000, cap_ms: 2_999 };
    assert_uniform(&draws(&strategy, 1, None), 1_000, 2_999);
}

#[test]
fn a_decorrelated_walk_is_bounded_by_three_times_its_last_step() {
    let (base_ms, cap_ms) = (1_000, 300_000);
    let strategy = Strategy::Decorrelated { base_ms, cap_ms };
    let mut rng = StdRng::seed_from_u64(7);
    let mut previous_ms = None;
    let mut at_the_cap = 0;
    for attempt in 1..=10_000 {
        let ms = strategy.delay_ms(attempt, previous_ms, &mut rng);
        let tripled_ms = previous_ms.unwrap_or(base_ms) * 3;
        assert!((base_ms..=tripled_ms.min(cap_ms)).contains(&ms), "{ms} after {previous_ms:?}");
        at_the_cap += u32::from(ms == cap_ms);
        previous_ms = Some(ms);
    }
    assert!(at_the_cap < 10, "the cap bounds the range; it must not gather the draws ({at_the_cap})");
}
