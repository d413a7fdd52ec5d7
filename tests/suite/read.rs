//! What can be seen: tasks, lists, queues, agents.

use std::collections::BTreeSet;

use redrive_coordinator::store::{Ending, Extended, Filter};
use redrive_shared::failure::FailureClass;
use redrive_shared::gate::Standing;
use redrive_shared::task::TaskState;
use redrive_shared::wire::{AgentStatus, Heartbeat};

use crate::support::{
    Bed, EnqueueExt, START_MS, beat, beat_with, claim_of, failure, fixed_policy, id, ids, name, raw, task,
};

fn limit(limit: usize) -> Filter {
    Filter { limit, ..Filter::default() }
}

pub async fn an_unknown_task_is_not_there(bed: Bed) {
    assert!(bed.get(&id("t")).await.unwrap().is_none());
}

pub async fn status_answers_in_order_and_leaves_out_what_is_unknown(bed: Bed) {
    bed.put_all(vec![task("a"), task("b").failed(failure(FailureClass::ServerError))]).await;
    let views = bed.status(ids(&["b", "nowhere", "a"])).await.unwrap();
    assert_eq!(views.iter().map(|view| &*view.id).collect::<Vec<_>>(), ["b", "a"]);
    assert!(views.iter().all(|view| view.payload.is_none() && view.history.is_empty()));
    assert_eq!(views[0].last_failure, Some(failure(FailureClass::ServerError)));
}

pub async fn results_are_shown_where_they_are_asked_for_and_bounded(bed: Bed) {
    let texts: Vec<String> = (0..20).map(|number| format!("t{number:02}")).collect();
    bed.put_all(texts.iter().map(|text| task(text)).collect()).await;
    let large = format!("\"{}\"", "x".repeat(256 * 1024 - 2));
    for lease in bed.take(20).await {
        bed.finish(&lease, Ending::Done(Some(raw(&large).into()))).await;
    }
    let views = bed.status(texts.iter().map(|text| id(text)).collect()).await.unwrap();
    assert_eq!(views.len(), 20, "no task is left out");
    let bytes: usize = views.iter().flat_map(|view| &view.result).map(|result| result.get().len()).sum();
    assert_eq!(bytes, 4 * 1024 * 1024, "as many results as one reply has room for");
    assert!(bed.everything().await.iter().all(|view| view.result.is_none()));
    assert_eq!(bed.view("t19").await.result.unwrap().get(), large);
}

pub async fn a_history_keeps_its_last_fifty_attempts(bed: Bed) {
    bed.put(task("t")).await;
    for _ in 0..60 {
        let lease = bed.take_one().await;
        bed.finish(&lease, Ending::Snoozed { delay_ms: 0 }).await;
    }
    let view = bed.view("t").await;
    let runs: Vec<_> = view.history.iter().map(|attempt| attempt.run).collect();
    assert_eq!(runs, (11..=60).collect::<Vec<_>>());
    assert_eq!((view.runs, view.ledger.deferred), (60, 60));
}

pub async fn lists_are_newest_first_and_filtered(bed: Bed) {
    bed.put_queue(&name("other"), fixed_policy(1)).await.unwrap();
    let lease = bed.put_and_take(task("a")).await;
    assert_eq!(&*lease.id, "a");
    // One after the other: a batch that several shards share arrives in no order.
    for later in [task("b").on("other"), task("c"), task("d")] {
        bed.advance(1);
        bed.put(later).await;
    }
    let listed = |filter: Filter| async {
        let page = bed.list(filter).await.unwrap();
        assert!(page.tasks.iter().all(|view| view.payload.is_none() && view.history.is_empty()));
        page.tasks.iter().map(|view| view.id.to_string()).collect::<Vec<_>>()
    };
    let queue = Some(name("default"));
    assert_eq!(listed(limit(10)).await, ["d", "c", "b", "a"]);
    assert_eq!(listed(Filter { queue: queue.clone(), ..limit(10) }).await, ["d", "c", "a"]);
    assert_eq!(listed(Filter { state: Some(TaskState::Leased), ..limit(10) }).await, ["a"]);
    let both = Filter { queue, state: Some(TaskState::Scheduled), ..limit(10) };
    assert_eq!(listed(both).await, ["d", "c"]);
    assert_eq!(listed(Filter { queue: Some(name("nowhere")), ..limit(10) }).await, [""; 0]);
}

pub async fn pages_have_neither_duplicates_nor_holes_while_tasks_come_and_change(bed: Bed) {
    bed.put_all((0..95).map(|number| task(&format!("t{number:02}"))).collect()).await;
    let (mut seen, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = bed.list(Filter { cursor, ..limit(10) }).await.unwrap();
        assert!(page.tasks.len() <= 10);
        seen.extend(page.tasks.into_iter().map(|view| view.id.to_string()));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
        bed.advance(1);
        bed.put(task(&format!("new{pages}"))).await;
        for lease in bed.take(5).await {
            bed.finish(&lease, Ending::Done(None)).await;
        }
        pages += 1;
    }
    let distinct: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!(distinct.len(), seen.len(), "no task twice");
    let expected: Vec<String> = (0..95).rev().map(|number| format!("t{number:02}")).collect();
    bed.assert_order(seen, &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

pub async fn tasks_that_were_there_before_end_no_list_early(bed: Bed) {
    bed.put(task("oldest")).await;
    let known = || (0..999).map(|number| task(&format!("t{number}")));
    bed.put_all(known().collect()).await;
    // Thousands of places in the order of arrival at which nobody came.
    for round in 0..4 {
        bed.advance(1);
        let fresh = task(&format!("fresh{round}"));
        let batch: Vec<_> = if round % 2 == 0 {
            std::iter::once(fresh).chain(known()).collect()
        } else {
            known().chain([fresh]).collect()
        };
        bed.enqueue(batch).await.unwrap();
    }
    let listed: BTreeSet<String> = bed.everything().await.iter().map(|view| view.id.to_string()).collect();
    assert_eq!(listed.len(), 1_004, "every task");
    assert!(listed.contains("oldest"));
}

pub async fn a_task_that_was_forgotten_and_came_again_is_listed_once(bed: Bed) {
    bed.put_all(["again", "stays"].map(task).to_vec()).await;
    for lease in bed.take_by_id(2).await {
        if &*lease.id == "again" {
            bed.finish(&lease, Ending::Done(None)).await;
        } else {
            bed.finish(&lease, Ending::Snoozed { delay_ms: 10_000_000 }).await;
        }
    }
    bed.advance(1_000_000_000);
    assert_eq!(bed.forget(10).await.unwrap(), 1);
    bed.put(task("again")).await;
    let listed = bed.everything().await.iter().map(|view| view.id.to_string()).collect();
    bed.assert_order(listed, &["again", "stays"]);
    let (first, mut cursor) = (bed.list(limit(1)).await.unwrap(), None);
    let mut pages = vec![first.tasks[0].id.to_string()];
    cursor = first.next_cursor.or(cursor);
    while let Some(below) = cursor {
        let page = bed.list(Filter { cursor: Some(below), ..limit(1) }).await.unwrap();
        pages.extend(page.tasks.iter().map(|view| view.id.to_string()));
        cursor = page.next_cursor;
    }
    bed.assert_order(pages, &["again", "stays"]);
}

pub async fn a_page_of_a_rare_state_is_found_among_many(bed: Bed) {
    bed.put(task("rare")).await;
    bed.cancel_one("rare").await;
    bed.put_all((0..5_000).map(|number| task(&format!("t{number}"))).collect()).await;
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let filter = Filter { state: Some(TaskState::Cancelled), cursor, ..limit(10) };
        let page = bed.list(filter).await.unwrap();
        found.extend(page.tasks.into_iter().map(|view| view.id.to_string()));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found, ["rare"]);
}

pub async fn there_is_always_a_default_queue_and_queues_are_sorted(bed: Bed) {
    for queue in ["zz", "aa"] {
        bed.put_queue(&name(queue), fixed_policy(1)).await.unwrap();
    }
    let queues = bed.queues().await.unwrap();
    assert_eq!(queues.iter().map(|view| &*view.name).collect::<Vec<_>>(), ["aa", "default", "zz"]);
    assert!(queues.iter().all(|view| !view.paused && view.counts.total() == 0));
}

pub async fn a_replaced_policy_is_in_force_for_tasks_already_there(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    bed.pause(&name("default"), true).await.unwrap();
    bed.put_queue(&name("default"), fixed_policy(77)).await.unwrap();
    let view = bed.queue("default").await;
    bed.put(task("waiting")).await;
    assert!(view.paused && bed.take(1).await.is_empty(), "a new policy does not resume a queue");
    assert_eq!(view.policy, fixed_policy(77));
    assert_eq!(view.counts.leased, 1);
    let after = bed.finish(&lease, Ending::Failed(failure(FailureClass::ServerError))).await;
    assert_eq!(after, (TaskState::Scheduled, START_MS + 77));
}

pub async fn pausing_an_unknown_queue_says_so(bed: Bed) {
    assert!(!bed.pause(&name("nowhere"), true).await.unwrap());
    assert_eq!(bed.queues().await.unwrap().len(), 1);
}

pub async fn a_queue_shows_when_its_next_task_is_due(bed: Bed) {
    assert_eq!(bed.queue("default").await.next_due_at_ms, None);
    bed.put_all(vec![task("later").delay(9_000), task("sooner").delay(3_000).group("g")]).await;
    assert_eq!(bed.queue("default").await.next_due_at_ms, Some(START_MS + 3_000));
    bed.cancel_one("sooner").await;
    assert_eq!(bed.queue("default").await.next_due_at_ms, Some(START_MS + 9_000));
}

pub async fn counts_stay_right_whatever_happens(bed: Bed) {
    bed.put_queue(&name("other"), fixed_policy(500)).await.unwrap();
    for round in 0..8 {
        let fresh = |number: u32| {
            let text = format!("r{round}-{number}");
            task(&text)
                .on(if number.is_multiple_of(3) { "other" } else { "default" })
                .group(&format!("g{}", number % 4))
        };
        bed.put_all((0..20).map(fresh).collect()).await;
        let queues = vec![name("default"), name("other")];
        let claim = redrive_coordinator::store::Claim { queues, ..claim_of(18) };
        for (number, lease) in bed.claim_one(claim).await.leases.iter().enumerate() {
            let seen = || failure(FailureClass::ServerError);
            match number % 7 {
                0 => drop(bed.finish(lease, Ending::Done(None)).await),
                1 => drop(bed.finish(lease, Ending::Failed(seen())).await),
                2 => drop(bed.finish(lease, Ending::FailedForGood(seen())).await),
                3 => drop(bed.finish(lease, Ending::NeedsPerson(seen())).await),
                4 => drop(bed.finish(lease, Ending::Released).await),
                5 => drop(bed.cancel(vec![lease.id.clone()], None).await.unwrap()),
                _ => bed.start(lease).await,
            }
        }
        bed.advance(31_000);
        bed.reap(100).await.unwrap();
        bed.retry(ids(&[&format!("r{round}-2"), &format!("r{round}-3")]), None, Standing::OPEN)
            .await
            .unwrap();
        bed.assert_counts_are_right().await;
    }
    bed.advance(49 * 3_600_000);
    assert!(bed.forget(1_000).await.unwrap() > 0);
    bed.assert_counts_are_right().await;
}

pub async fn agents_are_shown_as_they_reported(bed: Bed) {
    bed.heartbeat(Heartbeat { in_flight: 3, capacity: 8, ..beat("b", "b-1") }).await.unwrap();
    bed.advance(10);
    bed.heartbeat(Heartbeat { draining: true, in_flight: 1, ..beat("a", "a-1") }).await.unwrap();
    let agents = bed.agents().await.unwrap();
    let seen: Vec<_> = agents
        .iter()
        .map(|view| {
            (&*view.agent, &*view.boot_id, view.status, view.in_flight, view.capacity, view.seen_at_ms)
        })
        .collect();
    let expected = [
        ("a", "a-1", AgentStatus::Draining, 1, 4, START_MS + 10),
        ("b", "b-1", AgentStatus::Alive, 3, 8, START_MS),
    ];
    assert_eq!(seen, expected);
    assert_eq!(agents[0].queues, [name("default")]);
    bed.advance(10);
    bed.heartbeat(beat("a", "a-2")).await.unwrap();
    let agent = bed.agents().await.unwrap().remove(0);
    assert_eq!((&*agent.boot_id, agent.status), ("a-2", AgentStatus::Alive));
}

pub async fn an_agent_that_drained_and_says_so_is_gone_at_once(bed: Bed) {
    bed.heartbeat(Heartbeat { draining: true, ..beat("a", "a-1") }).await.unwrap();
    assert_eq!(bed.agents().await.unwrap()[0].status, AgentStatus::Gone);
    bed.advance(60_000);
    assert!(bed.reap(10).await.unwrap().gone.is_empty(), "nobody needs to hear of it");
}

pub async fn an_agent_that_is_gone_for_an_hour_is_forgotten(bed: Bed) {
    bed.heartbeat(beat("a", "a-1")).await.unwrap();
    bed.advance(15_001);
    bed.reap(10).await.unwrap();
    bed.advance(3_600_000 - 15_001);
    bed.forget(10).await.unwrap();
    assert_eq!(bed.agents().await.unwrap().len(), 1);
    bed.advance(1);
    bed.forget(10).await.unwrap();
    assert!(bed.agents().await.unwrap().is_empty());
}

pub async fn a_heartbeat_can_ask_for_its_own_length(bed: Bed) {
    let lease = bed.put_and_take(task("t")).await;
    let sent = Heartbeat { lease_ms: Some(90_000), ..beat_with("a", "a-1", &[&lease]) };
    assert_eq!(bed.heartbeat(sent).await.unwrap().leases, [Extended::Until(START_MS + 90_000)]);
}

pub async fn a_heartbeat_extends_its_leases_and_learns_which_are_over(bed: Bed) {
    bed.put_all(vec![task("a-held"), task("b-cancelled"), task("c-settled")]).await;
    let leases = bed.take_by_id(3).await;
    bed.cancel_one("b-cancelled").await;
    bed.finish(&leases[2], Ending::Done(None)).await;
    bed.advance(20_000);
    let beaten = bed.heartbeat(beat_with("a", "a-1", &[&leases[0], &leases[1], &leases[2]])).await.unwrap();
    let expected = [
        Extended::Until(START_MS + 50_000),
        Extended::Stale(TaskState::Cancelled),
        Extended::Stale(TaskState::Succeeded),
    ];
    assert_eq!(beaten.leases, expected);
    assert_eq!(bed.view("a-held").await.lease_until_ms, Some(START_MS + 50_000));
}

pub async fn a_store_that_works_says_so(bed: Bed) {
    bed.check().await.unwrap();
}
