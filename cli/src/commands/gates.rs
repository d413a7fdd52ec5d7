//! `redrive gates`: what holds the whole fleet back from a dependency, or from a queue.

use comfy_table::Color;
use redrive_shared::cost::Cost;
use redrive_shared::gate::{Budget, Settings, State};
use redrive_shared::id::Name;
use redrive_shared::wire::{GateAction, GateRequest, GateView};

use crate::arguments;
use crate::context::Context;
use crate::output::{Entry, Rows, from_now};

const AFTER_HELP: &str = "\
A gate is shut by a server's hint (Retry-After) or by failures over the whole fleet, and then lets work back slowly: one task
to see (canary), then a growing rate (ramp). A bad credential or a used-up quota isolates the dependency until you open it.

Examples:
  redrive gates list
  redrive gates open anthropic/main/opus          After the credential was renewed
  redrive gates shut tool/pdf --for 20m           Before its maintenance
  redrive gates limit openai/main/gpt --requests-per-minute 600
  redrive gates limit --queue emails --max-in-flight 8";

const LIMIT_HELP: &str = "\
Limits hold over the whole fleet and stay until they are set again. What is left out is no limit, or the default budget. Those
of a queue hold for all of its tasks, whatever they need, beside those of their dependencies; it has no retry budget.

Examples:
  redrive gates limit openai/main/gpt --requests-per-minute 600
  redrive gates limit openai/main/gpt --requests-per-minute 600 --tokens-per-minute 200000
  redrive gates limit tool/pdf --max-in-flight 8
  redrive gates limit --queue emails --requests-per-minute 120 --max-in-flight 8
  redrive gates limit tool/pdf --retry-ratio 0.1 --retry-floor 0.5
  redrive gates limit tool/pdf                    No limits any more";

/// See, open, shut and limit the gates of dependencies, and the limits of queues.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the gate of every dependency that is called or has limits, and every queue that has limits.
    #[command(
        after_help = "Example:\n  redrive gates list --json | jq '.gates[] | select(.state != \"open\")'"
    )]
    List,
    /// Let one task through to see, and then a rate that grows.
    ///
    /// Of a group, lift the bound on what it may cost today.
    #[command(
        after_help = "Examples:\n  redrive gates open anthropic/main/opus\n  redrive gates open --queue writing --group tenant-7"
    )]
    Open {
        #[command(flatten)]
        whose: Whose,
    },
    /// Let nothing through for a while; its tasks wait and no attempt is charged.
    #[command(after_help = "Example:\n  redrive gates shut tool/pdf --for 20m")]
    Shut {
        /// The dependency.
        dependency: Name,
        /// For how long, such as 20m; at most 24h.
        #[arg(long = "for", value_name = "DURATION", value_parser = arguments::duration_ms, allow_hyphen_values = true)]
        for_ms: u64,
    },
    /// Let nothing through until you open it.
    #[command(after_help = "Example:\n  redrive gates isolate tool/pdf")]
    Isolate {
        /// The dependency.
        dependency: Name,
    },
    /// Forget what was seen; open at once, with the limits that are set.
    ///
    /// Of a group, forget what it cost today.
    #[command(
        after_help = "Examples:\n  redrive gates reset tool/pdf\n  redrive gates reset --queue writing --group tenant-7"
    )]
    Reset {
        #[command(flatten)]
        whose: Whose,
    },
    /// Set the limits of a dependency or of a queue.
    #[command(visible_alias = "set", after_help = LIMIT_HELP)]
    Limit(Limit),
}

/// A dependency, or a group of a queue.
#[derive(Debug, clap::Args)]
struct Whose {
    /// The dependency.
    #[arg(required_unless_present = "group", conflicts_with_all = ["queue", "group"])]
    dependency: Option<Name>,
    /// The queue of a group, in place of a dependency.
    #[arg(long, value_name = "NAME", requires = "group")]
    queue: Option<Name>,
    /// The group whose costs of today are meant.
    #[arg(long, value_name = "NAME", requires = "queue")]
    group: Option<Name>,
}

impl Whose {
    fn request(self, action: GateAction) -> GateRequest {
        let Self { dependency, queue, group } = self;
        GateRequest { dependency, queue, group, action, for_ms: None, settings: None }
    }
}

#[derive(Debug, clap::Args)]
struct Limit {
    /// The dependency.
    #[arg(required_unless_present = "queue", conflicts_with = "queue")]
    dependency: Option<Name>,
    /// The queue, in place of a dependency.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["retry_ratio", "retry_floor", "retry_min_firsts"])]
    queue: Option<Name>,
    /// Tasks handed out in any minute, at most.
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u32>,
    /// Tasks that are leased at once, at most.
    #[arg(long, value_name = "N")]
    max_in_flight: Option<u32>,
    /// Tokens that tasks handed out in any minute may use, as their producers estimate.
    #[arg(long, value_name = "N")]
    tokens_per_minute: Option<u64>,
    /// What a task without an estimate counts, in tokens [default: nothing].
    #[arg(long, value_name = "N", requires = "tokens_per_minute")]
    tokens_default: Option<u32>,
    /// Retries for each first attempt of the last 60 s [default: 0.2].
    #[arg(long, value_name = "SHARE")]
    retry_ratio: Option<f64>,
    /// Retries a second that are always allowed [default: 1].
    #[arg(long, value_name = "PER_SECOND")]
    retry_floor: Option<f64>,
    /// First attempts in 60 s below which the budget only watches [default: 100].
    #[arg(long, value_name = "N")]
    retry_min_firsts: Option<u32>,
}

impl Limit {
    fn settings(&self) -> Settings {
        let default = Budget::default();
        let given =
            self.retry_ratio.is_some() || self.retry_floor.is_some() || self.retry_min_firsts.is_some();
        let budget = given.then(|| Budget {
            ratio: self.retry_ratio.unwrap_or(default.ratio),
            floor_per_s: self.retry_floor.unwrap_or(default.floor_per_s),
            min_firsts: self.retry_min_firsts.unwrap_or(default.min_firsts),
        });
        Settings {
            requests_per_minute: self.requests_per_minute,
            max_in_flight: self.max_in_flight,
            tokens_per_minute: self.tokens_per_minute,
            tokens_default: self.tokens_default,
            budget,
        }
    }
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let request = match args.action {
        Action::List => return list(context).await,
        Action::Open { whose } => whose.request(GateAction::Open),
        Action::Shut { dependency, for_ms } => {
            GateRequest { for_ms: Some(for_ms), ..GateRequest::new(dependency, GateAction::Shut) }
        }
        Action::Isolate { dependency } => GateRequest::new(dependency, GateAction::Isolate),
        Action::Reset { whose } => whose.request(GateAction::Reset),
        Action::Limit(limit) => {
            let settings = Some(limit.settings());
            let (action, group, for_ms) = (GateAction::Set, None, None);
            GateRequest { dependency: limit.dependency, queue: limit.queue, group, action, for_ms, settings }
        }
    };
    let view = context.client()?.change_gate(&request).await?;
    if context.output.json {
        return context.output.value(&view);
    }
    let (views, now_ms) = ([view], context.now_ms());
    let rows = match (&views[0].group, &views[0].queue) {
        (Some(_), _) => groups(&views, now_ms),
        (None, Some(_)) => queues(&views),
        (None, None) => table(&views, now_ms),
    };
    Ok(context.output.table(rows)?)
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let reply = context.client()?.gates().await?;
    if context.output.json {
        return context.output.value(&reply);
    }
    if reply.gates.is_empty() {
        context.output.say("no dependency was called in the last ten minutes: a gate comes with the first task that names one");
    } else {
        context.output.table(table(&reply.gates, context.now_ms()))?;
    }
    if !reply.queues.is_empty() {
        context.output.table(queues(&reply.queues))?;
    }
    if !reply.groups.is_empty() {
        context.output.table(groups(&reply.groups, context.now_ms()))?;
    }
    Ok(())
}

/// The limits of queues.
fn queues(gates: &[GateView]) -> Rows {
    let mut rows = Rows::new(["QUEUE", "LIMIT/MIN", "TOKENS/MIN", "IN FLIGHT"]).right([1, 2, 3]);
    for gate in gates {
        rows.push([
            Entry::or_dash(gate.queue.as_ref()),
            Entry::or_dash(gate.settings.requests_per_minute),
            Entry::or_dash(tokens(gate)),
            Entry::or_dash(in_flight(gate)),
        ]);
    }
    rows
}

/// Groups, and what they cost today.
fn groups(gates: &[GateView], now_ms: i64) -> Rows {
    let mut rows = Rows::new(["QUEUE", "GROUP", "GATE", "WHY", "OPENS", "SPENT TODAY", "OF"]).right([5, 6]);
    let usd = |cost: Cost| format!("${}", cost.usd());
    for gate in gates {
        let most = gate.costs.map(|costs| match (costs.max_usd, costs.lifted) {
            (Some(most), false) => usd(most),
            (Some(most), true) => format!("{}, lifted for today", usd(most)),
            (None, _) => "no bound".to_owned(),
        });
        rows.push([
            Entry::or_dash(gate.queue.as_ref()),
            Entry::or_dash(gate.group.as_ref()),
            state(gate.state),
            Entry::or_dash(gate.reason),
            Entry::or_dash(gate.until_ms.map(|at_ms| from_now(at_ms, now_ms))),
            usd(gate.costs.map_or(Cost::default(), |costs| costs.spent_usd)).into(),
            Entry::or_dash(most),
        ]);
    }
    rows
}

fn table(gates: &[GateView], now_ms: i64) -> Rows {
    let headers = [
        "DEPENDENCY",
        "GATE",
        "WHY",
        "SINCE",
        "OPENS",
        "RATE/S",
        "OK/MIN",
        "FAILED",
        "LIMITED",
        "LIMIT/MIN",
        "TOKENS/MIN",
        "IN FLIGHT",
    ];
    let mut rows = Rows::new(headers).right([5, 6, 7, 8, 9, 10, 11]);
    for gate in gates {
        rows.push([
            Entry::or_dash(gate.dependency.as_ref()),
            state(gate.state),
            Entry::or_dash(gate.reason.map(|reason| why(gate, reason.as_str()))),
            Entry::or_dash(gate.since_ms.map(|at_ms| from_now(at_ms, now_ms))),
            Entry::or_dash(gate.until_ms.map(|at_ms| from_now(at_ms, now_ms))),
            Entry::or_dash(gate.rate_per_s.map(|rate| format!("{rate:.1}"))),
            gate.last_minute.successes.into(),
            gate.last_minute.failures.into(),
            gate.last_minute.limited.into(),
            Entry::or_dash(gate.settings.requests_per_minute),
            Entry::or_dash(tokens(gate)),
            Entry::or_dash(in_flight(gate)),
        ]);
    }
    rows
}

/// How many are out, of how many that may be.
fn in_flight(gate: &GateView) -> Option<String> {
    let most = gate.settings.max_in_flight?;
    Some(format!("{}/{most}", gate.in_flight.unwrap_or(0)))
}

/// How many may be used, and how many were beyond that.
fn tokens(gate: &GateView) -> Option<String> {
    let most = gate.settings.tokens_per_minute?;
    let owed = gate.tokens_owed.filter(|owed| *owed > 0);
    Some(owed.map_or_else(|| most.to_string(), |owed| format!("{most} (owes {owed})")))
}

/// The reason; of an isolation what is wrong, and for whom.
fn why(gate: &GateView, reason: &str) -> String {
    match &gate.alarm {
        Some(alarm) => {
            let class = alarm.class.map_or(reason, |class| class.as_str());
            let agents: Vec<&str> = alarm.agents.iter().map(|agent| agent.as_str()).collect();
            if agents.is_empty() { class.to_owned() } else { format!("{class} ({})", agents.join(", ")) }
        }
        None => reason.to_owned(),
    }
}

fn state(state: State) -> Entry {
    let colour = match state {
        State::Open => Color::Green,
        State::Ramp | State::Canary => Color::Yellow,
        State::Shut => Color::Red,
        State::Isolated => Color::Magenta,
    };
    Entry::coloured(state, colour)
}
