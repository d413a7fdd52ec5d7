//! Which queues are paused, as each shard shows it to claims.
//!
//! The truth is written once, with the queues; a claim runs within its shard, so each has a copy, and beside it the change
//! that the copy shows. Whoever finds a shard that shows something else writes it anew, if the shard still shows the
//! change that it did before the truth was read: then nobody who knew a later truth was there in between, and what a pause
//! or a resumption has written is never undone by somebody who was slower. Changes are never repeated, so that holds also
//! where a failover takes the truth or a shard back.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::{Value, cmd};

use super::Inner;
use super::queues::Book;
use super::reply::{integer, text, texts};
use super::scripts::SHOW_PAUSES;
use super::transition::TRIES;
use crate::store::{Result, StoreError};

/// How often to look whether shards show the truth.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a shard shows.
struct Shown {
    /// The change, as it is written; empty where none is.
    change: String,
    paused: HashSet<String>,
}

/// Mends what shards show until the store is closed.
pub(super) async fn mend(store: Weak<Inner>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(store) = store.upgrade() else { return };
        if let Err(error) = store.mend_pauses().await {
            tracing::debug!(%error, "cannot look which queues are paused in every shard");
        }
    }
}

impl Inner {
    /// Makes every shard show which queues are paused.
    pub async fn show_pauses(&self) -> Result<()> {
        for _ in 0..TRIES {
            if self.mend_pauses().await? {
                return Ok(());
            }
        }
        Err(StoreError::Unavailable(format!("queues were paused and resumed {TRIES} times meanwhile")))
    }

    /// Looks at every shard once, and mends it. False: somebody else was there in between. A shard that does not answer
    /// does not hold up the others.
    async fn mend_pauses(&self) -> Result<bool> {
        let shards = || 0..self.keys.shards();
        let shown = futures_util::future::join_all(shards().map(|shard| self.shown(shard))).await;
        // After that, for the reason given above.
        self.refresh_book().await?;
        let book = self.books.get();
        let mending = shards().zip(shown).map(|(shard, shown)| self.mend(shard, shown, &book));
        let mended = futures_util::future::join_all(mending).await;
        if mended.iter().any(|mended| matches!(mended, Ok(Mended::Now))) {
            // What shards answered before says nothing now; here and elsewhere, where they are asked again.
            self.due.clear();
            let news = format!("{} !queues", self.origin);
            // A hint: where it is lost they look all the same.
            let _ = self.link.publish(&self.keys.channel(), news.as_bytes()).await;
        }
        let mended = mended.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(!mended.contains(&Mended::ByAnother))
    }

    async fn shown(&self, shard: u16) -> Result<Shown> {
        let change = self.link.query(cmd("GET").arg(self.keys.of_shard(shard, "shown"))).await?;
        let change = match &change {
            Value::Nil => String::new(),
            change => text(change)?.to_owned(),
        };
        let paused = self.link.query(cmd("SMEMBERS").arg(self.keys.of_shard(shard, "p"))).await?;
        Ok(Shown { change, paused: texts(&paused)?.into_iter().collect() })
    }

    async fn mend(&self, shard: u16, shown: Result<Shown>, book: &Arc<Book>) -> Result<Mended> {
        let (shown, change) = (shown?, book.change.to_string());
        let paused = || book.queues.iter().filter(|(_, queue)| queue.paused).map(|(name, _)| name.as_str());
        let same = shown.paused.len() == paused().count() && paused().all(|name| shown.paused.contains(name));
        if same && shown.change == change {
            return Ok(Mended::Not);
        }
        let mut call = SHOW_PAUSES.on(self.keys.shard(shard));
        call.arg(self.time.argument()).arg(shown.change).arg(change);
        for name in paused() {
            call.arg(name);
        }
        match integer(&self.link.write(call).await?)? {
            0 => Ok(Mended::ByAnother),
            _ if same => Ok(Mended::Not),
            _ => Ok(Mended::Now),
        }
    }
}

/// What was done to a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mended {
    /// Its queues were paused as they should be.
    Not,
    /// It shows the truth now.
    Now,
    /// Somebody else wrote what it shows since it was looked at.
    ByAnother,
}
