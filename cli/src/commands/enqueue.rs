//! `redrive enqueue`: one task from flags, or many from JSON lines.

mod backoff;
mod stream;
mod upload;

use std::time::Duration;

use indicatif::HumanBytes;
use redrive_shared::cost::Cost;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::limits::{ATTEMPTS_MAX, TASK_TOKENS_MAX};
use redrive_shared::task::{Priority, TaskState};
use redrive_shared::wire::{EnqueueRequest, EnqueueResult, EnqueueStatus, NewTask};
use redrive_worker::client::{Client, ClientError};
use serde_json::value::RawValue;

use self::backoff::Backoff;
use crate::arguments;
use crate::context::Context;
use crate::output::{from_now, printable};
use crate::patience::Patience;

/// How long a stream of tasks waits for a coordinator that is away, when nobody says otherwise: a restart.
const STREAM_RETRY_MS: u64 = 30_000;

const AFTER_HELP: &str = "\
With --failure, the task is work that has already failed: the failure is classified and counted, and a hint of the
server in it decides when the task runs first. The same id with the same payload is one task, however often it is sent: once it
has succeeded, the answer has its result, for as long as its queue remembers it.

With --jsonl, each line is a task: `id`, `queue`, `task_type`, `payload`, `payload_ref`, `dependency`, `group`, `priority`, `delay_ms`,
`deadline_ms`, `max_attempts`, `retry`, `max_cost_usd`, `tokens`, `attempts_made`, `failure`, `labels`. A bad line is reported
with its number, the others go on, and the exit code is 1.

Examples:
  redrive enqueue --queue reports --payload '{\"page\": 7}'
  redrive enqueue --queue reports --id order-17 --payload @order.json --attempts-made 1 \\
      --failure '{\"http_status\": 429, \"headers\": {\"retry-after\": \"20\"}}'
  redrive enqueue --queue reports --payload '{\"page\": 7}' --wait 2m
  redrive enqueue --jsonl --queue reports < tasks.jsonl";

/// Put work on a queue.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Read tasks from stdin, one JSON object a line.
    #[arg(long, conflicts_with = "Single")]
    jsonl: bool,
    /// Stop at the first line that cannot be enqueued; those before it are.
    #[arg(long, requires = "jsonl")]
    fail_fast: bool,
    /// The queue [default: default]; with --jsonl, of those lines that name none.
    #[arg(long)]
    queue: Option<Name>,
    /// How long to go on trying while the coordinator is away [default: 0s; with --jsonl 30s].
    #[arg(long, value_name = "DURATION", value_parser = arguments::duration_ms, allow_hyphen_values = true)]
    retry_for: Option<u64>,
    #[command(flatten)]
    task: Single,
    #[command(flatten)]
    backoff: Backoff,
}

/// One task.
#[derive(Debug, clap::Args)]
struct Single {
    /// What to run [default: the queue's name].
    #[arg(long = "type", value_name = "NAME")]
    task_type: Option<Name>,
    /// Your own id, which makes the call safe to repeat [default: a fresh UUIDv7].
    #[arg(long)]
    id: Option<TaskId>,
    /// Any JSON [default: null]; one of more than 256 KiB is uploaded as a blob first.
    #[arg(long, value_name = "JSON|@FILE|-")]
    payload: Option<String>,
    /// The upstream that it needs, as provider/account/model or tool/name.
    #[arg(long, value_name = "NAME")]
    dependency: Option<Name>,
    /// Tenant or fairness key.
    #[arg(long, value_name = "NAME")]
    group: Option<Name>,
    /// Before or after others that are due [default: normal].
    #[arg(long, value_parser = arguments::priority(), allow_negative_numbers = true)]
    priority: Option<Priority>,
    /// Earliest start from now, such as 30s.
    #[arg(long, value_name = "DURATION", value_parser = arguments::duration_ms, allow_hyphen_values = true)]
    delay: Option<u64>,
    /// Time from now until it is too late, such as 2h [default: the queue's].
    #[arg(long, value_name = "DURATION", value_parser = arguments::duration_ms, allow_hyphen_values = true)]
    deadline: Option<u64>,
    /// Failures until it is dead [default: the queue's].
    #[arg(long, value_name = "N", allow_negative_numbers = true,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(ATTEMPTS_MAX)))]
    max_attempts: Option<u32>,
    /// US dollars at which a failure goes to a person instead of a retry.
    #[arg(long, value_name = "USD", value_parser = arguments::cost, allow_negative_numbers = true)]
    max_cost_usd: Option<Cost>,
    /// Tokens that one attempt uses, by your estimate: counted where the dependency has a limit of tokens a minute.
    #[arg(long, value_name = "N", allow_negative_numbers = true,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(TASK_TOKENS_MAX)))]
    tokens: Option<u32>,
    /// Attempts that were made already.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    attempts_made: Option<u32>,
    /// What was seen to fail: http_status, headers, body, exception …
    #[arg(long, value_name = "JSON|@FILE|-")]
    failure: Option<String>,
    /// A label, for people and filters; up to 16.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = arguments::label)]
    labels: Vec<(String, String)>,
    /// Wait for its answer, at most this long; exit 0 only if it succeeded.
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "365d",
          value_parser = arguments::duration_ms)]
    wait: Option<u64>,
}

impl Single {
    fn into_task(self, queue: Option<Name>, backoff: Backoff) -> anyhow::Result<NewTask> {
        Ok(NewTask {
            // Made here, so that a call whose answer was lost can be repeated.
            id: Some(self.id.unwrap_or_else(TaskId::generate)),
            queue,
            task_type: self.task_type,
            payload: self
                .payload
                .map(|given| arguments::json::<Box<RawValue>>("--payload", &given))
                .transpose()?,
            dependency: self.dependency,
            group: self.group,
            priority: self.priority.unwrap_or_default(),
            delay_ms: self.delay,
            deadline_ms: self.deadline,
            max_attempts: self.max_attempts,
            retry: backoff.into_strategy()?,
            max_cost_usd: self.max_cost_usd,
            tokens: self.tokens,
            attempts_made: self.attempts_made,
            failure: self.failure.map(|given| arguments::object("--failure", &given)).transpose()?,
            labels: self.labels.into_iter().collect(),
            ..NewTask::default()
        })
    }
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let client = context.client()?;
    let retry_ms = args.retry_for.unwrap_or(if args.jsonl { STREAM_RETRY_MS } else { 0 });
    let retry_for = Duration::from_millis(retry_ms);
    if args.jsonl {
        let options = stream::Options { queue: args.queue, retry_for, fail_fast: args.fail_fast };
        return stream::run(context, client, options).await;
    }
    let wait = args.task.wait;
    let mut task = args.task.into_task(args.queue, args.backoff)?;
    let patience = Patience::new(retry_for, context.output);
    upload::large_payload(context, &client, &mut task, &patience).await?;
    let result = enqueue_one(&client, task, &patience).await?;
    match (wait, result.id.clone()) {
        (Some(wait_ms), Some(id)) => answer(context, &client, &id, wait_ms).await,
        _ => print(context, &result),
    }
}

async fn enqueue_one(client: &Client, task: NewTask, patience: &Patience) -> anyhow::Result<EnqueueResult> {
    let request = EnqueueRequest { tasks: vec![task] };
    let answer = patience.call(async || client.enqueue(&request).await).await?;
    let mut results = answer.value.results.into_iter();
    let result =
        results.next().ok_or_else(|| anyhow::anyhow!("the coordinator gave no answer for the task"))?;
    match result.error {
        Some(problem) => Err(ClientError::Problem(Box::new(problem)).into()),
        None => Ok(result),
    }
}

fn print(context: &Context, result: &EnqueueResult) -> anyhow::Result<()> {
    let output = &context.output;
    if output.json {
        return output.value(result);
    }
    let id = result.id.as_deref().unwrap_or("-");
    let what = match result.status {
        EnqueueStatus::Created => "created",
        EnqueueStatus::Duplicate => "there already",
        EnqueueStatus::Refused => "refused",
    };
    let state = result.state.map(|state| format!(", {}", output.state(state))).unwrap_or_default();
    let due = match (result.state, result.due_at_ms) {
        (Some(TaskState::Scheduled), Some(at_ms)) => format!(", due {}", from_now(at_ms, context.now_ms())),
        _ => String::new(),
    };
    output.line(format!("{} {what}{state}{due}", output.strong(id)))?;
    match (&result.result, &result.result_ref, &result.hint) {
        (Some(result), ..) => output.line(printable(result.get()))?,
        (None, Some(blob), _) => {
            output.note(&format!(
                "its result is a blob of {}: `redrive tasks show {id}`",
                HumanBytes(blob.bytes)
            ));
        }
        (None, None, Some(hint)) => output.note(hint),
        (None, None, None) => {}
    }
    Ok(())
}

/// Waits for the task and prints what came of it. Anything but success is a failure of the command.
async fn answer(context: &Context, client: &Client, id: &TaskId, wait_ms: u64) -> anyhow::Result<()> {
    let output = &context.output;
    if !output.json {
        output.say(format!("{id} enqueued; waiting for its answer"));
    }
    let task = crate::waiting::settled(client, context.output, id, wait_ms).await?;
    if output.json {
        output.value(&task)?;
    } else if let Some(result) = task.result.as_deref() {
        output.line(printable(result.get()))?;
    }
    let why = task.why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    match task.state {
        TaskState::Succeeded => Ok(()),
        TaskState::Dead | TaskState::Escalated | TaskState::Cancelled | TaskState::HandedOff => {
            Err(anyhow::anyhow!("task {id} is {}{why}; see `redrive tasks show {id}`", task.state))
        }
        TaskState::Scheduled | TaskState::Leased => Err(anyhow::anyhow!(
            "task {id} is still {}{why}; it goes on, ask again with `redrive tasks show {id} --wait 1m`",
            task.state
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use redrive_shared::retry::Strategy;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(flags: &[&str]) -> Result<Args, String> {
        Line::try_parse_from([&["redrive"], flags].concat())
            .map(|line| line.args)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn flags_become_a_task_with_an_id_and_the_payload_byte_for_byte() {
        let flags = [
            "--queue",
            "q",
            "--type",
            "t",
            "--payload",
            "{\"a\": 1.0}",
            "--delay",
            "1m30s",
            "--priority",
            "low",
            "--label",
            "a=b",
            "--label",
            "c=d=e",
            "--failure",
            "{\"http_status\":429}",
            "--attempts-made",
            "2",
            "--tokens",
            "12000",
        ];
        let args = parse(&flags).unwrap();
        let task = args.task.into_task(args.queue, args.backoff).unwrap();
        assert!(task.id.is_some());
        assert_eq!(task.payload.as_deref().map(RawValue::get), Some("{\"a\": 1.0}"));
        assert_eq!(
            (task.delay_ms, task.priority, task.attempts_made, task.tokens),
            (Some(90_000), Priority::Low, Some(2), Some(12_000))
        );
        assert_eq!(task.labels["c"], "d=e");
        assert_eq!(task.failure.unwrap().http_status, Some(429));
    }

    #[test]
    fn flags_become_a_backoff_of_its_own() {
        let strategy = |flags: &[&str]| parse(flags).unwrap().backoff.into_strategy();
        assert_eq!(strategy(&[]).unwrap(), None);
        let given = ["--strategy", "full_jitter", "--retry-base", "5s", "--retry-max", "10m"];
        let expected = Strategy::FullJitter { base_ms: 5_000, min_ms: 100, max_ms: 600_000 };
        assert_eq!(strategy(&given).unwrap(), Some(expected));
        let given = ["--strategy", "schedule", "--retry-delays", "5s,1m30s"];
        assert_eq!(strategy(&given).unwrap(), Some(Strategy::Schedule { delays_ms: vec![5_000, 90_000] }));
        let error = strategy(&["--strategy", "fixed", "--retry-cap", "5s"]).unwrap_err().to_string();
        assert!(error.starts_with("--strategy fixed: --retry-cap, expected"), "{error}");
    }

    #[test]
    fn bad_flags_are_usage_errors_that_say_what_to_write() {
        for (flags, said) in [
            (&["--delay", "5"][..], "has no unit; write 5s"),
            (&["--delay", "-5s"], "is negative"),
            (&["--priority", "-1"], "[possible values: high, normal, low]"),
            (&["--max-attempts", "-1"], "is not in 1..=100"),
            (&["--tokens", "0"], "is not in 1..=10000000"),
            (&["--max-cost-usd", "-1"], "more than 0"),
            (&["--max-cost-usd", "10001"], "at most 10000"),
            (&["--queue", "a b"], "contains ' '"),
            (&["--label", "team"], "write team=VALUE"),
            (&["--jsonl", "--payload", "{}"], "cannot be used with"),
            (&["--fail-fast"], "--jsonl"),
            (&["--strategy", "sometimes"], "[possible values: fixed, exponential"),
            (&["--retry-base", "5s"], "--strategy"),
            (&["--strategy", "fixed", "--retry-delay", "5"], "has no unit; write 5s"),
            (&["--jsonl", "--strategy", "fixed"], "cannot be used with"),
        ] {
            let error = parse(flags).unwrap_err();
            assert!(error.contains(said), "{flags:?}: {error}");
        }
        assert_eq!(parse(&["--wait"]).unwrap().task.wait, Some(31_536_000_000));
        assert_eq!(parse(&["--wait", "2m"]).unwrap().task.wait, Some(120_000));
    }
}
