//! Breakers of the agents that are there, in Prometheus's text format. Made when somebody looks, from what the store has of
//! all agents: every coordinator tells the same, and no series stays behind an agent that has gone.

use std::collections::HashSet;
use std::fmt::Write as _;

use redrive_shared::breaker::{BreakerSnapshot, BreakerState};
use redrive_shared::limits::AGENT_LABELS_MAX;
use redrive_shared::wire::{AgentStatus, AgentView, OWN_BREAKER};

/// A metric: its name, type, meaning, and its value of a breaker at a moment.
type Metric = (&'static str, &'static str, &'static str, fn(&BreakerSnapshot, i64) -> f64);

const METRICS: [Metric; 3] = [
    ("redrive_breaker_state", "gauge", "0 closed, 1 half-open, 2 open, 3 isolated", |breaker, _| {
        breaker.state.level().into()
    }),
    ("redrive_breaker_openings_total", "counter", "Openings since the worker started", |breaker, _| {
        breaker.openings as f64
    }),
    ("redrive_breaker_not_closed_seconds", "gauge", "Time since it was closed; 0 while it is", not_closed_s),
];

fn not_closed_s(breaker: &BreakerSnapshot, now_ms: i64) -> f64 {
    breaker.not_closed_since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms).max(0)) as f64 / 1_000.0
}

/// The text. Of each agent its own breaker, and of those by dependency those that have opened since its start.
pub fn breakers_text(agents: &[AgentView], now_ms: i64) -> String {
    let mut known = HashSet::new();
    let there = agents.iter().filter(|agent| agent.status != AgentStatus::Gone);
    // Of two runs of one name the one heard from last: two series with the same labels would be refused.
    let there = there.filter(|agent| known.insert(&agent.agent)).take(AGENT_LABELS_MAX);
    let mut breakers = Vec::new();
    for agent in there {
        for (key, breaker) in &agent.breakers {
            if key == OWN_BREAKER || breaker.openings > 0 || breaker.state != BreakerState::Closed {
                let labels = format!("agent=\"{}\",breaker=\"{}\"", quoted(&agent.agent), quoted(key));
                breakers.push((labels, breaker));
            }
        }
    }
    let mut text = String::new();
    for (name, kind, help, value) in METRICS {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, breaker) in &breakers {
            let _ = writeln!(text, "{name}{{{labels}}} {}", value(breaker, now_ms));
        }
    }
    text
}

/// A label's value as the text format wants it: a worker may call its breakers what it likes.
fn quoted(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use redrive_shared::breaker::{Breaker, BreakerConfig};
    use redrive_shared::id::Name;

    use super::*;

    fn agent(name: &str, status: AgentStatus, breakers: &[(&str, BreakerSnapshot)]) -> AgentView {
        AgentView {
            agent: Name::new(name).unwrap(),
            boot_id: Name::new("b").unwrap(),
            status,
            queues: Vec::new(),
            capacity: 1,
            in_flight: 0,
            pushed: false,
            breakers: breakers.iter().map(|(key, breaker)| ((*key).to_owned(), *breaker)).collect(),
            breaker_commands: Vec::new(),
            seen_at_ms: 0,
        }
    }

    #[test]
    fn breakers_of_agents_that_are_there_are_told_once_and_quoted() {
        let mut breaker = Breaker::new(BreakerConfig::default()).unwrap();
        let closed = breaker.snapshot(0);
        breaker.isolate(1_000);
        let isolated = breaker.snapshot(1_000);
        let agents = [
            agent("a", AgentStatus::Alive, &[("*", closed), ("llm\"\n", isolated), ("well", closed)]),
            agent("a", AgentStatus::Draining, &[("*", isolated)]),
            agent("b", AgentStatus::Gone, &[("*", isolated)]),
        ];
        let text = breakers_text(&agents, 3_500);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "redrive_breaker_state{agent=\"a\",breaker=\"*\"} 0",
                "redrive_breaker_state{agent=\"a\",breaker=\"llm\\\"\\n\"} 3",
                "redrive_breaker_openings_total{agent=\"a\",breaker=\"*\"} 0",
                "redrive_breaker_openings_total{agent=\"a\",breaker=\"llm\\\"\\n\"} 0",
                "redrive_breaker_not_closed_seconds{agent=\"a\",breaker=\"*\"} 0",
                "redrive_breaker_not_closed_seconds{agent=\"a\",breaker=\"llm\\\"\\n\"} 2.5",
            ]
        );
    }
}
