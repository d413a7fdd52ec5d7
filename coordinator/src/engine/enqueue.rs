//! Work comes in.

use redrive_shared::cost::Cost;
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::gate::Signal;
use redrive_shared::id::{Name, TaskId};
use redrive_shared::wire::{EnqueueReply, EnqueueRequest, EnqueueResult, EnqueueStatus, NewTask};
use serde_json::value::RawValue;

use super::judge::judge;
use super::told::{Calls, Told};
use super::work::unreadable;
use super::{Engine, Result, check, unavailable};
use crate::store::DEFAULT_QUEUE;
use crate::store::{Enqueue, Enqueued};

impl Engine {
    /// Puts a batch of tasks on their queues. Refused items do not hold up the others.
    pub async fn enqueue(&self, request: EnqueueRequest) -> Result<EnqueueReply> {
        check::batch("tasks", request.tasks.len())?;
        let mut results: Vec<Option<EnqueueResult>> = vec![None; request.tasks.len()];
        let count = request.tasks.len();
        let (mut batch, mut places) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (place, task) in request.tasks.into_iter().enumerate() {
            let id = task.id.clone();
            match self.prepare(task).await {
                Ok(task) => {
                    batch.push(task);
                    places.push(place);
                }
                Err(problem) => results[place] = Some(refused(id, problem, place)),
            }
        }
        if !batch.is_empty() {
            let deadlines: Vec<u64> = batch.iter().filter_map(|task| task.spec.deadline_ms).collect();
            let named: Vec<(TaskId, Name)> =
                batch.iter().map(|task| (task.id.clone(), task.queue.clone())).collect();
            let mut told = Told::default();
            let failures: Vec<Option<(Name, Signal)>> = batch.iter().map(failure_of).collect();
            let made: Vec<(Option<Name>, u32)> =
                batch.iter().map(|task| (task.spec.dependency.clone(), task.attempts_made())).collect();
            for task in &batch {
                if let Some(failure) = &task.failure {
                    told.count(
                        "redrive_failures_reported_total",
                        &task.queue,
                        "class",
                        failure.class.as_str(),
                    );
                }
            }
            let outcomes = self.store.enqueue(batch).await.map_err(unavailable)?;
            let mut gates = crate::gates::Told::default();
            for (failure, outcome) in failures.into_iter().zip(&outcomes) {
                if let (Some((dependency, signal)), Enqueued::Created { .. }) = (failure, outcome) {
                    // When the producer's call began, and whose it was, is not known: it decides nothing that needs that.
                    gates.add(&dependency, signal, None, 0);
                }
            }
            self.gates.hear(gates);
            for (((_, queue), (dependency, attempts)), outcome) in named.iter().zip(made).zip(&outcomes) {
                if attempts > 0 && matches!(outcome, Enqueued::Created { .. }) {
                    told.called(queue, dependency, Calls { attempts, tasks: 1, cost: Cost::default() });
                }
            }
            for ((place, (id, queue)), outcome) in places.into_iter().zip(named).zip(outcomes) {
                results[place] = Some(self.enqueued(id, &queue, outcome, place, &mut told).await);
            }
            self.tell(&told);
            // A deadline may be nearer than what the reaper sleeps for; the longest delays are a policy's, so hours away.
            if let Some(earliest_ms) = deadlines.into_iter().min() {
                self.reaper.set_earlier(self.clock.now_ms().saturating_add_unsigned(earliest_ms) + 1);
            }
        }
        Ok(EnqueueReply { results: results.into_iter().flatten().collect() })
    }

    async fn prepare(&self, mut task: NewTask) -> Result<Enqueue> {
        check::new_task(&task)?;
        let queue = match task.queue.take() {
            Some(queue) => queue,
            None => Name::new(DEFAULT_QUEUE)
                .map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?,
        };
        self.require_queues(std::iter::once(&queue)).await?;
        let failure =
            task.failure.take().map(|signal| judge(&signal, task.dependency.as_deref(), self.clock.now_ms()));
        let standing = failure.as_ref().map(|_| self.standing()).unwrap_or_default();
        Ok(Enqueue {
            id: task.id.take().unwrap_or_else(TaskId::generate),
            task_type: task.task_type.take().unwrap_or_else(|| queue.clone()),
            payload: task.payload.take().unwrap_or_else(|| RawValue::NULL.to_owned()),
            queue,
            failure,
            spec: task,
            standing,
        })
    }

    async fn enqueued(
        &self,
        id: TaskId,
        queue: &Name,
        outcome: Enqueued,
        place: usize,
        told: &mut Told,
    ) -> EnqueueResult {
        let (status, label) = match outcome {
            Enqueued::Created { .. } => (EnqueueStatus::Created, "created"),
            Enqueued::Duplicate { .. } => (EnqueueStatus::Duplicate, "duplicate"),
            Enqueued::IdReused | Enqueued::Unreadable | Enqueued::UnknownQueue => {
                (EnqueueStatus::Refused, "refused")
            }
        };
        told.count("redrive_enqueued_total", queue, "status", label);
        match outcome {
            Enqueued::Created { state, due_ms } => {
                told.moved(&id, queue, state, due_ms);
                EnqueueResult {
                    id: Some(id),
                    status,
                    state: Some(state),
                    due_at_ms: Some(due_ms),
                    error: None,
                }
            }
            Enqueued::Duplicate { state, due_ms } => EnqueueResult {
                id: Some(id),
                status,
                state: Some(state),
                due_at_ms: Some(due_ms),
                error: None,
            },
            Enqueued::IdReused => {
                let detail = format!(
                    "`{id}` belongs to a task with another queue, type or payload; use a new id for new work, or ask for \
                     that task with GET /v1/tasks/{id}"
                );
                refused(Some(id), Problem::new(ErrorCode::IdReused, detail), place)
            }
            Enqueued::Unreadable => {
                let problem = unreadable(&id);
                refused(Some(id), problem, place)
            }
            Enqueued::UnknownQueue => refused(Some(id), self.unknown_queue(queue), place),
        }
    }
}

/// What the failure that a task came with tells the gate of its dependency.
fn failure_of(task: &Enqueue) -> Option<(Name, Signal)> {
    let (failure, dependency) = (task.failure.as_ref()?, task.spec.dependency.as_ref()?);
    // On a later route another one failed, which only its queue's policy names.
    (task.spec.route == 0).then_some(())?;
    Some((dependency.clone(), Signal::of(failure.class, failure.retry_after_ms)))
}

fn refused(id: Option<TaskId>, problem: Problem, place: usize) -> EnqueueResult {
    let at = match &problem.at {
        Some(field) => format!("tasks[{place}].{field}"),
        None => format!("tasks[{place}]"),
    };
    EnqueueResult {
        id,
        status: EnqueueStatus::Refused,
        state: None,
        due_at_ms: None,
        error: Some(problem.at(at)),
    }
}
