//! Opening the shared store: what was fixed at its first use is compared.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock, Weak};

use rand::RngExt;
use redis::{Value, cmd};
use redrive_shared::clock::Clock;
use redrive_shared::id::Name;
use tokio::sync::broadcast;

use super::address::{Address, Kind};
use super::batcher::Batcher;
use super::clock::{RedisClock, Time};
use super::due::Due;
use super::keys::Keys;
use super::link::{Link, LinkOptions};
use super::queues::Books;
use super::reach::Reach;
use super::reply::{maybe_integer, text};
use super::room::Room;
use super::{Inner, Ordinals, RedisStore, Shard, hints, pauses};
use crate::store::{DEFAULT_QUEUE, Result, StoreError};

/// Version of keys, values and scripts. Releases with another one refuse to start here.
const LAYOUT: i64 = 2;
/// Most shards.
pub const SHARDS_MAX: u16 = 1_024;
/// Shards of a store on one Redis: more would only make batches smaller.
const SHARDS_OF_ONE: u16 = 1;
/// Shards of a store on a cluster: enough for as many masters as most have, to spread evenly.
const SHARDS_OF_CLUSTER: u16 = 16;
/// Hints that may wait for a slow listener; beyond, it looks at everything.
const HINTS_KEPT: usize = 1_024;

/// Where the shared store is, and how it is laid out.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// Where.
    pub address: Address,
    /// What every key begins with: one Redis may hold several stores.
    pub prefix: String,
    /// Number of shards, fixed at first use. Without it: what the store has; a new one gets 1 on one Redis and 16 on a
    /// cluster.
    pub shards: Option<u16>,
    /// Time-outs, and replicas to wait for.
    pub link: LinkOptions,
    /// Share of a server's maxmemory, in percent, from which on new tasks are refused: what is left is for claims and
    /// settlements, which end in room.
    pub memory_limit_percent: u8,
}

impl RedisStore {
    /// Opens the store, and makes it at first use. `clock` replaces Redis's own: only for tests.
    ///
    /// # Errors
    /// When there is no connection, when the store was made with another number of shards or by another release, or when
    /// it cannot be written.
    pub async fn open(config: &RedisConfig, clock: Option<Arc<dyn Clock>>) -> Result<Self> {
        let link = Link::open(&config.address, config.link).await?;
        let shards = fixed(&link, config).await?;
        let keys = Keys::new(&config.prefix, shards);
        let time = clock.map_or_else(|| Time::Redis(Arc::new(RedisClock::default())), Time::Given);
        let heard = link.hints(&keys.channel());
        let number: u64 = rand::rng().random();
        let inner = Inner {
            link,
            time,
            origin: format!("{number:016x}"),
            books: Books::default(),
            held: <_>::default(),
            due: Due::new(shards),
            gone: <_>::default(),
            value_bytes: AtomicUsize::new(super::fetch::VALUE_BYTES),
            checkpoint_bytes: <_>::default(),
            room: Room::new(config.memory_limit_percent),
            reach: Reach::new(shards),
            hints: broadcast::Sender::new(HINTS_KEPT),
            shards: OnceLock::new(),
            keys,
        };
        inner.ask_time().await?;
        inner.reach.opened(inner.now_ms());
        inner.refresh_book().await?;
        inner.learn_gone().await?;
        let inner = Arc::new(inner);
        let lanes = (0..shards).map(|shard| Shard::start(&inner, shard)).collect();
        // It was empty: this is the only place that fills it.
        let _ = inner.shards.set(lanes);
        let name = Name::new(DEFAULT_QUEUE).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        inner.make_queue(&name).await?;
        let listening = tokio::spawn(hints::listen(Arc::downgrade(&inner), heard));
        let mending = tokio::spawn(pauses::mend(Arc::downgrade(&inner)));
        Ok(Self { inner, looking: [listening, mending] })
    }
}

impl Shard {
    fn start(inner: &Arc<Inner>, shard: u16) -> Self {
        Self {
            enqueue: batcher(inner, move |inner, batch| async move { inner.write_new(shard, batch).await }),
            extend: batcher(
                inner,
                move |inner, batch| async move { inner.write_extensions(shard, batch).await },
            ),
            save: batcher(
                inner,
                move |inner, batch| async move { inner.write_checkpoints(shard, batch).await },
            ),
            ordinals: Ordinals::default(),
            transition: batcher(
                inner,
                move |inner, batch| async move { inner.write_changes(shard, batch).await },
            ),
        }
    }
}

/// A batcher that does not keep the store open.
fn batcher<I, O, F>(
    inner: &Arc<Inner>,
    run: impl Fn(Arc<Inner>, Vec<I>) -> F + Copy + Send + Sync + 'static,
) -> Batcher<I, O>
where
    I: super::batcher::Item,
    O: Send + 'static,
    F: Future<Output = Result<Vec<O>>> + Send,
{
    let inner: Weak<Inner> = Arc::downgrade(inner);
    Batcher::start(move |batch| {
        let inner = inner.upgrade();
        async move {
            match inner {
                Some(inner) => run(inner, batch).await,
                None => Err(StoreError::Unavailable("the store is closed".into())),
            }
        }
    })
}

impl Inner {
    /// Which store this is: as its first coordinator that asked named it.
    pub async fn identity(&self) -> Result<String> {
        let meta = self.keys.once("meta");
        let name = format!("{:032x}", rand::rng().random::<u128>());
        self.link.query(cmd("HSETNX").arg(&meta).arg("name").arg(name)).await?;
        let name = self.link.query(cmd("HGET").arg(&meta).arg("name")).await?;
        text(&name).map(str::to_owned)
    }
}

/// What is fixed at first use.
pub(super) struct Made {
    /// The number of shards.
    pub shards: u16,
    /// Whether it is there; otherwise that is what it would be made with.
    pub found: bool,
}

/// The number of shards: what the store was made with, or what it is made with now.
async fn fixed(link: &Link, config: &RedisConfig) -> Result<u16> {
    let meta = meta(config);
    link.query(cmd("HSETNX").arg(&meta).arg("shards").arg(wanted(config))).await?;
    link.query(cmd("HSETNX").arg(&meta).arg("layout").arg(LAYOUT)).await?;
    Ok(made(link, config).await?.shards)
}

fn meta(config: &RedisConfig) -> String {
    Keys::new(&config.prefix, 1).once("meta")
}

fn wanted(config: &RedisConfig) -> u16 {
    config.shards.unwrap_or(match config.address.kind {
        Kind::Cluster => SHARDS_OF_CLUSTER,
        Kind::Single | Kind::Sentinel { .. } => SHARDS_OF_ONE,
    })
}

/// What the store was made with, compared with the configuration. Changes nothing.
///
/// # Errors
/// [`StoreError::Mismatch`] when they differ.
pub(super) async fn made(link: &Link, config: &RedisConfig) -> Result<Made> {
    let meta = meta(config);
    let layout = maybe_integer(&link.query(cmd("HGET").arg(&meta).arg("layout")).await?)?;
    if let Some(layout) = layout.filter(|layout| *layout != LAYOUT) {
        return Err(StoreError::Mismatch(format!(
            "the store `{}` has layout {layout}, this release works with layout {LAYOUT}; use the release that made it, \
             or another prefix",
            config.prefix
        )));
    }
    let (shards, found) = match link.query(cmd("HGET").arg(&meta).arg("shards")).await? {
        Value::Nil => (wanted(config), false),
        value => (text(&value)?.parse().unwrap_or(0), true),
    };
    match config.shards {
        Some(wanted) if wanted != shards => Err(StoreError::Mismatch(format!(
            "the store `{}` was made with {shards} shards, and the configuration says {wanted}; their number is fixed at \
             first use: set shards to {shards} or leave it out, or use another prefix",
            config.prefix
        ))),
        _ if shards == 0 || shards > SHARDS_MAX => {
            Err(StoreError::Corrupt(format!("{meta} has no sensible number of shards")))
        }
        _ => Ok(Made { shards, found }),
    }
}
