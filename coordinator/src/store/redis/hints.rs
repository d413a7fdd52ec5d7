//! What coordinators tell each other, so that nobody waits for the next look: hints, which may be lost.
//!
//! A message is the teller's name and then either pairs of a queue and when something of it is due, in ms, or `!queues`, or
//! `!gates`, or `!locks` and the places in line that were granted.

use std::sync::{Arc, Weak};
use std::time::Duration;

use redrive_shared::id::Name;
use redrive_shared::lock::WaitId;

use super::Inner;
use super::link::{Hint as Heard, Hints};
use crate::store::Hint;

/// How often to look at what no hint has told, which is the truth.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Listens until the store is closed.
pub(super) async fn listen(store: Weak<Inner>, mut heard: Hints) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let told = tokio::select! {
            told = heard.next() => Some(told),
            _ = looks.tick() => None,
        };
        let Some(store) = store.upgrade() else { return };
        match told {
            Some(Heard::Message(message)) => hear(&store, &message).await,
            Some(Heard::Gap) => {
                store.due.clear();
                look(&store).await;
            }
            None => look(&store).await,
        }
    }
}

async fn hear(store: &Arc<Inner>, message: &[u8]) {
    let Ok(message) = std::str::from_utf8(message) else { return };
    let mut words = message.split(' ');
    if words.next().is_none_or(|origin| origin == store.origin) {
        return;
    }
    while let Some(word) = words.next() {
        if word == "!queues" {
            // What shards answered while a queue was paused, or not known, says nothing of it now.
            store.due.clear();
            look(store).await;
            return;
        }
        if word == "!locks" {
            let ids = words.by_ref().filter_map(|id| id.parse().ok().map(WaitId));
            let _ = store.hints.send(Hint::Offered(ids.collect()));
            return;
        }
        if word == "!gates" {
            let _ = store.hints.send(Hint::Gates);
            return;
        }
        let due = words.next().and_then(|due_ms| due_ms.parse::<i64>().ok());
        if let (Ok(queue), Some(due_ms)) = (Name::new(word), due) {
            store.due.announce_anywhere(&queue, due_ms);
            // Nobody listens: nobody waits.
            let _ = store.hints.send(Hint::Due { queue, due_ms });
        }
    }
}

async fn look(store: &Arc<Inner>) {
    let looked = async {
        store.ask_time().await?;
        store.refresh_book().await?;
        store.learn_gone().await
    };
    if let Err(error) = looked.await {
        tracing::debug!(%error, "cannot look at what other coordinators changed");
        return;
    }
    let _ = store.hints.send(Hint::Look);
}
