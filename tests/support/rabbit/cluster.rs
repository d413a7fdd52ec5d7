//! Three nodes that are joined.
//!
//! The first starts alone, and the others join it while they start. All at once they would take each other's locks and
//! wait for their turn longer than the first one takes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::epmd::Epmd;
use super::node::RabbitOptions;
use super::server::{RabbitServer, cookie, name};
use crate::support::wait::eventually;

const NODES: usize = 3;
/// An election takes less than a second, on a machine that is not too busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// For a question that is asked again: one to a suspended node must not hold up the others.
const GLANCE: Duration = Duration::from_secs(2);

/// A cluster of three nodes that ends with the test. Nodes are told by their index.
pub struct RabbitCluster {
    nodes: Vec<RabbitServer>,
}

impl RabbitCluster {
    pub async fn start() -> Self {
        Self::with(RabbitOptions::default()).await
    }

    /// Each node with these options.
    pub async fn with(options: RabbitOptions) -> Self {
        let epmd = Arc::new(Epmd::start().await);
        let cookie = cookie();
        let first = RabbitServer::named(&name(0), Arc::clone(&epmd), &cookie, &options).await;
        let others = join_all((1..NODES).map(|index| {
            let options = options
                .clone()
                .set("cluster_formation.peer_discovery_backend", "classic_config")
                .set("cluster_formation.classic_config.nodes.1", &name(0))
                .set("cluster_formation.classic_config.nodes.2", &name(index))
                // Each time it waits for some seconds at most: a busy machine needs more than the default 10.
                .set("cluster_formation.internal_lock_retries", "100");
            let (epmd, cookie) = (Arc::clone(&epmd), &cookie);
            async move { RabbitServer::named(&name(index), epmd, cookie, &options).await }
        }))
        .await;
        let cluster = Self { nodes: [first].into_iter().chain(others).collect() };
        cluster.until_healthy().await;
        cluster
    }

    /// The nodes, to suspend or ask.
    pub fn nodes(&self) -> &[RabbitServer] {
        &self.nodes
    }

    /// What clients connect to, one a node.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RabbitServer::url).collect()
    }

    /// kill -9.
    pub fn kill(&mut self, index: usize) {
        self.nodes[index].kill();
    }

    /// Starts a killed node again, on the same port and files. Of a cluster that was killed as a whole, the node that
    /// was killed last must come first: the others wait for it.
    pub async fn restart(&mut self, index: usize) {
        self.nodes[index].restart().await;
    }

    /// The node that leads a quorum queue; waits while there is none.
    pub async fn leader_of(&self, vhost: &str, queue: &str) -> usize {
        let question = format!(
            "{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{vhost}\">>, queue, <<\"{queue}\">>)), \
             {{Name, _}} = amqqueue:get_pid(Queue), \
             {{ok, _, {{_, Leader}}}} = ra:members({{Name, node()}}, 1000), Leader."
        );
        let what = format!("{queue} has a leader");
        let (leader, _) = eventually(&what, PATIENCE, async || {
            // Only a leader that is alive says so: who asks a dead one's follower gets an error.
            let answers = self.answers(&question).await;
            let leader = answers.into_iter().flatten().next()?;
            self.nodes.iter().position(|node| node.name() == leader)
        })
        .await;
        leader
    }

    /// Waits until every node sees all of them at work, and says how long that was.
    pub async fn until_healthy(&self) -> Duration {
        let question = "{rabbit_boot_state:get(), length(rabbit_mnesia:cluster_nodes(running))}.";
        let healthy = format!("{{ready, {NODES}}}");
        let (_, took) = eventually("all nodes see all of them", PATIENCE, async || {
            let answers = self.answers(question).await;
            answers.iter().all(|answer| answer.as_ref() == Some(&healthy)).then_some(())
        })
        .await;
        took
    }

    /// What each node says now.
    async fn answers(&self, question: &str) -> Vec<Option<String>> {
        let asked = self.nodes.iter().map(|node| async {
            timeout(GLANCE, node.try_evaluate(question)).await.ok().and_then(Result::ok)
        });
        join_all(asked).await
    }
}
