//! Breakers: looking at those of all agents, and what operators do to them. The breakers themselves are the workers'.

use redrive_shared::error::{ErrorCode, Problem, suggest};
use redrive_shared::limits::{BREAKER_COMMANDS_MAX, HEARTBEAT_INTERVAL_MS};
use redrive_shared::wire::{
    AgentStatus, AgentView, BreakerCommand, BreakerCommandRequest, BreakerView, OWN_BREAKER,
};

use super::{Engine, Result, check, unavailable};
use crate::store::{CommandBreaker, LostAttempt, Reaped};

impl Engine {
    /// Every breaker that agents report, and those that commands stand for.
    pub async fn breakers(&self) -> Result<Vec<BreakerView>> {
        let agents = self.store.agents().await.map_err(unavailable)?;
        Ok(agents.iter().flat_map(views).collect())
    }

    /// Gives a command to a breaker of an agent that is there. Its worker hears of it with its next heartbeat.
    pub async fn command_breaker(&self, request: BreakerCommandRequest) -> Result<BreakerCommand> {
        check::reason(request.reason.as_deref())?;
        let agents = self.store.agents().await.map_err(unavailable)?;
        let breaker = find(&agents, &request, self.clock.now_ms())?;
        let BreakerCommandRequest { agent, action, reason, dependency: _ } = request;
        let wanted = CommandBreaker { agent, breaker, action, reason };
        let given = self.store.command_breaker(wanted.clone()).await.map_err(unavailable)?;
        tracing::info!(agent = %wanted.agent, breaker = %wanted.breaker, %action, "a person commands a breaker");
        given.ok_or_else(|| {
            let detail = format!(
                "{BREAKER_COMMANDS_MAX} breakers of agent `{0}` are isolated, and it can have no more; isolate the agent \
                 itself, or close some: `redrive breakers close {0} --dependency …`",
                wanted.agent
            );
            Problem::new(ErrorCode::Overloaded, detail).retry_after_ms(HEARTBEAT_INTERVAL_MS)
        })
    }

    /// Workers vanished in the middle of tasks, with their breakers: those of the agents' other runs are told.
    pub(crate) async fn tell_breakers_of_lost(&self, reaped: &[Reaped]) {
        let started = reaped.iter().filter(|task| task.started);
        let lost: Vec<LostAttempt> = started
            .filter_map(|task| {
                let Reaped { boot_id, dependency, .. } = task.clone();
                Some(LostAttempt { agent: task.agent.clone()?, boot_id, dependency })
            })
            .collect();
        if lost.is_empty() {
            return;
        }
        if let Err(error) = self.store.count_lost(lost).await {
            tracing::warn!(%error, "breakers of agents whose workers vanished do not hear of it");
        }
    }
}

/// The key of the breaker that is meant, if it is one of an agent that can be told.
fn find(agents: &[AgentView], request: &BreakerCommandRequest, now_ms: i64) -> Result<String> {
    let runs: Vec<&AgentView> = agents.iter().filter(|agent| agent.agent == request.agent).collect();
    let Some(last) = runs.first() else { return Err(unknown_agent(agents, request)) };
    if runs.iter().all(|run| run.status == AgentStatus::Gone) {
        let silent_s = now_ms.saturating_sub(last.seen_at_ms).max(0) / 1_000;
        let detail = format!(
            "agent `{}` is gone: it was last heard from {silent_s} s ago, and nobody would carry this out; its next start \
             begins with closed breakers, but for those that stay isolated by an earlier command",
            last.agent
        );
        return Err(Problem::new(ErrorCode::UnknownAgent, detail).at("agent"));
    }
    let Some(dependency) = &request.dependency else { return Ok(OWN_BREAKER.to_owned()) };
    let of_run = |run: &&AgentView| {
        let commanded = run.breaker_commands.iter().map(|command| command.breaker.clone());
        run.breakers.keys().cloned().chain(commanded).collect::<Vec<String>>()
    };
    let known: Vec<String> = runs.iter().flat_map(of_run).filter(|key| key != OWN_BREAKER).collect();
    if known.iter().any(|key| *key == **dependency) {
        return Ok(dependency.to_string());
    }
    let hint = suggest(dependency, known.iter().map(String::as_str)).map_or_else(
        || {
            "`redrive breakers` lists those that it has; one begins with the first task that needs it"
                .to_owned()
        },
        |near| format!("did you mean `{near}`?"),
    );
    let detail = format!("agent `{}` reports no breaker of dependency `{dependency}`; {hint}", request.agent);
    Err(Problem::new(ErrorCode::UnknownBreaker, detail).at("dependency"))
}

fn unknown_agent(agents: &[AgentView], request: &BreakerCommandRequest) -> Problem {
    let hint = suggest(&request.agent, agents.iter().map(|agent| agent.agent.as_str())).map_or_else(
        || "`redrive agents list` has those that are known".to_owned(),
        |near| format!("did you mean `{near}`?"),
    );
    Problem::new(ErrorCode::UnknownAgent, format!("there is no agent `{}`; {hint}", request.agent))
        .at("agent")
}

/// The breakers of one run: its own first.
fn views(agent: &AgentView) -> Vec<BreakerView> {
    let commands = &agent.breaker_commands;
    let unreported = commands.iter().map(|command| &command.breaker);
    let unreported = unreported.filter(|key| !agent.breakers.contains_key(*key));
    let mut keys: Vec<&String> = agent.breakers.keys().chain(unreported).collect();
    keys.sort_by_key(|key| (*key != OWN_BREAKER, *key));
    keys.into_iter()
        .map(|key| {
            let snapshot = agent.breakers.get(key).copied();
            let command = commands.iter().find(|command| command.breaker == *key).cloned();
            BreakerView {
                agent: agent.agent.clone(),
                boot_id: agent.boot_id.clone(),
                status: agent.status,
                breaker: key.clone(),
                snapshot,
                seen_at_ms: agent.seen_at_ms,
                pending: command.as_ref().is_some_and(|command| !command.is_done(snapshot.as_ref())),
                command,
            }
        })
        .collect()
}
