//! What operators do to queues: policies and their versions, pauses.

use std::collections::HashSet;

use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::id::Name;
use redrive_shared::limits::QUEUES_MAX;
use redrive_shared::wire::{QueueCreate, QueuePut, QueueVersionsReply, QueueView, QueuesPut};

use super::{Engine, Result, check, unavailable};
use crate::store::{NewPolicy, PolicyChange, PolicyPut};

impl Engine {
    /// Makes a queue or replaces its policy.
    pub async fn put_queue(
        &self,
        name: &Name,
        request: QueueCreate,
        actor: Option<Name>,
    ) -> Result<QueueView> {
        let QueueCreate { policy, version, reason } = request;
        let one = QueuePut { name: name.clone(), policy, version };
        self.change_policies(vec![one], reason, actor, |_| String::new()).await?;
        self.queue(name).await
    }

    /// Makes queues or replaces their policies: all of them or none. Answers with those queues, by name.
    pub async fn put_queues(&self, request: QueuesPut, actor: Option<Name>) -> Result<Vec<QueueView>> {
        check::batch("queues", request.queues.len())?;
        let mut names = HashSet::new();
        for (place, queue) in request.queues.iter().enumerate() {
            if !names.insert(queue.name.clone()) {
                let detail = format!("`{}` is there a second time; send each queue once", queue.name);
                let problem = Problem::new(ErrorCode::InvalidValue, detail);
                return Err(problem.at(format!("queues[{place}].name")));
            }
        }
        let at = |place| format!("queues[{place}].");
        self.change_policies(request.queues, request.reason, actor, at).await?;
        let mut queues = self.queues().await?;
        queues.retain(|queue| names.contains(&queue.name));
        Ok(queues)
    }

    /// `at` is what stands before the places of a queue's fields in the request.
    async fn change_policies(
        &self,
        queues: Vec<QueuePut>,
        reason: Option<String>,
        actor: Option<Name>,
        at: impl Fn(usize) -> String,
    ) -> Result<()> {
        check::policy_reason(reason.as_deref())?;
        for (place, queue) in queues.iter().enumerate() {
            queue.policy.validate().map_err(|error| {
                Problem::new(ErrorCode::InvalidPolicy, error.to_string()).at(at(place) + "policy")
            })?;
        }
        let made = queues.iter().filter(|queue| !self.store.has_queue(&queue.name)).count();
        if made > 0 && self.store.queue_names().len() + made > QUEUES_MAX {
            let detail = format!("there can be up to {QUEUES_MAX} queues; use groups to tell tenants apart");
            return Err(Problem::new(ErrorCode::InvalidValue, detail));
        }
        let names: Vec<Name> = queues.iter().map(|queue| queue.name.clone()).collect();
        let new = |QueuePut { name, policy, version }| NewPolicy { queue: name, policy, version };
        let queues = queues.into_iter().map(new).collect();
        let change = PolicyChange { queues, actor, reason };
        match self.store.put_queues(change).await.map_err(unavailable)? {
            PolicyPut::Done => {
                // What groups may spend may have changed.
                self.gates.look();
                Ok(())
            }
            PolicyPut::Conflict(conflicts) => {
                let first = conflicts.first().and_then(|(name, _)| names.iter().position(|n| n == name));
                Err(conflict(&conflicts).at(at(first.unwrap_or(0)) + "version"))
            }
        }
    }

    pub(super) async fn make_queue(&self, name: &Name) -> Result<()> {
        tracing::info!(queue = %name, "made a queue that was named and did not exist");
        self.store.make_queue(name).await.map_err(unavailable)
    }

    /// How a queue's policy came about.
    pub async fn queue_versions(&self, name: &Name) -> Result<QueueVersionsReply> {
        let versions = self.store.policy_versions(name).await.map_err(unavailable)?;
        if versions.is_empty() && !self.is_queue(name).await? {
            return Err(self.unknown_queue(name));
        }
        Ok(QueueVersionsReply { name: name.clone(), versions })
    }

    /// One queue.
    pub async fn queue(&self, name: &Name) -> Result<QueueView> {
        match self.queues().await?.into_iter().find(|queue| queue.name == *name) {
            Some(queue) => Ok(queue),
            None => Err(self.unknown_queue(name)),
        }
    }

    /// Every queue.
    pub async fn queues(&self) -> Result<Vec<QueueView>> {
        let mut queues = self.store.queues().await.map_err(unavailable)?;
        let now_ms = self.clock.now_ms();
        for queue in &mut queues {
            queue.amplification = self.amplification.of(&queue.name, now_ms);
        }
        Ok(queues)
    }

    /// Stops or resumes handing out a queue's tasks.
    pub async fn pause(&self, name: &Name, paused: bool) -> Result<QueueView> {
        if !self.store.pause(name, paused).await.map_err(unavailable)? {
            return Err(self.unknown_queue(name));
        }
        if !paused {
            self.dispatcher.wake_all();
        }
        self.queue(name).await
    }
}

fn conflict(conflicts: &[(Name, u64)]) -> Problem {
    const NAMED_MAX: usize = 10;
    let at = |(name, version): &(Name, u64)| format!("`{name}` is at version {version} by now");
    let mut named: Vec<String> = conflicts.iter().take(NAMED_MAX).map(at).collect();
    if conflicts.len() > NAMED_MAX {
        named.push(format!("{} more have changed", conflicts.len() - NAMED_MAX));
    }
    let detail = format!(
        "{}, and the change was made from another; nothing was changed: look at what is in force, and make the change from that",
        named.join(", ")
    );
    Problem::new(ErrorCode::VersionConflict, detail)
}
