//! Checkpoints: what was saved under a lease comes with the next, and nobody else saves.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redrive_coordinator::store::{CheckpointSaved, Claim, Ending, SaveCheckpoint, Settled};
use redrive_shared::blob::Content;
use redrive_shared::checkpoint::{Checkpoint, Progress, Refused, STATES_MAX_BYTES, STEPS_MAX, Saved};
use redrive_shared::failure::FailureClass;
use redrive_shared::lifecycle::Fence;
use redrive_shared::task::{Lease, Nonce, TaskState};

use crate::support::{
    Bed, EnqueueExt, blob, checkpoint, claim_of, failure, fence, id, name, raw, save_of, task,
};

/// The default retention.
const RETENTION_MS: i64 = 48 * 3_600_000;

fn saved() -> CheckpointSaved {
    CheckpointSaved::Saved { queue: name("default") }
}

async fn save(bed: &Bed, lease: &Lease, checkpoint: Checkpoint) -> CheckpointSaved {
    let mut answers = bed.save_checkpoints(vec![save_of(lease, checkpoint)]).await.unwrap();
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

async fn progress(bed: &Bed, task: &str) -> Progress {
    bed.progress(&id(task)).await.unwrap().unwrap_or_else(|| panic!("{task} is known"))
}

fn text(progress: &Progress) -> String {
    serde_json::to_string(progress).unwrap()
}

/// The next lease of the one task, which was handed back.
async fn next_lease(bed: &Bed, lease: &Lease) -> Lease {
    bed.finish(lease, Ending::Snoozed { delay_ms: 0 }).await;
    bed.take_one().await
}

pub async fn what_was_saved_comes_with_the_next_lease(bed: Bed) {
    let first = bed.put_and_take(task("t")).await;
    assert!(first.checkpoint.is_none());
    assert!(progress(&bed, "t").await.is_empty());
    let pending = Some(vec![name("write"), name("send")]);
    let fetched =
        Checkpoint { state: Some(raw("{ \"n\" : 1.0 }").into()), pending, ..checkpoint(1, "fetch") };
    assert_eq!(save(&bed, &first, fetched).await, saved());
    bed.advance(5);
    let half = Checkpoint { completed: false, ..checkpoint(3, "write") };
    assert_eq!(save(&bed, &first, half).await, saved());
    let shown = progress(&bed, "t").await;
    assert_eq!((shown.seq, &shown.pending), (3, &vec![name("write"), name("send")]));
    assert_eq!(shown.step("fetch").unwrap().state.as_ref().unwrap().get(), "{ \"n\" : 1.0 }");
    assert_eq!(shown.saved_at_ms(), Some(bed.now_ms()));
    assert!(shown.completed("write").is_none() && shown.step("write").is_some());

    let second = next_lease(&bed, &first).await;
    assert_eq!(text(&second.checkpoint.clone().unwrap()), text(&shown));
    assert_eq!(save(&bed, &second, checkpoint(4, "write")).await, saved());
    bed.start(&second).await;
    bed.finish(&second, Ending::Failed(failure(FailureClass::ServerError))).await;
    bed.advance(10_000);
    let third = bed.take_one().await;
    let shown = progress(&bed, "t").await;
    assert_eq!(text(&third.checkpoint.clone().unwrap()), text(&shown));
    assert_eq!((shown.seq, shown.pending, shown.steps.len()), (4, vec![name("send")], 2));
    // Lost with its worker.
    bed.start(&third).await;
    bed.advance(31_000);
    assert_eq!(bed.reap(1).await.unwrap().reaped.len(), 1);
    bed.advance(600_000);
    let fourth = bed.take_one().await;
    assert_eq!(fourth.checkpoint.unwrap().seq, 4);
}

pub async fn numbers_only_rise_and_a_repeat_changes_nothing(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    let five = || Checkpoint { state: Some(raw("[5]").into()), ..checkpoint(5, "a") };
    assert_eq!(save(&bed, &lease, five()).await, saved());
    let before = text(&progress(&bed, "t").await);
    bed.advance(1_000);
    assert_eq!(save(&bed, &lease, five()).await, CheckpointSaved::Repeated);
    let behind = CheckpointSaved::Refused(Refused::Behind { last: 5 });
    for other in [
        checkpoint(4, "b"),
        checkpoint(5, "b"),
        checkpoint(5, "a"),
        Checkpoint { state: Some(raw("[6]").into()), ..checkpoint(5, "a") },
        Checkpoint { completed: false, ..five() },
    ] {
        assert_eq!(save(&bed, &lease, other).await, behind);
    }
    assert_eq!(text(&progress(&bed, "t").await), before);
    let next = next_lease(&bed, &lease).await;
    assert_eq!(save(&bed, &next, five()).await, CheckpointSaved::Repeated);
    assert_eq!(save(&bed, &next, checkpoint(6, "a")).await, saved());
    let last = progress(&bed, "t").await;
    assert!(last.steps.len() == 1 && last.steps[0].state.is_none(), "the last one stands: {last:?}");
    assert_eq!(save(&bed, &next, five()).await, CheckpointSaved::Refused(Refused::Behind { last: 6 }));
}

pub async fn only_the_lease_that_holds_saves(bed: Bed) {
    let first = bed.put_and_take(task("t")).await;
    assert_eq!(save(&bed, &first, checkpoint(1, "a")).await, saved());
    let (held, one) = (CheckpointSaved::Stale(TaskState::Leased), || checkpoint(2, "b"));
    for forged in [
        Fence { nonce: Nonce(first.nonce.0 ^ 1), ..fence(&first) },
        Fence { epoch: first.epoch + 1, ..fence(&first) },
        Fence { epoch: first.epoch - 1, ..fence(&first) },
        Fence { epoch: 0, nonce: Nonce(0) },
    ] {
        let item = SaveCheckpoint { fence: forged, ..save_of(&first, one()) };
        assert_eq!(bed.save_checkpoints(vec![item]).await.unwrap(), std::slice::from_ref(&held));
    }
    let scheduled = CheckpointSaved::Stale(TaskState::Scheduled);
    bed.finish(&first, Ending::Snoozed { delay_ms: 5 }).await;
    assert_eq!(save(&bed, &first, one()).await, scheduled, "it is settled");
    assert_eq!(save(&bed, &first, checkpoint(1, "a")).await, scheduled, "a repeat is late, too");
    bed.advance(5);
    let second = bed.take_one().await;
    assert_eq!(save(&bed, &first, one()).await, held, "another has it");
    bed.advance(31_000);
    let three = checkpoint(3, "in-time");
    assert_eq!(save(&bed, &second, three).await, saved(), "it is over, but nobody has ended it");
    assert_eq!(bed.reap(1).await.unwrap().reaped.len(), 1);
    assert_eq!(save(&bed, &second, checkpoint(4, "b")).await, scheduled);
    bed.advance(60_000);
    let third = bed.take_one().await;
    bed.take_over(&third, "other", "boot").await;
    assert_eq!(save(&bed, &third, checkpoint(5, "taken-over")).await, saved(), "the lease is the same");
    bed.cancel_one("t").await;
    assert_eq!(save(&bed, &third, checkpoint(6, "b")).await, CheckpointSaved::Stale(TaskState::Cancelled));
    let unknown = SaveCheckpoint { id: id("nowhere"), ..save_of(&third, one()) };
    assert_eq!(bed.save_checkpoints(vec![unknown]).await.unwrap(), [CheckpointSaved::Unknown]);
    let kept = progress(&bed, "t").await;
    let steps: Vec<&str> = kept.steps.iter().map(|step| &*step.step).collect();
    assert_eq!(steps, ["a", "in-time", "taken-over"]);
    assert!(bed.progress(&id("nowhere")).await.unwrap().is_none(), "nothing was made of it");
}

pub async fn what_was_never_leased_saves_nothing(bed: Bed) {
    bed.put(task("t")).await;
    let view = bed.view("t").await;
    let never = Fence { epoch: view.epoch, nonce: Nonce(0) };
    let item = SaveCheckpoint { id: id("t"), fence: never, checkpoint: checkpoint(1, "a") };
    let answers = bed.save_checkpoints(vec![item]).await.unwrap();
    assert_eq!(answers, [CheckpointSaved::Stale(TaskState::Scheduled)]);
    let lease = bed.take_one().await;
    assert!(lease.checkpoint.is_none());
}

pub async fn checkpoints_of_one_batch_are_saved_in_order(bed: Bed) {
    bed.put_all(vec![task("a"), task("b"), task("c")]).await;
    let leases = bed.take_by_id(3).await;
    bed.finish(&leases[2], Ending::Done(None)).await;
    let batch = vec![
        save_of(&leases[0], checkpoint(1, "one")),
        save_of(&leases[2], checkpoint(1, "late")),
        save_of(&leases[0], checkpoint(2, "two")),
        SaveCheckpoint { id: id("nowhere"), ..save_of(&leases[0], checkpoint(9, "x")) },
        save_of(&leases[0], checkpoint(2, "three")),
        save_of(&leases[1], checkpoint(7, "one")),
        save_of(&leases[0], checkpoint(2, "two")),
    ];
    let expected = [
        saved(),
        CheckpointSaved::Stale(TaskState::Succeeded),
        saved(),
        CheckpointSaved::Unknown,
        CheckpointSaved::Refused(Refused::Behind { last: 2 }),
        saved(),
        CheckpointSaved::Repeated,
    ];
    assert_eq!(bed.save_checkpoints(batch).await.unwrap(), expected);
    assert_eq!(progress(&bed, "a").await.seq, 2);
    assert_eq!(progress(&bed, "b").await.seq, 7);
    assert!(bed.save_checkpoints(Vec::new()).await.unwrap().is_empty());
}

pub async fn checkpoints_saved_at_once_are_all_kept_or_refused(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    let saves = (1..=24).map(|seq| save(&bed, &lease, checkpoint(seq, &format!("step-{seq}"))));
    let answers = futures_util::future::join_all(saves).await;
    let kept = progress(&bed, "t").await;
    for (seq, answer) in (1..).zip(answers) {
        let is_kept = kept.steps.iter().any(|step| step.seq == seq);
        match answer {
            CheckpointSaved::Saved { .. } => assert!(is_kept, "{seq} was acknowledged"),
            CheckpointSaved::Refused(Refused::Behind { last }) => assert!(!is_kept && last > seq),
            other => panic!("{seq}: {other:?}"),
        }
    }
    assert_eq!(kept.seq, 24);
}

pub async fn what_was_saved_outlives_the_coordinator(mut bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    let state = Some(Content::Blob(blob(&bed, 3)));
    assert_eq!(save(&bed, &lease, Checkpoint { state, ..checkpoint(1, "a") }).await, saved());
    let before = text(&progress(&bed, "t").await);
    bed.reopen().await;
    assert_eq!(text(&progress(&bed, "t").await), before);
    assert_eq!(save(&bed, &lease, checkpoint(2, "b")).await, saved(), "the lease holds");
    bed.finish(&lease, Ending::Snoozed { delay_ms: 0 }).await;
    bed.reopen().await;
    let next = bed.take_one().await;
    assert_eq!(next.checkpoint.unwrap().steps.len(), 2);
}

pub async fn a_repeated_request_gets_what_was_saved_since(bed: Bed) {
    bed.put(task("t")).await;
    let request = Claim { request_id: Some(name("r")), ..claim_of(1) };
    let lease = bed.claim_one(request.clone()).await.leases.remove(0);
    assert!(lease.checkpoint.is_none());
    assert_eq!(save(&bed, &lease, checkpoint(1, "a")).await, saved());
    let again = bed.claim_one(request).await;
    assert!(again.replayed);
    assert_eq!(again.leases[0].checkpoint.as_ref().map(|progress| progress.seq), Some(1));
}

pub async fn what_was_saved_before_anybody_started_comes_after_a_missed_deadline(bed: Bed) {
    let new = || {
        vec![
            task("t").deadline(20_000),
            task("u").failed(failure(FailureClass::ServerError)).deadline(20_000),
        ]
    };
    bed.put_all(new()).await;
    bed.advance(10_000);
    let request = Claim { request_id: Some(name("r")), ..claim_of(2) };
    let leases = bed.claim_one(request.clone()).await.leases;
    assert!(leases.len() == 2 && leases.iter().all(|lease| lease.checkpoint.is_none()), "{leases:?}");
    for lease in &leases {
        assert_eq!(save(&bed, lease, checkpoint(1, "a")).await, saved());
    }
    bed.advance(10_001);
    let again = bed.claim_one(request).await;
    assert_eq!((again.leases.len(), again.too_late.len()), (0, 2));
    for text in ["t", "u"] {
        let late = bed.view(text).await;
        assert_eq!((late.state, late.runs), (TaskState::Escalated, 0), "that lease counts not");
        bed.retry_one(text).await;
    }
    for lease in bed.take(9).await {
        let seq = lease.checkpoint.as_ref().map(|progress| progress.seq);
        assert_eq!(seq, Some(1), "{}: its work goes on where it was", lease.id);
    }
}

pub async fn what_was_saved_goes_with_its_task(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    assert_eq!(save(&bed, &lease, checkpoint(8, "a")).await, saved());
    bed.finish(&lease, Ending::Done(None)).await;
    assert_eq!(progress(&bed, "t").await.seq, 8, "it is shown as long as the task is");
    bed.advance(RETENTION_MS);
    assert_eq!(bed.forget(1).await.unwrap(), 1);
    assert!(bed.progress(&id("t")).await.unwrap().is_none());
    let lease = bed.put_and_take(task("t")).await;
    assert!(progress(&bed, "t").await.is_empty());
    let lease = next_lease(&bed, &lease).await;
    assert!(lease.checkpoint.is_none(), "it is another task");
    assert_eq!(save(&bed, &lease, checkpoint(1, "a")).await, saved());
}

pub async fn what_a_person_does_keeps_what_was_saved(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    assert_eq!(save(&bed, &lease, checkpoint(1, "a")).await, saved());
    bed.cancel_one("t").await;
    assert_eq!(progress(&bed, "t").await.seq, 1);
    bed.retry_one("t").await;
    let lease = bed.take_one().await;
    assert_eq!(lease.checkpoint.as_ref().map(|progress| progress.seq), Some(1));
    bed.finish(&lease, Ending::FailedForGood(failure(FailureClass::BadOutput))).await;
    assert_eq!(bed.state("t").await, TaskState::Dead);
    bed.retry_one("t").await;
    let lease = bed.take_one().await;
    assert_eq!(
        save(&bed, &lease, checkpoint(1, "b")).await,
        CheckpointSaved::Refused(Refused::Behind { last: 1 })
    );
    assert_eq!(save(&bed, &lease, checkpoint(2, "b")).await, saved());
    bed.finish(&lease, Ending::HandedOff).await;
    assert_eq!(save(&bed, &lease, checkpoint(3, "c")).await, CheckpointSaved::Stale(TaskState::HandedOff));
    let back = bed.settle_one(&lease, Ending::Failed(failure(FailureClass::ServerError))).await;
    assert!(matches!(back, Settled::Applied { state: TaskState::Scheduled, .. }), "{back:?}");
    bed.advance(10_000);
    assert_eq!(bed.take_one().await.checkpoint.map(|progress| progress.seq), Some(2));
}

pub async fn steps_and_states_are_bounded(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    let steps = (1..).zip((0..STEPS_MAX).map(|number| format!("step-{number}")));
    let batch: Vec<SaveCheckpoint> =
        steps.map(|(seq, step)| save_of(&lease, checkpoint(seq, &step))).collect();
    let answers = bed.save_checkpoints(batch).await.unwrap();
    assert!(answers.iter().all(|answer| *answer == saved()), "{answers:?}");
    let more = CheckpointSaved::Refused(Refused::TooManySteps);
    assert_eq!(save(&bed, &lease, checkpoint(900, "one-more")).await, more);
    let large = |bytes: usize| Some(raw(&format!("\"{}\"", "x".repeat(bytes - 2))).into());
    let full = Checkpoint { state: large(STATES_MAX_BYTES - 10), ..checkpoint(1_000, "step-0") };
    assert_eq!(save(&bed, &lease, full).await, saved());
    let too_large = Checkpoint { state: large(11), ..checkpoint(1_001, "step-1") };
    let bytes = STATES_MAX_BYTES + 1;
    assert_eq!(save(&bed, &lease, too_large).await, CheckpointSaved::Refused(Refused::TooLarge { bytes }));
    let fits = Checkpoint { state: large(10), ..checkpoint(1_001, "step-1") };
    assert_eq!(save(&bed, &lease, fits).await, saved());
    let next = next_lease(&bed, &lease).await.checkpoint.unwrap();
    assert_eq!((next.seq, next.steps.len()), (1_001, STEPS_MAX));
    assert_eq!(text(&next), text(&progress(&bed, "t").await));
}

pub async fn checkpoints_bound_a_reply(bed: Bed) {
    const TASKS: usize = 24;
    bed.put_all((0..TASKS).map(|number| task(&format!("t{number:02}"))).collect()).await;
    let state = format!("\"{}\"", "x".repeat(250 * 1024));
    let leases = bed.take(TASKS).await;
    let saves = leases.iter().map(|lease| {
        save_of(lease, Checkpoint { state: Some(raw(&state).into()), ..checkpoint(1, "large") })
    });
    let answers = bed.save_checkpoints(saves.collect()).await.unwrap();
    assert!(answers.iter().all(|answer| *answer == saved()));
    for lease in &leases {
        bed.finish(lease, Ending::Snoozed { delay_ms: 0 }).await;
    }
    let mut given = Vec::new();
    loop {
        let leases = bed.take(1_000).await;
        if leases.is_empty() {
            break;
        }
        let bytes = |lease: &Lease| text(lease.checkpoint.as_ref().unwrap()).len();
        let bytes: usize = leases.iter().map(bytes).sum();
        assert!(bytes <= 4 * 1024 * 1024, "{bytes}");
        given.extend(leases.into_iter().map(|lease| lease.id));
    }
    assert_eq!(given.len(), TASKS, "each is given once");
}

/// A task, all of its leases so far, and what it saved by the rules.
struct Work {
    id: String,
    leases: Vec<Lease>,
    is_held: bool,
    progress: Progress,
}

fn random_checkpoint(rng: &mut StdRng, last: u64) -> Checkpoint {
    let state = match rng.random_range(0..4) {
        0 => None,
        1 => Some(raw(&format!("\"{}\"", "x".repeat(rng.random_range(0..150_000)))).into()),
        _ => Some(raw(["1", "[1, 2]", "{ \"a\": \"\u{e9}\" }"][rng.random_range(0..3)]).into()),
    };
    let pending = rng.random_bool(0.2).then(|| vec![name("s1"), name("s5")]);
    let seq = (last + rng.random_range(0..4)).saturating_sub(1);
    let step = name(&format!("s{}", rng.random_range(0..5)));
    Checkpoint { seq, step, completed: rng.random_bool(0.7), state, pending }
}

/// What the store must answer, by the rules.
fn expected(work: &mut Work, lease: &Lease, checkpoint: Checkpoint, now_ms: i64) -> CheckpointSaved {
    let holds = work.is_held && work.leases.last().is_some_and(|last| last.epoch == lease.epoch);
    if !holds {
        let state = if work.is_held { TaskState::Leased } else { TaskState::Scheduled };
        return CheckpointSaved::Stale(state);
    }
    match work.progress.save(checkpoint, now_ms) {
        Ok(Saved::Now) => saved(),
        Ok(Saved::Before) => CheckpointSaved::Repeated,
        Err(refused) => CheckpointSaved::Refused(refused),
    }
}

pub async fn whoever_saves_whatever_the_rules_decide(bed: Bed) {
    for seed in 0..4 {
        let mut rng = StdRng::seed_from_u64(seed);
        let all = ["a", "b", "c"].map(|text| format!("{text}{seed}"));
        bed.put_all(all.iter().map(|text| task(text)).collect()).await;
        let work =
            |id: String| Work { id, leases: Vec::new(), is_held: false, progress: Progress::default() };
        let mut works = all.map(work);
        let mut last: Option<SaveCheckpoint> = None;
        for round in 0..80 {
            bed.advance(rng.random_range(0..50));
            for lease in bed.take(if rng.random_bool(0.4) { 3 } else { 0 }).await {
                let work = works.iter_mut().find(|work| work.id == *lease.id).unwrap();
                let given = lease.checkpoint.as_ref().map(text).unwrap_or_default();
                let kept = if work.progress.is_empty() { String::new() } else { text(&work.progress) };
                assert_eq!(given, kept, "seed {seed}, round {round}");
                (work.is_held, work.leases) = (true, [&work.leases[..], &[lease]].concat());
            }
            let (mut batch, mut answers) = (Vec::new(), Vec::new());
            for _ in 0..rng.random_range(0..5) {
                let work = &mut works[rng.random_range(0..3)];
                let newest = work.leases.len().saturating_sub(usize::from(rng.random_bool(0.2)) + 1);
                let Some(lease) = work.leases.get(newest).cloned() else { continue };
                let fresh = save_of(&lease, random_checkpoint(&mut rng, work.progress.seq));
                let again = last.clone().filter(|last| *last.id == *work.id && rng.random_bool(0.5));
                let item = again.unwrap_or(fresh);
                let lease = work.leases.iter().find(|lease| lease.epoch == item.fence.epoch).unwrap().clone();
                answers.push(expected(work, &lease, item.checkpoint.clone(), bed.now_ms()));
                last = Some(item.clone());
                batch.push(item);
            }
            let given = bed.save_checkpoints(batch.clone()).await.unwrap();
            assert_eq!(given, answers, "seed {seed}, round {round}: {batch:?}");
            for work in &mut works {
                assert_eq!(text(&progress(&bed, &work.id).await), text(&work.progress));
                if work.is_held && rng.random_bool(0.15) {
                    let lease = work.leases.last().unwrap();
                    bed.finish(lease, Ending::Snoozed { delay_ms: rng.random_range(0..100) }).await;
                    work.is_held = false;
                }
            }
        }
        for work in works.iter().filter(|work| work.is_held) {
            bed.finish(work.leases.last().unwrap(), Ending::Done(None)).await;
        }
        for work in works.iter().filter(|work| !work.is_held) {
            bed.cancel_one(&work.id).await;
        }
    }
}
