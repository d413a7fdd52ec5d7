//! The crash matrix: three coordinators and four workers under load, and faults that befall them and their Redis, counted.
//!
//! A seeded sample of it is an ordinary test. All of it, with the tables of `docs/crash-matrix.md`, is `tests/crash_matrix`.
//!
//! | variable | meaning |
//! |---|---|
//! | `REDRIVE_FAULTS` | how many faults, 20 if it is not set |
//! | `REDRIVE_FAULTS_SEED` | of the random moments and victims |
//! | `REDRIVE_FAULTS_TABLE` | a file to write the tables to; then what Redis itself loses is measured, too |

mod balancer;
mod fleet;
mod judge;
mod kind;
mod load;
mod losses;
mod probe;
mod scene;
mod servers;
mod table;

use rand::SeedableRng;
use rand::rngs::StdRng;

use self::judge::{Judged, Rows, judge};
use self::kind::On;
use self::scene::Scene;
use self::table::Machine;

const FAULTS: usize = 20;
const SEED: u64 = 20_260;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_whatever_fails() {
    let faults = number("REDRIVE_FAULTS").map_or(FAULTS, |faults| usize::try_from(faults).unwrap());
    let seed = number("REDRIVE_FAULTS_SEED").unwrap_or(SEED);
    let of = |percent: usize| (faults * percent).div_ceil(100);
    let others = of(14) + of(14) + of(20);
    let run = async |on: On, faults: usize| {
        let mut scene = Scene::start(on, StdRng::seed_from_u64(seed ^ on as u64)).await;
        scene.strike_all(faults).await;
        judge(scene).await
    };
    // Most of their time is waiting: for ends of leases, for failovers.
    let (one, (cluster, sentinel)) = tokio::join!(run(On::One, faults - others), async {
        (run(On::Cluster, of(14)).await, run(On::Sentinel, of(14)).await)
    });
    // By itself: here times are what is measured.
    let defaults = run(On::Defaults, of(20)).await;
    let mut judged = [one, cluster, sentinel, defaults];
    let mut rows = Rows::new();
    judged.iter_mut().for_each(|judged| rows.append(&mut judged.rows));
    let file = std::env::var_os("REDRIVE_FAULTS_TABLE");
    let losses = if file.is_some() { losses::measure().await } else { Vec::new() };
    let text = table::render(&Machine::look(), &rows, &judged, &losses, seed);
    println!("{text}");
    if let Some(file) = file {
        std::fs::write(&file, &text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
    assert_all_is_well(&judged, &rows, faults);
}

fn assert_all_is_well(judged: &[Judged], rows: &Rows, faults: usize) {
    let violations: Vec<&str> =
        judged.iter().flat_map(|judged| &judged.violations).map(String::as_str).collect();
    assert!(violations.is_empty(), "{}", violations.join("\n\n"));
    assert_eq!(rows.values().map(|row| row.lost + row.overlapping).sum::<u64>(), 0);
    assert_eq!(rows.values().map(|row| row.faults).sum::<u64>(), faults as u64);
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a whole number, not {text:?}")))
}
