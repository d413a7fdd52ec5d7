//! Looking at tasks, and what operators do to them.

use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::id::{Name, TaskId};
use redrive_shared::limits::{PAGE_DEFAULT_ITEMS, PAGE_MAX_ITEMS};
use redrive_shared::task::{TaskState, TaskView};
use redrive_shared::wire::{
    AgentView, Page, StatusReply, StatusRequest, TaskAction, TaskActionReply, TaskActionRequest,
    TaskActionResult,
};

use super::work::{unknown, unreadable};
use super::{Engine, Result, check, unavailable};
use crate::store::{Acted, Filter};

/// How often a waiting producer looks again by itself, in milliseconds: its task may have been settled elsewhere.
const LOOK_AGAIN_MS: u64 = 5_000;

impl Engine {
    /// One task, once it has its answer or the wait is over.
    pub async fn task(&self, id: &TaskId, wait_ms: u64) -> Result<TaskView> {
        check::wait(wait_ms)?;
        let until_ms = self.clock.now_ms().saturating_add_unsigned(wait_ms);
        let watch = self.watchers.watch(id);
        loop {
            let settled = watch.notify.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            let task = self.store.get(id).await.map_err(unavailable)?.ok_or_else(|| unknown(id))?;
            let now_ms = self.clock.now_ms();
            if task.state.is_settled() || now_ms >= until_ms || self.stopping.is_cancelled() {
                return Ok(task);
            }
            tokio::select! {
                () = settled => {}
                () = self.stopping.cancelled() => {}
                () = self.clock.sleep_until(until_ms.min(now_ms.saturating_add_unsigned(LOOK_AGAIN_MS))) => {}
            }
        }
    }

    /// Those tasks of a list of ids that are known.
    pub async fn status(&self, request: StatusRequest) -> Result<StatusReply> {
        check::batch("ids", request.ids.len())?;
        let mut unknown = request.ids.clone();
        let tasks = self.store.status(request.ids).await.map_err(unavailable)?;
        let known: std::collections::HashSet<&str> = tasks.iter().map(|task| task.id.as_str()).collect();
        unknown.retain(|id| !known.contains(id.as_str()));
        Ok(StatusReply { tasks, unknown })
    }

    /// A page of tasks, newest first.
    pub async fn list(
        &self,
        queue: Option<Name>,
        state: Option<TaskState>,
        cursor: Option<String>,
        limit: Option<usize>,
    ) -> Result<Page> {
        let limit = limit.unwrap_or(PAGE_DEFAULT_ITEMS);
        if !(1..=PAGE_MAX_ITEMS).contains(&limit) {
            let detail = format!("`limit` is {limit}; it must be from 1 to {PAGE_MAX_ITEMS}");
            return Err(Problem::new(ErrorCode::InvalidValue, detail).at("limit"));
        }
        let cursor = cursor.map(|text| text.parse::<i64>()).transpose().map_err(|_| {
            Problem::new(ErrorCode::InvalidValue, "that is no cursor; pass on `next_cursor` as it came")
                .at("cursor")
        })?;
        if let Some(queue) = &queue
            && !self.store.has_queue(queue)
        {
            return Err(self.unknown_queue(queue));
        }
        let listed = self.store.list(Filter { queue, state, cursor, limit }).await.map_err(unavailable)?;
        Ok(Page { tasks: listed.tasks, next_cursor: listed.next_cursor.map(|cursor| cursor.to_string()) })
    }

    /// Cancels tasks or runs them again.
    pub async fn act(&self, action: TaskAction, request: TaskActionRequest) -> Result<TaskActionReply> {
        check::batch("ids", request.ids.len())?;
        check::reason(request.reason.as_deref())?;
        let ids = request.ids.clone();
        let outcomes = match action {
            TaskAction::Cancel => self.store.cancel(request.ids, request.reason).await,
            TaskAction::Retry => self.store.retry(request.ids, request.reason, &self.standing()).await,
        };
        let outcomes = outcomes.map_err(unavailable)?;
        self.tell_gates_of_cancelled(&ids, &outcomes).await;
        if action == TaskAction::Retry {
            self.dispatcher.wake_all();
        }
        let results =
            ids.into_iter().zip(outcomes).map(|(id, outcome)| self.acted(id, action, outcome)).collect();
        Ok(TaskActionReply { results })
    }

    fn acted(&self, id: TaskId, action: TaskAction, outcome: Acted) -> TaskActionResult {
        match outcome {
            Acted::Now { state, .. } => {
                if state.is_settled() {
                    self.watchers.settled(&id);
                }
                TaskActionResult { id, state: Some(state), error: None }
            }
            Acted::WrongState(state) => {
                let hint = match action {
                    TaskAction::Cancel => "it is finished",
                    TaskAction::Retry if state == TaskState::Leased => {
                        "a worker has it; cancel it first, or wait for the end of its lease"
                    }
                    TaskAction::Retry => "it has succeeded; enqueue new work under a new id",
                };
                let problem = Problem::new(ErrorCode::WrongState, format!("`{id}` is {state}: {hint}"));
                TaskActionResult { id, state: Some(state), error: Some(problem) }
            }
            Acted::Unreadable => {
                let error = Some(unreadable(&id));
                TaskActionResult { id, state: None, error }
            }
            Acted::Unknown => {
                let error = Some(unknown(&id));
                TaskActionResult { id, state: None, error }
            }
        }
    }

    /// Every agent known.
    pub async fn agents(&self) -> Result<Vec<AgentView>> {
        self.store.agents().await.map_err(unavailable)
    }

    /// Whether the store can write now.
    pub async fn ready(&self) -> Result<()> {
        self.store.check().await.map_err(unavailable)
    }
}
