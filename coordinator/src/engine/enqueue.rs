//! Work comes in.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redrive_shared::blob::Content;
use redrive_shared::cost::Cost;
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::failure::FailureClass;
use redrive_shared::gate::{Signal, Standing};
use redrive_shared::id::{Name, TaskId};
use redrive_shared::limits::{BODY_MAX_BYTES, RESULT_MAX_BYTES};
use redrive_shared::retry::PolicyError;
use redrive_shared::task::{TaskState, TaskView};
use redrive_shared::wire::{EnqueueReply, EnqueueRequest, EnqueueResult, EnqueueStatus, NewTask};
use serde_json::value::RawValue;

use super::judge::judge;
use super::references::{Reference, too_old};
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
        let (prepared, mut wrong) = self.prepare_all(request.tasks, &mut results).await;
        if !prepared.is_empty() {
            let (places, batch): (Vec<usize>, Vec<Enqueue>) = prepared.into_iter().unzip();
            let deadlines: Vec<u64> = batch.iter().filter_map(|task| task.spec.deadline_ms).collect();
            let named: Vec<(TaskId, Name)> =
                batch.iter().map(|task| (task.id.clone(), task.queue.clone())).collect();
            let came: Vec<Came> = batch.iter().map(Came::of).collect();
            let outcomes = self.store.enqueue(batch).await.map_err(unavailable)?;
            let (mut told, mut gates) = (Told::default(), crate::gates::Told::default());
            let created = |outcome: &Enqueued| matches!(outcome, Enqueued::Created { .. });
            for (came, _) in came.into_iter().zip(&outcomes).filter(|(_, outcome)| created(outcome)) {
                came.tell(&mut told, &mut gates);
            }
            self.gates.hear(gates);
            for ((place, (id, queue)), outcome) in places.into_iter().zip(named).zip(outcomes) {
                let wrong = wrong.remove(&place);
                results[place] = Some(self.enqueued(id, &queue, outcome, place, wrong, &mut told).await);
            }
            self.tell(&told);
            self.recall(&mut results).await;
            // A deadline may be nearer than what the reaper sleeps for; the longest delays are a policy's, so hours away.
            if let Some(earliest_ms) = deadlines.into_iter().min() {
                self.reaper.set_earlier(self.clock.now_ms().saturating_add_unsigned(earliest_ms) + 1);
            }
        }
        Ok(EnqueueReply { results: results.into_iter().flatten().collect() })
    }

    /// Those tasks that can be put on their queues, with their places; of the others the results say why not. Of those whose
    /// payload is not there, it is told beside: if they are known, it is not needed any more.
    async fn prepare_all(
        &self,
        tasks: Vec<NewTask>,
        results: &mut [Option<EnqueueResult>],
    ) -> (Vec<(usize, Enqueue)>, BTreeMap<usize, Problem>) {
        let mut prepared = Vec::with_capacity(tasks.len());
        let standing = self.standing();
        for (place, task) in tasks.into_iter().enumerate() {
            let id = task.id.clone();
            match self.prepare(task, standing.clone()).await {
                Ok(task) => prepared.push((place, task)),
                Err(problem) => results[place] = Some(refused(id, problem, place)),
            }
        }
        let reference = |(place, task): &(usize, Enqueue)| {
            Some(Reference { place: *place, id: task.id.clone(), blob: *task.payload.blob()? })
        };
        let wrong = self.refused_references(prepared.iter().filter_map(reference).collect()).await;
        for (place, task) in &mut prepared {
            task.only_compared = wrong.contains_key(place);
        }
        (prepared, wrong)
    }

    /// Says of tasks that were there already, and are finished, what came of them.
    async fn recall(&self, results: &mut [Option<EnqueueResult>]) {
        let finished = |result: &&mut EnqueueResult| {
            result.status == EnqueueStatus::Duplicate && result.state == Some(TaskState::Succeeded)
        };
        let finished: Vec<_> = results.iter_mut().flatten().filter(finished).collect();
        let ids: BTreeSet<TaskId> = finished.iter().filter_map(|result| result.id.clone()).collect();
        if ids.is_empty() {
            return;
        }
        let tasks = match self.store.status(ids.into_iter().collect()).await {
            Ok(tasks) => tasks,
            // What was asked for is done, and each of them can be asked after.
            Err(error) => {
                tracing::warn!(%error, "results of finished tasks could not be read for their producers");
                Vec::new()
            }
        };
        let bytes = |task: &TaskView| task.result.as_ref().map_or(0, |result| result.get().len());
        // Then the store may have left out some.
        let crowded = tasks.iter().map(bytes).sum::<usize>() > BODY_MAX_BYTES - RESULT_MAX_BYTES;
        let tasks: HashMap<TaskId, TaskView> =
            tasks.into_iter().map(|task| (task.id.clone(), task)).collect();
        let mut room = BODY_MAX_BYTES;
        for answer in finished {
            let task = answer.id.as_ref().and_then(|id| tasks.get(id));
            answer.result_ref = task.and_then(|task| task.result_ref);
            match task.map(|task| (bytes(task), &task.result)) {
                Some((bytes, Some(result))) if bytes <= room => {
                    room -= bytes;
                    answer.result = Some(result.clone());
                }
                Some((_, None)) if !crowded || answer.result_ref.is_some() => {}
                Some(_) | None => answer.hint = answer.id.as_deref().map(left_out),
            }
        }
    }

    async fn prepare(&self, mut task: NewTask, standing: Standing) -> Result<Enqueue> {
        check::new_task(&task)?;
        let queue = match task.queue.take() {
            Some(queue) => queue,
            None => Name::new(DEFAULT_QUEUE)
                .map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?,
        };
        self.require_queues(std::iter::once(&queue)).await?;
        if let (Some(strategy), Some(policy)) = (&task.retry, self.store.policy(&queue)) {
            let refused = |error: PolicyError| {
                Problem::new(ErrorCode::InvalidValue, error.to_string()).at(error.field())
            };
            policy.check_own(strategy).map_err(refused)?;
        }
        let failure =
            task.failure.take().map(|signal| judge(&signal, task.dependency.as_deref(), self.clock.now_ms()));
        Ok(Enqueue {
            id: task.id.take().unwrap_or_else(TaskId::generate),
            task_type: task.task_type.take().unwrap_or_else(|| queue.clone()),
            payload: Content::of(task.payload.take(), task.payload_ref.take())
                .unwrap_or_else(|| Content::Inline(RawValue::NULL.to_owned())),
            queue,
            failure,
            spec: task,
            standing,
            only_compared: false,
        })
    }

    async fn enqueued(
        &self,
        id: TaskId,
        queue: &Name,
        outcome: Enqueued,
        place: usize,
        wrong_payload: Option<Problem>,
        told: &mut Told,
    ) -> EnqueueResult {
        let (status, label) = match outcome {
            Enqueued::Created { .. } => (EnqueueStatus::Created, "created"),
            Enqueued::Duplicate { .. } => (EnqueueStatus::Duplicate, "duplicate"),
            Enqueued::IdReused | Enqueued::Unreadable | Enqueued::UnknownQueue | Enqueued::UnknownPayload => {
                (EnqueueStatus::Refused, "refused")
            }
        };
        told.count("redrive_enqueued_total", queue, "status", label);
        match outcome {
            Enqueued::Created { state, due_ms } => {
                told.moved(&id, queue, state, due_ms);
                there(id, status, state, due_ms)
            }
            Enqueued::Duplicate { state, due_ms } => there(id, status, state, due_ms),
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
            Enqueued::UnknownPayload => {
                let problem = wrong_payload.unwrap_or_else(|| too_old(&id));
                refused(Some(id), problem.at("payload_ref"), place)
            }
        }
    }
}

/// What happened to a task before it came: told when it is new, since the same task again brings the same again.
struct Came {
    queue: Name,
    dependency: Option<Name>,
    route: u32,
    calls: u32,
    failure: Option<(FailureClass, Option<u64>)>,
}

impl Came {
    fn of(task: &Enqueue) -> Self {
        Self {
            queue: task.queue.clone(),
            dependency: task.spec.dependency.clone(),
            route: task.spec.route,
            calls: task.calls_made(),
            failure: task.failure.as_ref().map(|failure| (failure.class, failure.retry_after_ms)),
        }
    }

    fn tell(self, told: &mut Told, gates: &mut crate::gates::Told) {
        if let Some((class, hint_ms)) = self.failure {
            told.count("redrive_failures_reported_total", &self.queue, "class", class.as_str());
            // On a later route another dependency failed, which only the queue's policy names. When the producer's call began,
            // and whose it was, is not known: it decides nothing that needs that.
            if let (Some(dependency), 0) = (&self.dependency, self.route) {
                gates.add(dependency, Signal::of(class, hint_ms), None, 0);
            }
        }
        if self.calls > 0 {
            let calls = Calls { attempts: self.calls, tasks: 1, cost: Cost::default() };
            told.called(&self.queue, self.dependency, calls);
        }
    }
}

/// A task that is on its queue, or was before.
fn there(id: TaskId, status: EnqueueStatus, state: TaskState, due_ms: i64) -> EnqueueResult {
    EnqueueResult { state: Some(state), due_at_ms: Some(due_ms), ..EnqueueResult::of(Some(id), status) }
}

fn left_out(id: &str) -> String {
    format!("this reply has no room for its result: ask for it with GET /v1/tasks/{id}")
}

fn refused(id: Option<TaskId>, problem: Problem, place: usize) -> EnqueueResult {
    let at = match &problem.at {
        Some(field) => format!("tasks[{place}].{field}"),
        None => format!("tasks[{place}]"),
    };
    EnqueueResult { error: Some(problem.at(at)), ..EnqueueResult::of(id, EnqueueStatus::Refused) }
}
