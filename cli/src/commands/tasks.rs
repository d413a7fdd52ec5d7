//! `redrive tasks`: where work is, what it went through, how far it came, and how to step in.

mod history;
mod progress;

use std::io::BufRead;

use redrive_shared::id::{Name, TaskId};
use redrive_shared::limits::{BATCH_MAX_ITEMS, PAGE_MAX_ITEMS};
use redrive_shared::task::{TaskState, TaskView};
use redrive_shared::wire::{Page, TaskAction, TaskActionReply, TaskActionRequest};
use redrive_worker::client::{Client, ListQuery};

use crate::arguments;
use crate::context::Context;
use crate::failure::{AlreadyReported, Usage, problem_line};
use crate::output::{Entry, Rows, from_now};

const AFTER_HELP: &str = "\
Examples:
  redrive tasks list --queue reports --state dead
  redrive tasks show order-17
  redrive tasks progress order-17
  redrive tasks list --state dead --limit 10000 --json | jq -r '.tasks[].id' | redrive tasks retry -";

const LIST_HELP: &str = "\
Examples:
  redrive tasks list
  redrive tasks list --queue reports --state escalated --limit 200
  redrive tasks list --state dead --json | jq -r '.tasks[] | [.id, .last_failure.class] | @tsv'";

const SHOW_HELP: &str = "\
Examples:
  redrive tasks show order-17
  redrive tasks show order-17 --wait 30s      Until it is settled, or 30 seconds
  redrive tasks show order-17 --json | jq .history";

const PROGRESS_HELP: &str = "\
Examples:
  redrive tasks progress order-17
  redrive tasks progress order-17 --json | jq -r .pending_steps[]
  redrive tasks progress order-17 --steps --json | jq '.steps[] | {step, state}'";

const CANCEL_HELP: &str = "\
Examples:
  redrive tasks cancel order-17 order-18 --reason 'sent by hand'
  redrive tasks cancel - < ids.txt";

const RETRY_HELP: &str = "\
A dead, escalated, cancelled or handed-off task gets its attempts back; a waiting one becomes due now.

Examples:
  redrive tasks retry order-17
  redrive tasks list --state dead --limit 10000 --json | jq -r '.tasks[].id' | redrive tasks retry -";

/// List, show, cancel and retry tasks, and see how far they came.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List tasks, newest first.
    #[command(after_help = LIST_HELP)]
    List(List),
    /// Show one task and its history.
    #[command(after_help = SHOW_HELP)]
    Show {
        /// The task.
        id: TaskId,
        /// Wait for up to this long until it is settled.
        #[arg(long, value_name = "DURATION", value_parser = arguments::duration_ms, allow_hyphen_values = true)]
        wait: Option<u64>,
    },
    /// Show how far a task came: the steps that its attempts saved.
    #[command(after_help = PROGRESS_HELP)]
    Progress {
        /// The task.
        id: TaskId,
        /// With what was saved of each step.
        #[arg(long)]
        steps: bool,
    },
    /// Call tasks off, whatever they are doing.
    #[command(after_help = CANCEL_HELP)]
    Cancel(Ids),
    /// Run tasks again now.
    #[command(after_help = RETRY_HELP)]
    Retry(Ids),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only of this queue.
    #[arg(long)]
    queue: Option<Name>,
    /// Only in this state.
    #[arg(long, value_parser = arguments::state())]
    state: Option<TaskState>,
    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..),
          allow_negative_numbers = true)]
    limit: u32,
    /// Go on where an earlier list ended: its `next_cursor`.
    #[arg(long)]
    cursor: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Ids {
    /// The tasks, or - to read their ids from stdin, one a line.
    #[arg(required = true, value_name = "ID|-")]
    ids: Vec<String>,
    /// Why, for their history.
    #[arg(long)]
    reason: Option<String>,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let client = context.client()?;
    match args.action {
        Action::List(list) => print_list(&client, context, list).await,
        Action::Show { id, wait } => {
            let task = match wait {
                None => client.task(&id, None).await?,
                Some(wait_ms) => crate::waiting::settled(&client, context.output, &id, wait_ms).await?,
            };
            if context.output.json {
                context.output.value(&task)
            } else {
                // A coordinator of an older release keeps none.
                let progress = client.progress(&id).await.ok().filter(|progress| !progress.is_empty());
                Ok(history::print(context, &task, progress.as_ref())?)
            }
        }
        Action::Progress { id, steps } => progress::print(&client, context, &id, steps).await,
        Action::Cancel(ids) => act(&client, context, TaskAction::Cancel, ids).await,
        Action::Retry(ids) => act(&client, context, TaskAction::Retry, ids).await,
    }
}

async fn print_list(client: &Client, context: &Context, list: List) -> anyhow::Result<()> {
    let page = pages(client, &list).await?;
    let output = &context.output;
    if output.json {
        return output.value(&page);
    }
    if page.tasks.is_empty() {
        output.say("no such tasks");
    } else {
        output.table(table(&page.tasks, context.now_ms()))?;
    }
    if let Some(cursor) = &page.next_cursor {
        output.say(format!(
            "there may be more: --limit {}, or --cursor {cursor}",
            list.limit.saturating_mul(10)
        ));
    }
    Ok(())
}

/// Follows cursors until there are as many as were asked for: a page may be short, or empty, and have a next one.
async fn pages(client: &Client, list: &List) -> anyhow::Result<Page> {
    let mut all = Page { tasks: Vec::new(), next_cursor: list.cursor.clone() };
    let wanted = list.limit as usize;
    loop {
        let left = (wanted - all.tasks.len()).min(PAGE_MAX_ITEMS);
        let query = ListQuery {
            queue: list.queue.clone(),
            state: list.state,
            cursor: all.next_cursor.take(),
            limit: u32::try_from(left).ok(),
        };
        let page = client.tasks(&query).await?;
        all.tasks.extend(page.tasks);
        all.next_cursor = page.next_cursor;
        if all.next_cursor.is_none() || all.tasks.len() >= wanted {
            return Ok(all);
        }
    }
}

fn table(tasks: &[TaskView], now_ms: i64) -> Rows {
    let mut rows = Rows::new(["ID", "STATE", "QUEUE", "CLASS", "ATTEMPTS", "DUE", "ENQUEUED"]).right([4]);
    for task in tasks {
        rows.push([
            (&task.id).into(),
            Entry::state(task.state),
            (&task.queue).into(),
            Entry::or_dash(task.last_failure.as_ref().map(|failure| failure.class)),
            format!("{}/{}", task.ledger.failed, task.max_attempts).into(),
            due(task, now_ms).into(),
            from_now(task.enqueued_at_ms, now_ms).into(),
        ]);
    }
    rows
}

fn due(task: &TaskView, now_ms: i64) -> String {
    match task.state {
        TaskState::Scheduled if task.due_at_ms <= now_ms => "due now".to_owned(),
        TaskState::Scheduled => from_now(task.due_at_ms, now_ms),
        TaskState::Leased => {
            task.agent.as_ref().map_or_else(|| "running".to_owned(), |agent| format!("at {agent}"))
        }
        TaskState::Succeeded
        | TaskState::Dead
        | TaskState::Escalated
        | TaskState::Cancelled
        | TaskState::HandedOff => "-".to_owned(),
    }
}

async fn act(client: &Client, context: &Context, action: TaskAction, ids: Ids) -> anyhow::Result<()> {
    let reason = ids.reason;
    let ids = read_ids(&ids.ids)?;
    let mut all = TaskActionReply { results: Vec::new() };
    for batch in ids.chunks(BATCH_MAX_ITEMS) {
        let request = TaskActionRequest { ids: batch.to_vec(), reason: reason.clone() };
        match client.act(action, &request).await {
            Ok(reply) => all.results.extend(reply.results),
            Err(error) if all.results.is_empty() => return Err(error.into()),
            Err(error) => {
                print_results(context, &all)?;
                let done = all.results.len();
                return Err(
                    anyhow::Error::from(error).context(format!("after {done} of {} tasks", ids.len()))
                );
            }
        }
    }
    print_results(context, &all)?;
    let failed = all.results.iter().any(|result| result.error.is_some());
    if failed { Err(AlreadyReported.into()) } else { Ok(()) }
}

fn print_results(context: &Context, reply: &TaskActionReply) -> anyhow::Result<()> {
    let output = &context.output;
    if output.json {
        return output.value(reply);
    }
    for result in &reply.results {
        match (&result.error, result.state) {
            (Some(problem), _) => output.complain(&result.id, problem_line(problem)),
            (None, Some(state)) => output.line(format!("{} is {}", result.id, output.state(state)))?,
            (None, None) => output.line(&result.id)?,
        }
    }
    Ok(())
}

fn read_ids(given: &[String]) -> anyhow::Result<Vec<TaskId>> {
    let mut ids = Vec::new();
    for text in given {
        if text == "-" {
            for (index, line) in std::io::stdin().lock().lines().enumerate() {
                let line = line?;
                if !line.trim().is_empty() {
                    ids.push(task_id(line.trim(), &format!("stdin, line {}", index + 1))?);
                }
            }
        } else {
            ids.push(task_id(text, "ID")?);
        }
    }
    Ok(ids)
}

fn task_id(text: &str, place: &str) -> Result<TaskId, Usage> {
    TaskId::new(text).map_err(|error| Usage::new(format!("{place}: the task id `{text}` {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked_before_anything_is_sent() {
        assert_eq!(read_ids(&["a".to_owned(), "b".to_owned()]).unwrap().len(), 2);
        let error = read_ids(&["a b".to_owned()]).unwrap_err().to_string();
        assert!(error.starts_with("ID: the task id `a b` contains ' '"), "{error}");
    }
}
