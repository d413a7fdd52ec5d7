//! Bounds of every strategy over all inputs, and exact values of those without chance.

use proptest::prelude::{Strategy as Generator, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Just;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::retry::{MAX_DELAY_MS, Strategy};

fn milliseconds() -> impl Generator<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(MAX_DELAY_MS),
        Just(MAX_DELAY_MS + 1),
        Just(u64::MAX - 1),
        Just(u64::MAX),
        0..10_000_u64,
        0..MAX_DELAY_MS,
        any::<u64>(),
    ]
}

fn attempts() -> impl Generator<Value = u32> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(63),
        Just(64),
        Just(65),
        Just(66),
        Just(u32::MAX),
        0..40_u32,
        any::<u32>()
    ]
}

/// `min(max, base·2^(attempt−1))` in wide integers, as an independent reckoning.
fn ceiling(base_ms: u64, max_ms: u64, attempt: u32) -> u64 {
    let exponent = attempt.max(1) - 1;
    let wide = if exponent > 64 { u128::from(base_ms) << 64 } else { u128::from(base_ms) << exponent };
    u64::try_from(wide.min(u128::from(max_ms))).unwrap()
}

fn draw(strategy: &Strategy, attempt: u32, previous_ms: Option<u64>, seed: u64) -> u64 {
    strategy.delay_ms(attempt, previous_ms, &mut StdRng::seed_from_u64(seed))
}

proptest! {
    #[test]
    fn fixed_is_its_delay(delay_ms in milliseconds(), attempt in attempts(), seed in any::<u64>()) {
        let got = draw(&Strategy::Fixed { delay_ms }, attempt, None, seed);
        prop_assert_eq!(got, delay_ms.min(MAX_DELAY_MS));
    }

    #[test]
    fn exponential_is_the_clamped_power(
        (multiplier_ms, min_ms, max_ms) in (milliseconds(), milliseconds(), milliseconds()),
        attempt in attempts(), seed in any::<u64>(),
    ) {
        let got = draw(&Strategy::Exponential { multiplier_ms, min_ms, max_ms }, attempt, None, seed);
        prop_assert_eq!(got, ceiling(multiplier_ms, max_ms, attempt).max(min_ms).min(MAX_DELAY_MS));
    }

    #[test]
    fn exponential_jitter_stays_between_the_power_and_the_power_plus_jitter(
        (base_ms, jitter_ms, max_ms) in (milliseconds(), milliseconds(), milliseconds()),
        attempt in attempts(), seed in any::<u64>(),
    ) {
        let got = draw(&Strategy::ExponentialJitter { base_ms, jitter_ms, max_ms }, attempt, None, seed);
        let power_ms = ceiling(base_ms, u64::MAX, attempt);
        prop_assert!(got >= power_ms.min(max_ms).min(MAX_DELAY_MS));
        prop_assert!(got <= power_ms.saturating_add(jitter_ms).min(max_ms).min(MAX_DELAY_MS));
    }

    #[test]
    fn full_jitter_stays_between_floor_and_ceiling(
        (base_ms, min_ms, max_ms) in (milliseconds(), milliseconds(), milliseconds()),
        attempt in attempts(), seed in any::<u64>(),
    ) {
        let got = draw(&Strategy::FullJitter { base_ms, min_ms, max_ms }, attempt, None, seed);
        prop_assert!(got >= min_ms.min(MAX_DELAY_MS));
        prop_assert!(got <= ceiling(base_ms, max_ms, attempt).max(min_ms).min(MAX_DELAY_MS));
    }

    #[test]
    fn equal_jitter_stays_in_the_upper_half_of_the_ceiling(
        (base_ms, min_ms, max_ms) in (milliseconds(), milliseconds(), milliseconds()),
        attempt in attempts(), seed in any::<u64>(),
    ) {
        let got = draw(&Strategy::EqualJitter { base_ms, min_ms, max_ms }, attempt, None, seed);
        let ceiling_ms = ceiling(base_ms, max_ms, attempt);
        prop_assert!(got >= (ceiling_ms / 2).max(min_ms).min(MAX_DELAY_MS));
        prop_assert!(got <= ceiling_ms.max(min_ms).min(MAX_DELAY_MS));
    }

    #[test]
    fn decorrelated_stays_between_base_and_three_times_the_previous(
        (base_ms, cap_ms) in (milliseconds(), milliseconds()),
        previous_ms in proptest::option::of(milliseconds()),
        attempt in attempts(), seed in any::<u64>(),
    ) {
        let got = draw(&Strategy::Decorrelated { base_ms, cap_ms }, attempt, previous_ms, seed);
        let low_ms = base_ms.min(cap_ms);
        let tripled_ms = u128::from(previous_ms.unwrap_or(base_ms)) * 3;
        let high_ms = u64::try_from(tripled_ms.min(u128::from(cap_ms))).unwrap();
        prop_assert!(got >= low_ms.min(MAX_DELAY_MS));
        prop_assert!(got <= high_ms.max(low_ms).min(MAX_DELAY_MS));
        prop_assert!(got <= cap_ms);
    }

    #[test]
    fn schedule_gives_the_entry_and_repeats_the_last(
        delays_ms in proptest::collection::vec(milliseconds(), 1..70),
        attempt in attempts(), seed in any::<u64>(),
    ) {
        let index = usize::try_from(attempt.max(1) - 1).unwrap().min(delays_ms.len() - 1);
        let expected = delays_ms[index].min(MAX_DELAY_MS);
        prop_assert_eq!(draw(&Strategy::Schedule { delays_ms }, attempt, None, seed), expected);
    }

    #[test]
    fn the_same_seed_gives_the_same_delay(attempt in attempts(), seed in any::<u64>()) {
        let strategy = Strategy::default();
        prop_assert_eq!(draw(&strategy, attempt, None, seed), draw(&strategy, attempt, None, seed));
    }
}

#[test]
fn strategies_without_chance_give_the_documented_values() {
    // tenacity's documented example: wait_exponential(multiplier=1, min=4, max=10).
    let documented = Strategy::Exponential { multiplier_ms: 1_000, min_ms: 4_000, max_ms: 10_000 };
    let plain = Strategy::Exponential { multiplier_ms: 1_000, min_ms: 100, max_ms: 300_000 };
    let without_jitter = Strategy::ExponentialJitter { base_ms: 1_000, jitter_ms: 0, max_ms: 5_000 };
    let schedule = Strategy::Schedule { delays_ms: vec![5_000, 300_000, 1_800_000] };
    let table: [(&Strategy, &[(u32, u64)]); 5] = [
        (&Strategy::Fixed { delay_ms: 250 }, &[(0, 250), (1, 250), (2, 250), (u32::MAX, 250)]),
        (&documented, &[(1, 4_000), (2, 4_000), (3, 4_000), (4, 8_000), (5, 10_000), (u32::MAX, 10_000)]),
        (
            &plain,
            &[
                (0, 1_000),
                (1, 1_000),
                (2, 2_000),
                (3, 4_000),
                (9, 256_000),
                (10, 300_000),
                (64, 300_000),
                (65, 300_000),
                (66, 300_000),
                (u32::MAX, 300_000),
            ],
        ),
        (&without_jitter, &[(1, 1_000), (2, 2_000), (3, 4_000), (4, 5_000), (u32::MAX, 5_000)]),
        (
            &schedule,
            &[(0, 5_000), (1, 5_000), (2, 300_000), (3, 1_800_000), (4, 1_800_000), (u32::MAX, 1_800_000)],
        ),
    ];
    for (strategy, rows) in table {
        for &(attempt, expected) in rows {
            assert_eq!(draw(strategy, attempt, None, 1), expected, "{strategy:?}, attempt {attempt}");
        }
    }
}

#[test]
fn an_empty_schedule_is_no_loop_without_delays() {
    assert_eq!(draw(&Strategy::Schedule { delays_ms: Vec::new() }, 1, None, 1), 1_000);
}
