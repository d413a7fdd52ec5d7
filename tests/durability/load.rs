//! The load that is recorded, and what it says it was told.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use redrive_coordinator::store::sqlite::SqliteStore;
use redrive_coordinator::store::{Acted, Claim, Ending, Enqueued, Settled, Store};
use redrive_shared::clock::SystemClock;
use redrive_shared::failure::FailureClass;
use redrive_shared::task::{TaskState, TaskView};
use tokio::task::JoinSet;

use crate::support::{EnqueueExt, claim_of, failure, fixed_policy, name, raw, settle_of, task};

/// Names the directory to load; without it there is nothing to do.
pub const LOAD_VARIABLE: &str = "REDRIVE_TEST_LOAD";
/// The test that is the load.
pub const NAME: &str = "durability::load::the_load_runs_where_it_is_asked_for";
/// The store's directory, made by the store itself.
pub const DATA_DIR: &str = "new/data";
/// Where acknowledgements are written, beside the store's directory.
pub const ACKS: &str = "acks";

/// Callers at a time, so that commits have several verbs in them.
const CALLERS: usize = 5;
/// Rounds of each caller, per opening of the store.
const ROUNDS: usize = 14;

/// What a caller was told about a task. Whatever happens to the task later raises its epoch.
#[derive(Debug)]
pub enum Ack {
    Exists { id: String },
    Leased { id: String, epoch: i64 },
    Settled { id: String, epoch: i64, state: String },
    Final { id: String, state: String },
}

impl Ack {
    pub fn parse(line: &str) -> Self {
        let words: Vec<&str> = line.split_whitespace().collect();
        match *words.as_slice() {
            ["exists", id] => Self::Exists { id: id.into() },
            ["leased", id, epoch] => Self::Leased { id: id.into(), epoch: epoch.parse().unwrap() },
            ["settled", id, epoch, state] => {
                Self::Settled { id: id.into(), epoch: epoch.parse().unwrap(), state: state.into() }
            }
            ["final", id, state] => Self::Final { id: id.into(), state: state.into() },
            _ => panic!("not an acknowledgement: {line}"),
        }
    }

    pub fn assert_kept(&self, known: &HashMap<String, TaskView>, moment: &str) {
        let (Self::Exists { id }
        | Self::Leased { id, .. }
        | Self::Settled { id, .. }
        | Self::Final { id, .. }) = self;
        let view = known.get(id).unwrap_or_else(|| panic!("{moment}: {self:?}, and the task is gone"));
        let kept = match self {
            Self::Exists { .. } => true,
            Self::Leased { epoch, .. } => view.epoch >= *epoch,
            Self::Settled { epoch, state, .. } => {
                view.epoch > *epoch || (view.epoch == *epoch && view.state.as_str() == state)
            }
            Self::Final { state, .. } => view.state.as_str() == state,
        };
        assert!(kept, "{moment}: {self:?}, but it is {} at epoch {}", view.state, view.epoch);
    }
}

/// Not a test by itself: the process that `strace` watches. Anywhere else it does nothing.
#[tokio::test]
async fn the_load_runs_where_it_is_asked_for() {
    let Some(directory) = std::env::var_os(LOAD_VARIABLE) else { return };
    let directory = Path::new(&directory);
    let acks = Arc::new(File::create(directory.join(ACKS)).unwrap());
    // Twice: closing deletes the log, and the next opening makes a new one.
    for opening in 0..2 {
        let store = Arc::new(SqliteStore::open(&directory.join(DATA_DIR), Arc::new(SystemClock)).unwrap());
        store.put_queue(&name("default"), fixed_policy(0)).await.unwrap();
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let (store, acks) = (Arc::clone(&store), Arc::clone(&acks));
            callers.spawn(async move {
                for round in 0..ROUNDS {
                    one_round(&store, &acks, &format!("{opening}-{caller}-{round}")).await;
                }
            });
        }
        while let Some(done) = callers.join_next().await {
            done.unwrap();
        }
    }
}

/// One write is one record: nobody says more than he was told.
fn say(mut acks: &File, line: &str) {
    acks.write_all(line.as_bytes()).unwrap();
}

async fn one_round(store: &SqliteStore, acks: &File, round: &str) {
    // Large enough for the log to be written back and begun again a few times.
    let payload = format!("\"{}\"", round.repeat(400));
    let tasks: Vec<_> = (0..3).map(|number| task(&format!("{round}-{number}")).payload(&payload)).collect();
    let ids: Vec<_> = tasks.iter().map(|task| task.id.clone()).collect();
    for (id, answer) in ids.iter().zip(store.enqueue(tasks).await.unwrap()) {
        assert!(matches!(answer, Enqueued::Created { .. }));
        say(acks, &format!("exists {id}"));
    }
    let claim = Claim { lease_ms: Some(3_600_000), ..claim_of(3) };
    let leases = store.claim(vec![claim], &[]).await.unwrap().remove(0).leases;
    for lease in &leases {
        say(acks, &format!("leased {} {}", lease.id, lease.epoch));
    }
    let endings = [
        Ending::Done(Some(raw("{}").into())),
        Ending::Failed(failure(FailureClass::ServerError)),
        Ending::Snoozed { delay_ms: 1 },
    ];
    let settlements: Vec<_> =
        leases.iter().zip(endings).map(|(lease, ending)| settle_of(lease, ending)).collect();
    for (lease, answer) in leases.iter().zip(store.settle(settlements).await.unwrap()) {
        if let Settled::Applied { state, .. } = answer {
            say(acks, &format!("settled {} {} {state}", lease.id, lease.epoch));
        }
    }
    if let Acted::Now { state: TaskState::Cancelled, .. } =
        store.cancel(vec![ids[2].clone()], None).await.unwrap()[0]
    {
        say(acks, &format!("final {} cancelled", ids[2]));
    }
}
