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

use super::Amqp;
use super::dead_letter;
use super::inbox::{Again, Inbox, check_size, header, made_id, passes};
use super::outcomes::settle;
use crate::json::{parse, parse_item};

/// What tells several tasks from one.
#[derive(Deserialize)]
struct Shape {
    tasks: Option<IgnoredAny>,
}

/// Reads tasks until the session ends.
pub(super) async fn run(amqp: &Amqp, channel: Channel) -> Result<(), SessionError> {
    let mut inbox = Inbox::open(&channel, amqp.names.ingress()).await?;
    loop {
        let Some(batch) = inbox.next(&amqp.stopping).await? else { return Ok(()) };
        let mut refused = Vec::new();
        let mut tasks = Vec::with_capacity(batch.len());
        for delivery in come_back(amqp, &batch).await {
            match read(delivery, &amqp.names) {
                Ok(read) => tasks.extend(read.into_iter().map(|task| (delivery, task))),
                Err(problem) => refused.push((delivery, problem)),
            }
        }
        let mut rest = tasks.into_iter().peekable();
        while rest.peek().is_some() {
            let (from, tasks) = rest.by_ref().take(BATCH_MAX_ITEMS).unzip();
            enqueue(amqp, from, tasks, &mut refused).await;
        }
        inbox.finish(&batch, refused, &amqp.publisher, &amqp.names.rejected()).await?;
    }
}

/// Messages that were given back and died again end the attempts under which they were. Returns all others, and those whose
/// task is forgotten: they begin anew.
async fn come_back<'a>(amqp: &Amqp, batch: &'a [Delivery]) -> Vec<&'a Delivery> {
    let mut others = Vec::with_capacity(batch.len());
    let (mut from, mut settlements) = (Vec::new(), Vec::new());
    for delivery in batch {
        let death = dead_letter::first_death(&delivery.properties);
        match death.and_then(|death| dead_letter::comes_back(delivery, &death)) {
            Some(settlement) => {
                from.push(delivery);
                settlements.push(settlement);
            }
            None => others.push(delivery),
        }
    }
    if settlements.is_empty() {
        return others;
    }
    for (delivery, result) in from.into_iter().zip(settle(amqp, settlements).await) {
        let outcome = match result.error.map(|problem| problem.code) {
            None if result.repeated => "repeated",
            None => "reopened",
            Some(ErrorCode::UnknownTask) => "forgotten",
            // A copy from before its task went out again.
            Some(_) => "stale",
        };
        metrics::counter!("redrive_amqp_returns_total", "result" => outcome).increment(1);
        if outcome == "forgotten" {
            others.push(delivery);
        }
    }
    others
}

fn read(delivery: &Delivery, names: &Names) -> Result<Vec<NewTask>, Problem> {
    if delivery.properties.kind().as_ref().is_some_and(|kind| kind.as_str() == message::PROBE) {
        return Ok(Vec::new());
    }
    check_size(&delivery.data)?;
    match dead_letter::first_death(&delivery.properties) {
        // A lease that was over before anybody took it, where a policy makes dead letters of such: the store has the task.
        Some(death) if names.is_pushed(&death.queue) => Ok(Vec::new()),
        // What died in another queue of ours is what it was before.
        Some(death) if !names.is_ours(&death.queue) => {
            dead_letter::read(delivery, &death).map(|task| vec![task])
        }
        _ => read_json(delivery),
    }
}

/// One task or several. The message's own id makes it safe to deliver twice, and its trace goes on.
fn read_json(delivery: &Delivery) -> Result<Vec<NewTask>, Problem> {
    let (body, properties) = (&delivery.data, &delivery.properties);
    let several = serde_json::from_slice::<Shape>(body).is_ok_and(|shape| shape.tasks.is_some());
    let mut tasks =
        if several { parse::<EnqueueRequest>(body)?.tasks } else { vec![parse_item::<NewTask>(body)?] };
    let message_id = properties.message_id().as_ref().map(ShortString::as_str).filter(|id| !id.is_empty());
    let traceparent = header(properties, message::TRACEPARENT);
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
) {
    // Made here, so that a repeat of the call makes no second task.
    for task in &mut tasks {
        task.id.get_or_insert_with(TaskId::generate);
    }
    let (mut others, mut other_lives) = (Vec::new(), Vec::new());
    let results = enqueue_surely(amqp, &tasks).await;
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
        let results = enqueue_surely(amqp, &other_lives).await;
        others.into_iter().zip(results).for_each(|(delivery, result)| count(delivery, result, refused));
    }
}

async fn enqueue_surely(amqp: &Amqp, tasks: &[NewTask]) -> Vec<EnqueueResult> {
    let mut again = Again::default();
    loop {
        // Ids make it safe to say all of it again, where only some could not be taken.
        match amqp.engine.enqueue(EnqueueRequest { tasks: tasks.to_vec() }).await {
            Ok(reply) => {
                match reply.results.iter().filter_map(|one| one.error.as_ref()).find(|one| passes(one)) {
                    Some(problem) => again.wait(problem, "tasks from RabbitMQ").await,
                    None => return reply.results,
                }
            }
            Err(problem) => again.wait(&problem, "tasks from RabbitMQ").await,
        }
    }
}

fn count<'a>(delivery: &'a Delivery, result: EnqueueResult, refused: &mut Vec<(&'a Delivery, Problem)>) {
    let outcome = if result.error.is_some() { "refused" } else { "taken" };
    metrics::counter!("redrive_amqp_tasks_total", "result" => outcome).increment(1);
    refused.extend(result.error.map(|problem| (delivery, problem)));
}
