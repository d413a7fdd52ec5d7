//! What becomes of leases whose worker says nothing more.

use redrive_coordinator::store::{Claim, Ending, Extended, Reaped, Settled};
use redrive_shared::failure::FailureClass;
use redrive_shared::task::{AttemptEnd, TaskState};
use redrive_shared::wire::AgentStatus;

use crate::support::{Bed, EnqueueExt, START_MS, beat, beat_with, claim_of, failure, id, name, task};

pub async fn nothing_is_reaped_before_its_time(bed: Bed) {
    assert_eq!(bed.reap(10).await.unwrap().next_ms, None);
    bed.put_and_take(task("t")).await;
    bed.advance(29_999);
    let round = bed.reap(10).await.unwrap();
    assert!(round.reaped.is_empty() && round.gone.is_empty());
    assert_eq!(round.next_ms, Some(START_MS + 30_000));
    bed.advance(1);
    assert_eq!(bed.reap(10).await.unwrap().reaped.len(), 1);
}

pub async fn a_lease_that_nobody_started_is_undelivered_and_never_poison(bed: Bed) {
    bed.put(task("t").max_attempts(1)).await;
    for times in 1..=8 {
        let lease = bed.take_one().await;
        assert_eq!(lease.attempt, 1);
        bed.advance(30_000);
        let round = bed.reap(10).await.unwrap();
        let due_ms = round.reaped[0].due_ms;
        assert_eq!(
            round.reaped,
            [Reaped {
                id: lease.id,
                queue: name("default"),
                dependency: None,
                epoch: lease.epoch,
                agent: Some(name("a")),
                boot_id: Some(name("a-1")),
                started: false,
                retried: false,
                state: TaskState::Scheduled,
                due_ms
            }]
        );
        assert!((1_000..=2_000).contains(&(due_ms - bed.now_ms())), "a short spread delay");
        let view = bed.view("t").await;
        assert_eq!((view.ledger.undelivered, view.ledger.lost, view.ledger.failed), (times, 0, 0));
        assert_eq!(view.history.last().unwrap().end, AttemptEnd::Undelivered);
        bed.advance(2_000);
    }
}

pub async fn a_lease_that_was_started_is_lost_and_charges_no_attempt(bed: Bed) {
    let lease = bed.put_and_take(task("t").max_attempts(1)).await;
    bed.start(&lease).await;
    bed.advance(30_000);
    let round = bed.reap(10).await.unwrap();
    assert_eq!((round.reaped[0].started, round.reaped[0].state), (true, TaskState::Scheduled));
    let view = bed.view("t").await;
    assert_eq!((view.ledger.lost, view.ledger.failed, view.ledger.undelivered), (1, 0, 0));
    let attempt = view.history.last().unwrap();
    assert_eq!((attempt.end, &attempt.agent), (AttemptEnd::Lost, &Some(name("a"))));
    assert_eq!((attempt.started_at_ms, attempt.ended_at_ms), (START_MS, START_MS + 30_000));
    assert!((100..=30_000).contains(&(round.reaped[0].due_ms - bed.now_ms())));
}

pub async fn a_task_that_took_three_workers_with_it_is_poison(bed: Bed) {
    bed.put(task("t").max_attempts(50)).await;
    for expected in [TaskState::Scheduled, TaskState::Scheduled, TaskState::Dead] {
        let lease = bed.take_one().await;
        bed.start(&lease).await;
        bed.advance(30_000);
        assert_eq!(bed.reap(10).await.unwrap().reaped[0].state, expected);
        bed.advance(30_000);
    }
    let view = bed.view("t").await;
    assert_eq!((view.ledger.lost, view.ledger.failed), (3, 0));
    assert!(view.why.unwrap().contains("poison"));
}

pub async fn a_loss_that_the_worker_reports_counts_towards_poison(bed: Bed) {
    // A handler's process that is killed for memory, and a worker that vanishes: the same task may well be the cause.
    bed.put(task("t").max_attempts(50)).await;
    for expected in [TaskState::Scheduled, TaskState::Scheduled, TaskState::Dead] {
        let lease = bed.take_one().await;
        bed.start(&lease).await;
        if expected == TaskState::Dead {
            bed.advance(30_000);
            assert_eq!(bed.reap(10).await.unwrap().reaped[0].state, expected);
        } else {
            let killed = Ending::Failed(failure(FailureClass::WorkerLost));
            assert_eq!(bed.finish(&lease, killed).await.0, expected);
        }
        bed.advance(30_000);
    }
    assert_eq!(bed.view("t").await.ledger.lost, 3);
}

pub async fn reaping_goes_on_while_the_queue_is_paused(bed: Bed) {
    bed.put_and_take(task("t")).await;
    bed.pause(&name("default"), true).await.unwrap();
    bed.advance(30_000);
    assert_eq!(bed.reap(10).await.unwrap().reaped.len(), 1);
    assert_eq!(bed.state("t").await, TaskState::Scheduled);
}

pub async fn whoever_lost_a_lease_cannot_settle_or_extend_it(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    bed.start(&lease).await;
    bed.advance(30_000);
    bed.reap(10).await.unwrap();
    assert_eq!(bed.settle_one(&lease, Ending::Done(None)).await, Settled::Stale(TaskState::Scheduled));
    assert_eq!(bed.extend_one(&lease, None).await, Extended::Stale(TaskState::Scheduled));
    assert_eq!(bed.view("t").await.ledger.lost, 1);
}

pub async fn a_late_worker_that_is_not_reaped_yet_may_still_settle(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    bed.advance(40_000);
    assert_eq!(bed.finish(&lease, Ending::Done(None)).await.0, TaskState::Succeeded);
    assert!(bed.reap(10).await.unwrap().reaped.is_empty());
}

/// The policy's own.
const DEADLINE_MS: i64 = 24 * 60 * 60 * 1_000;

pub async fn a_deadline_that_passes_while_a_queue_is_paused_is_seen(bed: Bed) {
    bed.pause(&name("default"), true).await.unwrap();
    bed.put_all(vec![task("late").deadline(1_000), task("in-time").deadline(5_000)]).await;
    assert_eq!(bed.reap(10).await.unwrap().next_ms, Some(START_MS + 1_001));
    bed.advance(1_001);
    let round = bed.reap(10).await.unwrap();
    assert_eq!((round.too_late, round.next_ms), (vec![id("late")], Some(START_MS + 5_001)));
    assert_eq!(bed.state("late").await, TaskState::Escalated);
    assert_eq!(bed.state("in-time").await, TaskState::Scheduled);
    bed.assert_counts_are_right().await;
}

pub async fn a_round_is_bounded_and_says_when_to_go_on(bed: Bed) {
    bed.put_all((0..5).map(|number| task(&format!("t{number}"))).collect()).await;
    bed.take(5).await;
    bed.advance(30_000);
    let first = bed.reap(3).await.unwrap();
    assert_eq!((first.reaped.len(), first.next_ms), (3, Some(START_MS + 30_000)));
    let second = bed.reap(3).await.unwrap();
    assert_eq!((second.reaped.len(), second.next_ms), (2, Some(START_MS + DEADLINE_MS + 1)));
    bed.assert_counts_are_right().await;
}

pub async fn leases_of_an_agent_that_went_silent_end(bed: Bed) {
    bed.put(task("t")).await;
    let lease = bed.claim_one(Claim { lease_ms: Some(600_000), ..claim_of(1) }).await.leases.remove(0);
    bed.start(&lease).await;
    bed.heartbeat(beat("a", "a-1")).await.unwrap();
    bed.advance(15_000);
    let early = bed.reap(10).await.unwrap();
    assert!(early.reaped.is_empty() && early.gone.is_empty());
    assert_eq!(early.next_ms, Some(START_MS + 15_001));
    bed.advance(1);
    let round = bed.reap(10).await.unwrap();
    assert_eq!(round.gone, [name("a")]);
    assert_eq!((round.reaped.len(), round.next_ms), (1, Some(START_MS + DEADLINE_MS + 1)));
    assert_eq!(bed.view("t").await.ledger.lost, 1);
    assert_eq!(bed.agents().await.unwrap()[0].status, AgentStatus::Gone);
    assert!(bed.reap(10).await.unwrap().gone.is_empty(), "said once");
}

pub async fn an_agent_that_is_heard_from_keeps_its_leases(bed: Bed) {
    bed.put(task("t")).await;
    let lease = bed.take_one().await;
    for _ in 0..20 {
        bed.advance(10_000);
        let beaten = bed.heartbeat(beat_with("a", "a-1", &[&lease])).await.unwrap();
        assert_eq!(beaten.leases, [Extended::Until(bed.now_ms() + 30_000)]);
        let round = bed.reap(10).await.unwrap();
        assert!(round.reaped.is_empty() && round.gone.is_empty());
    }
    bed.finish(&lease, Ending::Done(None)).await;
}

pub async fn an_agent_that_comes_back_is_alive_again(bed: Bed) {
    bed.heartbeat(beat("a", "a-1")).await.unwrap();
    bed.advance(15_001);
    assert_eq!(bed.reap(10).await.unwrap().gone, [name("a")]);
    bed.heartbeat(beat("a", "a-2")).await.unwrap();
    assert_eq!(bed.agents().await.unwrap()[0].status, AgentStatus::Alive);
    bed.advance(15_001);
    assert_eq!(bed.reap(10).await.unwrap().gone, [name("a")]);
}

pub async fn silence_while_the_store_was_closed_proves_nothing(mut bed: Bed) {
    bed.put(task("t")).await;
    let lease = bed.claim_one(Claim { lease_ms: Some(600_000), ..claim_of(1) }).await.leases.remove(0);
    bed.start(&lease).await;
    bed.heartbeat(beat("a", "a-1")).await.unwrap();
    bed.advance(120_000);
    bed.reopen().await;
    let opened_ms = bed.now_ms();
    bed.advance(15_000);
    let early = bed.reap(10).await.unwrap();
    assert!(early.reaped.is_empty() && early.gone.is_empty());
    assert_eq!(early.next_ms, Some(opened_ms + 15_001));
    bed.advance(1);
    assert_eq!(bed.reap(10).await.unwrap().gone, [name("a")]);
}

pub async fn leases_of_one_run_of_an_agent_can_be_ended_early(bed: Bed) {
    bed.put_all((0..4).map(|number| task(&format!("t{number}"))).collect()).await;
    let run = |agent: &str, boot_id: Option<&str>| Claim {
        agent: name(agent),
        boot_id: boot_id.map(name),
        ..claim_of(1)
    };
    let claims = vec![run("a", Some("a-1")), run("a", Some("a-2")), run("b", Some("a-1")), run("a", None)];
    let claimed = bed.claim(claims, &[]).await.unwrap();
    for answer in &claimed {
        bed.start(&answer.leases[0]).await;
    }
    let arrival = bed.arrive(&name("a"), &name("a-1")).await.unwrap();
    assert_eq!(bed.expire_leases(&name("a"), &name("a-1"), arrival).await.unwrap(), 1);
    assert_eq!(bed.expire_leases(&name("a"), &name("a-1"), arrival).await.unwrap(), 0);
    let round = bed.reap(10).await.unwrap();
    let of_the_run = &claimed[0].leases[0].id;
    assert_eq!(round.reaped.iter().map(|one| &one.id).collect::<Vec<_>>(), [of_the_run]);
    assert_eq!(bed.queue("default").await.counts.leased, 3);
}

pub async fn a_worker_that_comes_back_in_time_keeps_what_was_ended_early(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    bed.start(&lease).await;
    let arrival = bed.arrive(&name("a"), &name("a-1")).await.unwrap();
    bed.expire_leases(&name("a"), &name("a-1"), arrival).await.unwrap();
    assert_eq!(bed.extend_one(&lease, None).await, Extended::Until(START_MS + 30_000));
    assert!(bed.reap(10).await.unwrap().reaped.is_empty());
}

pub async fn a_clock_that_steps_back_ends_no_lease(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    bed.heartbeat(beat("a", "a-1")).await.unwrap();
    bed.advance(-3_600_000);
    assert!(bed.reap(10).await.unwrap().reaped.is_empty());
    assert_eq!(bed.extend_one(&lease, None).await, Extended::Until(START_MS + 30_000));
    assert_eq!(bed.finish(&lease, Ending::Done(None)).await.0, TaskState::Succeeded);
}
