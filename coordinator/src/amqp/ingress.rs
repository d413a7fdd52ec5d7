//! What is published to the exchange for new tasks: tasks as JSON, and dead letters of other queues.

use lapin::Channel;
use lapin::message::Delivery;
use redrive_link::amqp::{SessionError, message};
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::id::TaskId;
use redrive_shared::limits::BATCH_MAX_ITEMS;
use redrive_shared::wire::{EnqueueRequest, NewTask};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Amqp;
use super::dead_letter;
use super::inbox::{Again, Inbox, header};
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
        let batch = inbox.next().await?;
        let mut refused = Vec::new();
        let mut tasks = Vec::with_capacity(batch.len());
        for delivery in come_back(amqp, &batch).await {
            match read(delivery) {
                Ok(read) => tasks.extend(read.into_iter().map(|task| (delivery, task))),
                Err(problem) => refused.push((delivery, problem)),
            }
        }
        let mut rest = tasks.into_iter().peekable();
        while rest.peek().is_some() {
            let (from, tasks) = rest.by_ref().take(BATCH_MAX_ITEMS).unzip();
            enqueue(amqp, from, tasks, &mut refused).await;
        }
        inbox.reject(&amqp.publisher, &amqp.names.rejected(), refused).await;
        inbox.acknowledge(&batch).await?;
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

fn read(delivery: &Delivery) -> Result<Vec<NewTask>, Problem> {
    if delivery.properties.kind().as_ref().is_some_and(|kind| kind.as_str() == message::PROBE) {
        return Ok(Vec::new());
    }
    if let Some(death) = dead_letter::first_death(&delivery.properties) {
        return dead_letter::read(delivery, &death).map(|task| vec![task]);
    }
    let body = &delivery.data;
    if serde_json::from_slice::<Shape>(body).is_ok_and(|shape| shape.tasks.is_some()) {
        return parse::<EnqueueRequest>(body).map(|request| request.tasks);
    }
    let mut task = parse_item::<NewTask>(body)?;
    // The message's own id makes it safe to deliver twice, and its trace goes on.
    if let (None, Some(id)) = (&task.id, delivery.properties.message_id()) {
        task.id = TaskId::new(id.as_str()).ok();
    }
    if task.traceparent.is_none() {
        task.traceparent = header(&delivery.properties, message::TRACEPARENT);
    }
    Ok(vec![task])
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
    let mut again = Again::default();
    let reply = loop {
        match amqp.engine.enqueue(EnqueueRequest { tasks: tasks.clone() }).await {
            Ok(reply) => break reply,
            Err(problem) => again.wait(&problem, "tasks from RabbitMQ").await,
        }
    };
    for (delivery, result) in from.into_iter().zip(reply.results) {
        let outcome = if result.error.is_some() { "refused" } else { "taken" };
        metrics::counter!("redrive_amqp_tasks_total", "result" => outcome).increment(1);
        refused.extend(result.error.map(|problem| (delivery, problem)));
    }
}
