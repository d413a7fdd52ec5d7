//! The current connection to the store, kept by one task.
//!
//! ```text
//!          connected                    a caller or a check finds it broken, hung or demoted
//!  Down ───────────────▶ Up ─────────────────────────────────────────────────────────────────▶ Down
//!   └─ could not connect: wait, longer each time
//! ```
//!
//! Callers never connect: they take what is there or wait for it, each until its own deadline. So a thousand callers make
//! one connection. Whoever sees a sign of trouble names the generation it saw it on; signs about an earlier one are void.
//!
//! A cluster stays up while its connection is replaced: trouble with one shard must not stop the others.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use redrive_link::address::show;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::dial::{Dialer, OnPush, Wire, check_master};
use super::fault;
use super::pool::Pool;
use super::sentinel::Sentinels;
use crate::store::StoreError;
use crate::store::redis::address::Kind;

/// Waiting between attempts to connect: about this at first, twice as long each time, at most that.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// How often the master is asked whether it still is one, and Sentinels whether they have another: a master that was cut
/// off from them does not know that it was replaced, and would take writes that are lost when it comes back.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// One connection to the store, or what serves as one.
pub(super) struct Route {
    /// Where it leads, for messages.
    pub(super) at: Arc<str>,
    /// The master's host and port. None for a cluster, which has several.
    pub(super) host: Option<(String, u16)>,
    /// Takes the calls.
    pub(super) wire: Wire,
    /// Take writes that wait for replicas. Empty when none do.
    pub(super) writers: Pool,
    /// Counts connections.
    pub(super) generation: u64,
}

#[derive(Clone)]
enum State {
    /// With what the last attempt said.
    Down(Option<Arc<str>>),
    Up(Arc<Route>),
}

/// Where callers find the current connection.
pub(super) struct Seat {
    state: watch::Receiver<State>,
    suspect: watch::Sender<u64>,
    hosts: String,
    _keeper: AbortOnDropHandle<()>,
}

impl Seat {
    /// Starts to connect.
    pub(super) fn new(dialer: Arc<Dialer>) -> Self {
        let (state, watched) = watch::channel(State::Down(None));
        let suspect = watch::Sender::new(0);
        let hosts = dialer.address.hosts();
        let sentinels = Sentinels::new(&dialer.address.nodes);
        let keeper = Keeper { dialer, sentinels, state, suspect: suspect.clone(), generation: 0 };
        Self { state: watched, suspect, hosts, _keeper: AbortOnDropHandle::new(tokio::spawn(keeper.run())) }
    }

    /// The current connection.
    ///
    /// # Errors
    /// When there is none until the deadline: what the last attempt to connect said.
    pub(super) async fn route(&self, deadline: Instant) -> Result<Arc<Route>, StoreError> {
        if let State::Up(route) = &*self.state.borrow() {
            return Ok(Arc::clone(route));
        }
        let mut state = self.state.clone();
        let is_up = |state: &State| matches!(state, State::Up(_));
        if let Ok(Ok(found)) = tokio::time::timeout_at(deadline, state.wait_for(is_up)).await
            && let State::Up(route) = &*found
        {
            return Ok(Arc::clone(route));
        }
        let said = match &*self.state.borrow() {
            State::Down(Some(said)) => said.to_string(),
            State::Down(None) | State::Up(_) => format!("{} cannot be reached", self.hosts),
        };
        Err(StoreError::Unavailable(said))
    }

    /// The address's hosts, for messages.
    pub(super) fn hosts(&self) -> &str {
        &self.hosts
    }

    /// Says that a connection looks broken, hung or demoted.
    pub(super) fn suspect(&self, generation: u64) {
        raise(&self.suspect, generation);
    }

    /// Returns when a connection is no longer the current one.
    pub(super) async fn changed_from(&self, generation: u64) {
        let mut state = self.state.clone();
        let other = |state: &State| !matches!(state, State::Up(route) if route.generation == generation);
        // An error means that the keeper is gone, which is a change as well.
        let _ = state.wait_for(other).await;
    }
}

fn raise(suspect: &watch::Sender<u64>, generation: u64) {
    suspect.send_if_modified(|seen| {
        let later = generation > *seen;
        *seen = generation.max(*seen);
        later
    });
}

/// The task behind a seat.
struct Keeper {
    dialer: Arc<Dialer>,
    sentinels: Sentinels,
    state: watch::Sender<State>,
    suspect: watch::Sender<u64>,
    generation: u64,
}

impl Keeper {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut told = Told::default();
        loop {
            self.generation += 1;
            match self.connect().await {
                Ok(route) => {
                    tracing::info!(at = %route.at, "connected to the store");
                    told = Told::default();
                    let (since, route) = (Instant::now(), Arc::new(route));
                    self.state.send_replace(State::Up(Arc::clone(&route)));
                    let why = self.until_trouble(&route).await;
                    tracing::warn!(at = %route.at, why, "the store's connection is replaced");
                    if !self.is_cluster() {
                        self.state.send_replace(State::Down(None));
                    }
                    if since.elapsed() >= LONGEST_WAIT {
                        backoff = Backoff::default();
                        continue;
                    }
                }
                Err(error) => {
                    let said = fault::text(error);
                    if told.is_news(&said) {
                        tracing::warn!(error = said, "cannot connect to the store; trying until it works");
                    }
                    self.state.send_if_modified(|state| {
                        let down = matches!(state, State::Down(_));
                        if down {
                            *state = State::Down(Some(said.into()));
                        }
                        down
                    });
                }
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    fn is_cluster(&self) -> bool {
        self.dialer.address.kind == Kind::Cluster
    }

    async fn connect(&mut self) -> Result<Route, StoreError> {
        match &self.dialer.address.kind {
            Kind::Cluster => self.connect_cluster().await,
            Kind::Single => {
                let host = self.dialer.address.nodes.first().cloned();
                let (host, port) =
                    host.ok_or_else(|| StoreError::Unavailable("the address has no host".to_owned()))?;
                self.connect_master(host, port).await
            }
            Kind::Sentinel { .. } => {
                let known = self.sentinels.master(&self.dialer, self.dialer.options.connect_timeout).await?;
                self.connect_master(known.host, known.port).await
            }
        }
    }

    async fn connect_master(&self, host: String, port: u16) -> Result<Route, StoreError> {
        let at: Arc<str> = show(&host, port).into();
        let limit = self.dialer.options.connect_timeout;
        let connecting = async {
            let one = || self.dialer.master(&host, port, Some(self.on_push()));
            let wire = one().await?;
            let writers =
                futures_util::future::try_join_all((0..self.dialer.options.writers()).map(|_| one())).await?;
            Ok::<_, StoreError>((Wire::Node(wire), Pool::new(writers.into_iter().map(Wire::Node).collect())))
        };
        let (wire, writers) =
            tokio::time::timeout(limit, connecting).await.map_err(|_| fault::late(&at, limit))??;
        Ok(Route { at, host: Some((host, port)), wire, writers, generation: self.generation })
    }

    async fn connect_cluster(&self) -> Result<Route, StoreError> {
        let at: Arc<str> = format!("cluster {}", self.dialer.address.hosts()).into();
        let options = &self.dialer.options;
        let connecting = async {
            let wire = self.dialer.cluster(options.response_timeout).await?;
            let longer = options.response_timeout + options.wait_timeout;
            let writers = (0..options.writers()).map(|_| self.dialer.cluster(longer));
            let writers = futures_util::future::try_join_all(writers).await?;
            Ok((Wire::Cluster(wire), Pool::new(writers.into_iter().map(Wire::Cluster).collect())))
        };
        // Half of the timeout for each node, and up to three rounds of connecting: the crate visits a node that hangs
        // once as a seed and once for its slots.
        let limit = options.connect_timeout * 2;
        let (wire, writers) = tokio::time::timeout(limit, connecting)
            .await
            .map_err(|_| fault::late(&at, limit))?
            .map_err(|error| fault::explain(&at, &error))?;
        Ok(Route { at, host: None, wire, writers, generation: self.generation })
    }

    /// A connection that ends says so at once: nobody has to fail on it first.
    fn on_push(&self) -> OnPush {
        let (suspect, generation) = (self.suspect.clone(), self.generation);
        Arc::new(move |push| {
            if push.kind == redis::PushKind::Disconnection {
                raise(&suspect, generation);
            }
        })
    }

    /// Returns, with the reason, when this connection should be replaced.
    async fn until_trouble(&mut self, route: &Route) -> String {
        let mut suspect = self.suspect.subscribe();
        let suspected = suspect.wait_for(|seen| *seen >= route.generation);
        let watched = watch_master(&self.dialer, &mut self.sentinels, route);
        tokio::select! {
            _ = suspected => "it broke, did not answer, or is no longer the master's".to_owned(),
            why = watched => why,
        }
    }
}

/// Returns, with the reason, when the route leads to a master no longer.
async fn watch_master(dialer: &Dialer, sentinels: &mut Sentinels, route: &Route) -> String {
    let (Wire::Node(wire), Some((host, port))) = (&route.wire, &route.host) else {
        // The cluster's client follows its nodes; what it misses, callers find.
        return std::future::pending().await;
    };
    let mut wire = wire.clone();
    loop {
        tokio::time::sleep(WATCH_EVERY).await;
        match dialer.greet(&mut wire, &route.at).await {
            Ok(greeting) => {
                if let Err(error) = check_master(&route.at, &greeting) {
                    return fault::text(error);
                }
            }
            Err(error) => return fault::text(error),
        }
        if matches!(dialer.address.kind, Kind::Sentinel { .. })
            // While no Sentinel answers, the master that was there before them goes on.
            && let Ok(known) = sentinels.master(dialer, dialer.options.connect_timeout).await
            && (known.host != *host || known.port != *port)
        {
            return format!("the master is {} now", show(&known.host, known.port));
        }
    }
}

/// Waits that grow, with jitter, so that a fleet does not come back in step.
#[derive(Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        const MOST_DOUBLINGS: u32 = 16;
        let full = FIRST_WAIT.saturating_mul(1 << self.attempts.min(MOST_DOUBLINGS)).min(LONGEST_WAIT);
        self.attempts = self.attempts.saturating_add(1);
        full.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

/// Keeps a failure that repeats itself from filling the log.
#[derive(Default)]
pub(super) struct Told(String);

impl Told {
    /// Whether this is not what was said last.
    pub(super) fn is_news(&mut self, said: &str) -> bool {
        let news = self.0 != said;
        if news {
            said.clone_into(&mut self.0);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::{Backoff, FIRST_WAIT, LONGEST_WAIT};

    #[test]
    fn waits_grow_to_a_bound() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..40).map(|_| backoff.next()).collect();
        assert!(waits[0] >= FIRST_WAIT / 2 && waits[0] <= FIRST_WAIT, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LONGEST_WAIT), "{waits:?}");
        assert!(waits.iter().skip(6).all(|wait| *wait >= LONGEST_WAIT / 2), "{waits:?}");
    }
}
