//! What is published to the exchange for new tasks: tasks as JSON, and dead letters of other queues.

use lapin::Channel;
use lapin::message::Delivery;
use lapin::types::ShortString;
use redrive_link::amqp::{Names, SessionError, message};
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::id::TaskId;
use redrive_shared::limits::BATCH_MAX_ITEMS;
use redrive_shared::wire::{EnqueueRequest, EnqueueResult, NewTask};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio_util::sync::CancellationToken;

use super::Amqp;
use super::dead_letter;
use super::inbox::{Again, Inbox, check_size, made_id, passes, traceparent};
use super::outcomes::settle;
use crate::json::{parse, parse_item};

/// What tells several tasks from one.
#[derive(Deserialize)]
struct Shape {
    tasks: Option<IgnoredAny>,
}

/// Reads tasks until the session ends.
pub(super) async fn run(amqp: &Amqp, channel: Channel, over: &CancellationToken) -> Result<(), SessionError> {
    let mut inbox = Inbox::open(&channel, amqp.names.ingress()).await?;
    loop {
        let Some(batch) = inbox.next(over).await? else { return Ok(()) };
        let mut refused = Vec::new();
        let mut tasks = Vec::with_capacity(batch.len());
        for delivery in come_back(amqp, &batch, &mut refused, over).await? {
            match read(delivery, &amqp.names) {
                Ok(read) => tasks.extend(read.into_iter().map(|task| (delivery, task))),
                Err(problem) => refused.push((delivery, problem)),
            }
        }
        let mut rest = tasks.into_iter().peekable();
        while rest.peek().is_some() {
            let (from, tasks) = rest.by_ref().take(BATCH_MAX_ITEMS).unzip();
            enqueue(amqp, from, tasks, &mut refused, over).await?;
        }
        inbox.finish(&batch, refused, &amqp.publisher, &amqp.names.rejected()).await?;
    }
}

/// Messages that were given back and died again end the attempts under which they were. Returns all others, and those whose
/// task is forgotten: they begin anew.
async fn come_back<'a>(
    amqp: &Amqp,
    batch: &'a [Delivery],
    refused: &mut Vec<(&'a Delivery, Problem)>,
    over: &CancellationToken,
) -> Result<Vec<&'a Delivery>, SessionError> {
    let mut others = Vec::with_capacity(batch.len());
    let (mut from, mut settlements) = (Vec::new(), Vec::new());
    for delivery in batch {
        let death = dead_letter::death(&delivery.properties, &amqp.names);
        match death.and_then(|death| dead_letter::comes_back(delivery, &death)) {
            Some(settlement) => {
                from.push(delivery);
                settlements.push(settlement);
            }
            None => others.push(delivery),
        }
    }
    if settlements.is_empty() {
        return Ok(others);
    }
    for (delivery, result) in from.into_iter().zip(settle(amqp, settlements, over).await?) {
        let outcome = match result.error {
            None if result.repeated => "repeated",
            None => "reopened",
            Some(problem) if problem.code == ErrorCode::UnknownTask => {
                others.push(delivery);
                "forgotten"
            }
            // A copy from before its task went out again.
            Some(problem) if problem.code == ErrorCode::StaleEpoch => "stale",
            Some(problem) => {
                refused.push((delivery, problem));
                "refused"
            }
        };
        metrics::counter!("redrive_amqp_returns_total", "result" => outcome).increment(1);
    }
    Ok(others)
}

fn read(delivery: &Delivery, names: &Names) -> Result<Vec<NewTask>, Problem> {
    if delivery.properties.kind().as_ref().is_some_and(|kind| kind.as_str() == message::PROBE) {
        return Ok(Vec::new());
    }
    check_size(&delivery.data)?;
    // A lease that was over before anybody took it, where a policy makes dead letters of such: the store has the task.
    if dead_letter::last_queue(&delivery.properties).is_some_and(|queue| names.is_pushed(&queue)) {
        return Ok(Vec::new());
    }
    match dead_letter::death(&delivery.properties, names) {
        Some(death) => dead_letter::read(delivery, &death).map(|task| vec![task]),
        None => read_json(delivery),
    }
}

/// One task or several. The message's own id makes it safe to deliver twice, and its trace goes on.
fn read_json(delivery: &Delivery) -> Result<Vec<NewTask>, Problem> {
    let (body, properties) = (&delivery.data, &delivery.properties);
    let several = serde_json::from_slice::<Shape>(body).is_ok_and(|shape| shape.tasks.is_some());
    let mut tasks =
        if several { parse::<EnqueueRequest>(body)?.tasks } else { vec![parse_item::<NewTask>(body)?] };
    let message_id = properties.message_id().as_ref().map(ShortString::as_str).filter(|id| !id.is_empty());
    let traceparent = traceparent(properties);
    for (place, task) in tasks.iter_mut().enumerate() {
        if let (None, Some(id)) = (&task.id, message_id) {
            task.id = Some(if several { made_id(&[id, &place.to_string()]) } else { made_id(&[id]) });
        }
        if task.traceparent.is_none() {
            task.traceparent.clone_from(&traceparent);
        }
    }
    Ok(tasks)
}

/// Enqueues, however long the store takes to be there again.
async fn enqueue<'a>(
    amqp: &Amqp,
    from: Vec<&'a Delivery>,
    mut tasks: Vec<NewTask>,
    refused: &mut Vec<(&'a Delivery, Problem)>,
    over: &CancellationToken,
) -> Result<(), SessionError> {
    // Made here, so that a repeat of the call makes no second task.
    for task in &mut tasks {
        task.id.get_or_insert_with(TaskId::generate);
    }
    let (mut others, mut other_lives) = (Vec::new(), Vec::new());
    let results = enqueue_surely(amqp, &tasks, over).await?;
    for ((delivery, result), task) in from.into_iter().zip(results).zip(tasks) {
        match dead_letter::other_life(delivery, &amqp.names, &result, &task) {
            Some(task) => {
                others.push(delivery);
                other_lives.push(task);
            }
            None => count(delivery, result, refused),
        }
    }
    if !others.is_empty() {
        let results = enqueue_surely(amqp, &other_lives, over).await?;
        others.into_iter().zip(results).for_each(|(delivery, result)| count(delivery, result, refused));
    }
    Ok(())
}

async fn enqueue_surely(
    amqp: &Amqp,
    tasks: &[NewTask],
    over: &CancellationToken,
) -> Result<Vec<EnqueueResult>, SessionError> {
    let mut again = Again::default();
    loop {
        // Ids make it safe to say all of it again, where only some could not be taken.
        match amqp.engine.enqueue(EnqueueRequest { tasks: tasks.to_vec() }).await {
            Ok(reply) => {
                match reply.results.iter().filter_map(|one| one.error.as_ref()).find(|one| passes(one)) {
                    Some(problem) => again.wait(problem, "tasks from RabbitMQ", over).await?,
                    None => return Ok(reply.results),
                }
            }
            Err(problem) => again.wait(&problem, "tasks from RabbitMQ", over).await?,
        }
    }
}

fn count<'a>(delivery: &'a Delivery, result: EnqueueResult, refused: &mut Vec<(&'a Delivery, Problem)>) {
    let outcome = if result.error.is_some() { "refused" } else { "taken" };
    metrics::counter!("redrive_amqp_tasks_total", "result" => outcome).increment(1);
    refused.extend(result.error.map(|problem| (delivery, problem)));
}
