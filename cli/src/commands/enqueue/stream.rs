//! Tasks from JSON lines: batched, repeated while the coordinator is away, and every line accounted for.

use std::io::{self, BufReader, IsTerminal};
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::id::{Name, TaskId};
use redrive_shared::wire::{EnqueueRequest, EnqueueResult, EnqueueStatus, NewTask};
use redrive_worker::client::{Client, ClientError};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::batch::{Batcher, ITEM_MAX_BYTES};
use crate::context::Context;
use crate::failure::{AlreadyReported, problem_line};
use crate::lines::{Line, Lines};
use crate::patience::Patience;

/// How long a task that came alone waits for company.
const GATHER_FOR: Duration = Duration::from_millis(100);
/// Chunks that may lie between the reading thread and us.
const CHUNKS_AHEAD: usize = 4;
/// Size from which a chunk is handed on; bounds memory together with the longest line.
const CHUNK_BYTES: u64 = 256 * 1024;
const INPUT_BUFFER_BYTES: usize = 64 * 1024;

/// What the flags say.
#[derive(Debug)]
pub struct Options {
    /// For lines that name none.
    pub queue: Option<Name>,
    /// How long the coordinator may be away.
    pub retry_for: Duration,
    /// Whether the first bad line ends it.
    pub fail_fast: bool,
}

/// A task on its way.
#[derive(Debug)]
struct Item {
    line: u64,
    task: NewTask,
}

/// Where a task came from, for the answer.
#[derive(Debug)]
struct Origin {
    line: u64,
    id: Option<TaskId>,
}

/// A line of `--json`.
#[derive(Debug, Serialize)]
struct Told<'a> {
    line: u64,
    #[serde(flatten)]
    result: &'a EnqueueResult,
}

/// What became of the lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    created: u64,
    duplicates: u64,
    refused: u64,
    unreadable: u64,
}

struct Stream<'a> {
    context: &'a Context,
    client: Client,
    options: Options,
    patience: Patience,
    progress: ProgressBar,
    tally: Tally,
    reader_gone: bool,
}

/// Enqueues everything that comes on stdin.
pub async fn run(context: &Context, client: Client, options: Options) -> anyhow::Result<()> {
    let mut stream = Stream {
        context,
        client,
        patience: Patience::new(options.retry_for, context.output),
        options,
        progress: progress_bar(context),
        tally: Tally::default(),
        reader_gone: false,
    };
    let ended = stream.pump(read_stdin()).await;
    stream.progress.finish_and_clear();
    if !context.output.json {
        context.output.line(stream.tally.to_string()).or_else(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(error),
        })?;
    }
    ended?;
    if stream.tally.refused + stream.tally.unreadable > 0 { Err(AlreadyReported.into()) } else { Ok(()) }
}

impl Stream<'_> {
    async fn pump(&mut self, mut chunks: mpsc::Receiver<io::Result<Vec<Line>>>) -> anyhow::Result<()> {
        let mut waiting = Batcher::new();
        loop {
            let next = if waiting.is_empty() {
                chunks.recv().await
            } else {
                match tokio::time::timeout(GATHER_FOR, chunks.recv()).await {
                    Ok(next) => next,
                    Err(_) => {
                        self.send(waiting.take()).await?;
                        continue;
                    }
                }
            };
            let Some(chunk) = next else { break };
            for line in chunk.map_err(|error| anyhow::Error::from(error).context("cannot read stdin"))? {
                self.take(line, &mut waiting).await?;
            }
        }
        self.send(waiting.take()).await
    }

    /// Reads a line and puts its task with those that wait; a full batch is sent.
    async fn take(&mut self, line: Line, waiting: &mut Batcher<Item>) -> anyhow::Result<()> {
        self.progress.inc(line.bytes);
        match self.read(&line) {
            Ok((task, bytes)) => match waiting.push(Item { line: line.number, task }, bytes) {
                Some(full) => self.send(full).await,
                None => Ok(()),
            },
            Err(error) => {
                self.tally.unreadable += 1;
                self.complain(line.number, &error);
                if self.options.fail_fast {
                    self.send(waiting.take()).await?;
                    return Err(AlreadyReported.into());
                }
                Ok(())
            }
        }
    }

    fn read(&self, line: &Line) -> Result<(NewTask, usize), String> {
        let mut task: NewTask = line.object().map_err(|error| error.to_string())?;
        // Made before the first try, so that every further try is the same task.
        task.id.get_or_insert_with(TaskId::generate);
        if task.queue.is_none() {
            task.queue.clone_from(&self.options.queue);
        }
        let bytes = serde_json::to_vec(&task).map_err(|error| error.to_string())?.len();
        if bytes > ITEM_MAX_BYTES {
            return Err(format!("the task has {bytes} bytes; a request takes at most {ITEM_MAX_BYTES}"));
        }
        Ok((task, bytes))
    }

    /// Sends a batch. One that is refused as a whole for what is in it is halved until the culprit stands alone.
    async fn send(&mut self, batch: Vec<Item>) -> anyhow::Result<()> {
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            let Some(first_line) = part.first().map(|item| item.line) else { continue };
            let (origins, tasks): (Vec<_>, Vec<_>) = part
                .into_iter()
                .map(|item| (Origin { line: item.line, id: item.task.id.clone() }, item.task))
                .unzip();
            let mut request = EnqueueRequest { tasks };
            match self.patience.call(async || self.client.enqueue(&request).await).await {
                Ok(answer) if answer.value.results.len() == origins.len() => {
                    for (origin, result) in origins.iter().zip(&answer.value.results) {
                        self.account(origin.line, result, answer.repeated)?;
                    }
                    self.progress.set_message(self.tally.to_string());
                }
                Ok(answer) => {
                    let got = answer.value.results.len();
                    return Err(stopped(
                        first_line,
                        anyhow::anyhow!("{got} answers for {} tasks", origins.len()),
                    ));
                }
                Err(ClientError::Problem(problem)) if is_about_items(problem.code) => {
                    if origins.len() == 1 {
                        self.account(first_line, &refused(origins, *problem), false)?;
                        continue;
                    }
                    let middle = request.tasks.len() / 2;
                    let later = request.tasks.split_off(middle);
                    let lines =
                        |origins: &[Origin]| origins.iter().map(|origin| origin.line).collect::<Vec<_>>();
                    let (early_lines, later_lines) = (lines(&origins[..middle]), lines(&origins[middle..]));
                    parts.push(items(later_lines, later));
                    parts.push(items(early_lines, request.tasks));
                }
                Err(error) => return Err(stopped(first_line, error.into())),
            }
        }
        Ok(())
    }

    fn account(&mut self, line: u64, result: &EnqueueResult, repeated: bool) -> anyhow::Result<()> {
        match result.status {
            EnqueueStatus::Created => self.tally.created += 1,
            // It may be there because an earlier try, whose answer was lost, put it there: it is new to the caller.
            EnqueueStatus::Duplicate if repeated => self.tally.created += 1,
            EnqueueStatus::Duplicate => self.tally.duplicates += 1,
            EnqueueStatus::Refused => self.tally.refused += 1,
        }
        if self.context.output.json && !self.reader_gone {
            let told = serde_json::to_string(&Told { line, result })?;
            match self.context.output.line(told) {
                // The work is to enqueue; that nobody reads the answers any more does not end it.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.reader_gone = true,
                other => other?,
            }
        }
        if let Some(problem) = &result.error {
            self.complain(line, &problem_line(&within_task(problem)));
            if self.options.fail_fast {
                return Err(AlreadyReported.into());
            }
        }
        Ok(())
    }

    fn complain(&self, line: u64, detail: &str) {
        self.progress.suspend(|| self.context.output.complain(format!("line {line}"), detail));
    }
}

/// The place inside the task: the line is known already, and the position in the batch means nothing to the caller.
fn within_task(problem: &Problem) -> Problem {
    let place = problem
        .at
        .as_deref()
        .and_then(|at| at.strip_prefix("tasks[")?.split_once("]."))
        .map(|(_, rest)| rest);
    Problem { at: place.map(str::to_owned), ..problem.clone() }
}

fn items(lines: Vec<u64>, tasks: Vec<NewTask>) -> Vec<Item> {
    lines.into_iter().zip(tasks).map(|(line, task)| Item { line, task }).collect()
}

fn refused(origins: Vec<Origin>, problem: Problem) -> EnqueueResult {
    let id = origins.into_iter().next().and_then(|origin| origin.id);
    EnqueueResult { error: Some(problem), ..EnqueueResult::of(id, EnqueueStatus::Refused) }
}

/// Whether a refusal is for what is in the batch, so that its other tasks may still be taken.
fn is_about_items(code: ErrorCode) -> bool {
    match code {
        ErrorCode::MalformedJson
        | ErrorCode::InvalidUtf8
        | ErrorCode::UnknownField
        | ErrorCode::InvalidValue
        | ErrorCode::JsonTooDeep
        | ErrorCode::PayloadTooLarge
        | ErrorCode::BodyTooLarge
        | ErrorCode::BatchSize
        | ErrorCode::InvalidPolicy
        | ErrorCode::IdReused
        | ErrorCode::UnknownBlob
        | ErrorCode::NoBlobs
        | ErrorCode::UnknownQueue => true,
        ErrorCode::UnknownTask
        | ErrorCode::UnknownAgent
        | ErrorCode::UnknownBreaker
        | ErrorCode::UnknownPath
        | ErrorCode::MethodNotAllowed
        | ErrorCode::UnsupportedMediaType
        | ErrorCode::StaleEpoch
        | ErrorCode::StaleCheckpoint
        | ErrorCode::BlobsUnavailable
        | ErrorCode::WrongState
        | ErrorCode::VersionConflict
        | ErrorCode::LockBusy
        | ErrorCode::LockOverlap
        | ErrorCode::UnknownLock
        | ErrorCode::UnknownStep
        | ErrorCode::RequestTimeout
        | ErrorCode::Overloaded
        | ErrorCode::ForbiddenHost
        | ErrorCode::LimitReached
        | ErrorCode::StoreUnavailable
        | ErrorCode::StoreFull
        | ErrorCode::StoreNearlyFull
        | ErrorCode::ShuttingDown
        | ErrorCode::Internal => false,
    }
}

/// The lines before have their answers; the batch that begins here may or may not have been taken.
fn stopped(line: u64, error: anyhow::Error) -> anyhow::Error {
    error.context(format!(
        "stopped at line {line}; every line before it has its answer, so go on with `tail -n +{line}` (lines with an \
         `id` can be sent twice without harm)"
    ))
}

fn progress_bar(context: &Context) -> ProgressBar {
    if context.output.json || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    // The size is only known when stdin is a file.
    let size = std::fs::metadata("/dev/stdin").ok().filter(|meta| meta.is_file()).map(|meta| meta.len());
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{bar:30} {percent:>3} %  {msg}  {elapsed}, {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}  {elapsed}"),
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Reads stdin on a thread of its own: a blocking read must not hold up a batch that waits to be sent.
fn read_stdin() -> mpsc::Receiver<io::Result<Vec<Line>>> {
    let (chunks, receiver) = mpsc::channel(CHUNKS_AHEAD);
    std::thread::spawn(move || {
        let input = BufReader::with_capacity(INPUT_BUFFER_BYTES, io::stdin());
        let mut lines = Lines::new(input, ITEM_MAX_BYTES);
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        loop {
            match lines.next_line() {
                Ok(Some(line)) => {
                    bytes += line.bytes;
                    chunk.push(line);
                    // Nothing more at hand: what there is should not wait for it.
                    if bytes < CHUNK_BYTES && !lines.input().buffer().is_empty() {
                        continue;
                    }
                    bytes = 0;
                    if chunks.blocking_send(Ok(std::mem::take(&mut chunk))).is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    let _ = chunks.blocking_send(Ok(std::mem::take(&mut chunk)));
                    let _ = chunks.blocking_send(Err(error));
                    return;
                }
            }
        }
        let _ = chunks.blocking_send(Ok(chunk));
    });
    receiver
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} created", HumanCount(self.created))?;
        let others =
            [(self.duplicates, "there already"), (self.refused, "refused"), (self.unreadable, "unreadable")];
        for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {} {what}", HumanCount(count))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tally_shows_what_there_is() {
        assert_eq!(Tally::default().to_string(), "0 created");
        let tally = Tally { created: 12_345, duplicates: 0, refused: 1, unreadable: 2 };
        assert_eq!(tally.to_string(), "12,345 created, 1 refused, 2 unreadable");
    }

    #[test]
    fn places_are_told_inside_the_task() {
        let at = |place: &str| within_task(&Problem::new(ErrorCode::InvalidValue, "x").at(place)).at;
        assert_eq!(at("tasks[17].failure.headers").as_deref(), Some("failure.headers"));
        assert_eq!(at("tasks[17]"), None);
    }

    #[test]
    fn only_refusals_of_items_split_a_batch() {
        assert!(is_about_items(ErrorCode::JsonTooDeep));
        assert!(!is_about_items(ErrorCode::ForbiddenHost));
        let split: Vec<_> = ErrorCode::ALL.iter().filter(|code| is_about_items(**code)).collect();
        assert!(split.iter().all(|code| matches!(code.status(), 400 | 404 | 413 | 422)));
    }
}
