//! Bounds of a simulation. A scenario is a file that somebody sent: it may ask for much, but not for everything.

/// The longest scenario file, in bytes. The longest sensible one, a thousand outages, has a tenth of it.
pub const FILE_MAX_BYTES: usize = 1024 * 1024;

/// The most clients. Memory grows with them, by some 100 bytes each.
pub const CLIENTS_MAX: u64 = 100_000;

/// The most tasks of one client, one after the other.
pub const TASKS_MAX: u64 = 10_000;

/// The most steps of one task.
pub const STEPS_MAX: u64 = 100;

/// The most attempts that an agent may have under way at a time, as a worker's slots in production.
pub const SLOTS_MAX: u64 = 10_000;

/// The longest virtual time, in milliseconds: 7 days, in which every daily pattern repeats.
pub const DURATION_MAX_MS: u64 = 7 * 24 * 3_600_000;

/// The most runs of one scenario, whose figures are averaged. The tenth part of them is enough for the third digit.
pub const RUNS_MAX: u64 = 1_000;

/// The most variants of one scenario: as many rows as can be compared at a glance.
pub const VARIANTS_MAX: usize = 16;

/// The most outages, and the most stages of a rate of arrival.
pub const WINDOWS_MAX: usize = 1_000;

/// The most events of a whole scenario, all variants and runs together: half a minute of a processor's time. Each run has
/// its equal share, and one that uses it up says so ([`Ending::EventLimit`](crate::Ending::EventLimit)).
pub const EVENTS_MAX: u64 = 50_000_000;

/// The highest rate, in events a second.
pub const RATE_MAX_PER_S: f64 = 1_000_000.0;

/// The most calls that a dependency serves at a time, or lets wait.
pub const CAPACITY_MAX: u64 = 1_000_000;

/// The highest price of a call or of a second of waiting, in dollars.
pub const PRICE_MAX_USD: f64 = 1_000_000.0;

/// The longest name of a scenario or of a variant, in characters.
pub const NAME_MAX_CHARS: usize = 100;

/// The most points of a curve; where a run is longer, each stands for more time.
pub const POINTS_MAX: usize = 600;
