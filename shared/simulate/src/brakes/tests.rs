use crate::{Ending, Figures, Scenario, simulate};

fn run(text: &str) -> Figures {
    let report = simulate(&Scenario::parse("x.toml", text).unwrap());
    assert_eq!(report.variants[0].ended, Ending::Done, "{report:#?}");
    report.variants[0].figures
}

const OUTAGE: &str = "duration_ms = 7200000\n[clients]\ncount = 3000\nagents = 20\narrival = \"poisson\"\nper_s = 2\n\
    [dependency]\nservice_ms = 100\n[[dependency.outages]]\nfrom_ms = 300000\nto_ms = 600000\n[retry]\n\
    strategy = \"full_jitter\"\n";

#[test]
fn a_gate_notices_an_outage_once_for_all_and_who_waits_behind_it_loses_no_attempt() {
    let figures = run(&format!("{OUTAGE}[gate]"));
    // Twenty to notice it, a canary each time that it was shut for long enough, and what was under way.
    assert!(figures.failed < 30.0, "{}", figures.failed);
    assert_eq!((figures.succeeded, figures.dead), (3_000.0, 0.0));
    assert!((3.0..=6.0).contains(&figures.gate_shuts), "{}", figures.gate_shuts);
    assert!(figures.held_back > 500.0 && figures.wait_max_ms < 700_000.0, "{figures:?}");
}

#[test]
fn a_gate_that_holds_retries_only_lets_first_attempts_find_out_by_themselves() {
    let figures = run(&format!("{OUTAGE}[gate]\nholds = \"retries\""));
    assert!((500.0..700.0).contains(&(figures.calls - figures.retries - 2_400.0)), "{figures:?}");
    assert!((550.0..700.0).contains(&figures.failed), "each fails once: {}", figures.failed);
    assert!(figures.dead < 10.0, "only those that noticed it, and canaries, failed again: {}", figures.dead);
}

#[test]
fn a_budget_bounds_retries_to_a_share_of_first_attempts() {
    let flaky = OUTAGE.replace("service_ms = 100", "service_ms = 100\nfailure_rate = 0.3");
    let without = run(&flaky);
    let with = run(&format!("{flaky}[gate.budget]\nratio = 0.1\nfloor_per_s = 0"));
    assert!(without.retries > 0.4 * without.tasks, "{}", without.retries);
    assert!(with.wait_max_ms > 10.0 * without.wait_max_ms, "they wait: {}", with.wait_max_ms);
    assert!(with.dead <= without.dead);
}

#[test]
fn an_agent_has_no_more_attempts_under_way_than_slots() {
    let figures = run(
        "[clients]\ncount = 60\nagents = 2\nslots = 3\n[dependency]\nservice_ms = 1000\n[retry]\nstrategy = \"none\"",
    );
    assert_eq!((figures.calls_peak_per_s, figures.completed_ms), (6.0, 10_000.0));
}

#[test]
fn a_limit_that_is_set_is_kept_and_the_longest_wait_goes_first() {
    let figures =
        run("[clients]\ncount = 600\n[dependency]\nservice_ms = 10\n[retry]\nstrategy = \"none\"\n[gate]\n\
         requests_per_minute = 120");
    assert_eq!(figures.calls, 600.0);
    // 119 in 61 s after the first two, and the last one waited for all the others.
    assert!((303_000.0..=308_000.0).contains(&figures.completed_ms), "{}", figures.completed_ms);
    assert!((figures.p50_ms / figures.completed_ms - 0.5).abs() < 0.02, "{}", figures.p50_ms);
}

#[test]
fn without_checkpoints_a_workflow_does_again_what_it_had_done() {
    let text = "[clients]\ncount = 1\n[workflow]\nsteps = 5\ncalls_at = 3\nstep_ms = 1000\n[dependency]\nservice_ms = 500\n\
        [[dependency.outages]]\nfrom_ms = 0\nto_ms = 2100\n[retry]\nstrategy = \"fixed\"\n";
    // Two steps, two calls (at 2 s, and a second or more after 2.5 s), two steps.
    let with = run(text);
    assert_eq!((with.calls, with.steps, with.steps_repeated), (2.0, 5.0, 0.0));
    let without = run(&text.replace("step_ms = 1000", "step_ms = 1000\nresume = false"));
    assert_eq!((without.calls, without.steps, without.steps_repeated), (2.0, 7.0, 2.0));
    assert!((without.completed_ms - with.completed_ms - 2_000.0).abs() < 1.0, "{with:?} {without:?}");
}

/// A storm at an API with a token bucket, as in `docs/scenarios/rate-limit-storm.toml`. Returns the refused calls for each
/// request, and the time that it took as a multiple of what the limit allows.
fn storm(per_s: u32, burst: u32, hint_ms: Option<u32>, service_ms: u32) -> (f64, f64) {
    let hint = hint_ms.map(|hint_ms| format!("retry_after_ms = {hint_ms}\n")).unwrap_or_default();
    let figures = run(&format!(
        "[clients]\ncount = 10000\nagents = 100\narrival = \"poisson\"\nper_s = 2000\n[dependency]\n\
         network_ms = {{ mean = 20, sd = 4 }}\nservice_ms = {service_ms}\n[dependency.rate_limit]\nper_s = {per_s}\n\
         burst = {burst}\n{hint}[gate]\n[retry]\nstrategy = \"full_jitter\""
    ));
    assert_eq!((figures.succeeded, figures.dead), (10_000.0, 0.0), "{per_s} {burst} {hint_ms:?}");
    let ideal_s = f64::from(10_000 - burst) / f64::from(per_s) + f64::from(service_ms) / 1_000.0;
    (figures.rate_limited / figures.tasks, figures.completed_ms / 1_000.0 / ideal_s)
}

#[test]
fn a_storm_costs_few_refused_calls_and_drains_at_nearly_the_limit_whatever_the_limit_is() {
    for (per_s, burst) in [(10, 10), (10, 50), (100, 10), (100, 100), (100, 500)] {
        for (hint_ms, most) in [(Some(1_000), 1.25), (None, 1.25), (Some(10_000), 1.65)] {
            let (refused, times) = storm(per_s, burst, hint_ms, 500);
            assert!(refused <= 0.02, "{per_s}/s, burst {burst}, hint {hint_ms:?}: {refused}");
            assert!(times <= most, "{per_s}/s, burst {burst}, hint {hint_ms:?}: {times}");
        }
    }
}

#[test]
fn an_api_that_takes_long_to_answer_is_not_waited_for_after_each_refusal() {
    let (refused, times) = storm(100, 100, Some(1_000), 20_000);
    assert!(refused <= 0.02 && times <= 1.3, "{refused} {times}");
}
