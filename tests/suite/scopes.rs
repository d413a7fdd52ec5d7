//! Restrictions on queues and their groups: beside those on dependencies, each of which a task has to pass.

use redrive_coordinator::store::{Claim, Claimed, Restriction};
use redrive_shared::gate::Scope;
use redrive_shared::task::Priority;

use crate::support::{
    Bed, EnqueueExt, START_MS, claim_of, fixed_policy, name, of_dependency, of_group, of_queue, task,
};

fn at_most(most: u32, scope: Scope) -> Restriction {
    Restriction { scope, any: Some(most), retries: None }
}

/// Claims up to `max` tasks of the queues `default` and `other`.
fn of_both(max: usize) -> Claim {
    Claim { queues: vec![name("default"), name("other")], ..claim_of(max) }
}

async fn take(bed: &Bed, max: usize, gates: &[Restriction]) -> Claimed {
    bed.claim(vec![of_both(max)], gates).await.unwrap().remove(0)
}

fn given(claimed: &Claimed) -> Vec<&str> {
    let mut ids: Vec<&str> = claimed.leases.iter().map(|lease| &*lease.id).collect();
    ids.sort_unstable();
    ids
}

/// How many were given whose ids begin so.
fn count(claimed: &Claimed, prefix: &str) -> usize {
    claimed.leases.iter().filter(|lease| lease.id.starts_with(prefix)).count()
}

async fn with_other_queue(bed: &Bed) {
    bed.put_queue(&name("other"), fixed_policy(1)).await.unwrap();
}

pub async fn a_queue_that_lets_nothing_through_holds_back_all_of_its_tasks_and_no_others(bed: Bed) {
    with_other_queue(&bed).await;
    bed.put_all(vec![
        task("free"),
        task("needs").needs("d"),
        task("grouped").group("g").priority(Priority::High),
        task("elsewhere").on("other").needs("d").group("g"),
    ])
    .await;
    bed.put(task("later").priority(Priority::Low).delay(5_000)).await;
    let shut = [at_most(0, of_queue("default"))];
    let claimed = take(&bed, 9, &shut).await;
    assert_eq!((given(&claimed), &claimed.held_back), (vec!["elsewhere"], &vec![of_queue("default")]));
    assert_eq!(claimed.next_due_ms, Some(START_MS + 5_000), "somebody has to notice then");
    let claimed = bed.claim(vec![claim_of(9)], &[at_most(0, of_queue("other"))]).await.unwrap().remove(0);
    assert_eq!((given(&claimed), &claimed.held_back[..]), (vec!["free", "grouped", "needs"], &[][..]));
}

pub async fn a_queue_lets_so_many_through_whatever_they_need(bed: Bed) {
    with_other_queue(&bed).await;
    let mixed = |number: u32| {
        let task = task(&format!("m{number:02}"));
        match number % 3 {
            0 => task.needs("d").group(&format!("g{}", number % 5)),
            1 => task.needs("e").attempts_made(1),
            _ => task,
        }
    };
    bed.put_all((0..30).map(mixed).collect()).await;
    bed.put_all((0..5).map(|number| task(&format!("o{number}")).on("other").needs("d")).collect()).await;
    let claimed = take(&bed, 100, &[at_most(11, of_queue("default"))]).await;
    assert_eq!((count(&claimed, "m"), count(&claimed, "o")), (11, 5));
    assert_eq!((&claimed.held_back, claimed.next_due_ms), (&vec![of_queue("default")], None));
    let claimed = take(&bed, 100, &[at_most(19, of_queue("default"))]).await;
    assert_eq!((count(&claimed, "m"), claimed.held_back), (19, vec![]), "nothing waits any more");
    bed.assert_counts_are_right().await;
}

pub async fn a_group_is_held_back_in_its_queue_alone(bed: Bed) {
    with_other_queue(&bed).await;
    for queue in ["default", "other"] {
        let of = |text: &str| task(&format!("{text}-{queue}")).on(queue);
        bed.put_all(vec![of("g").group("g"), of("gd").group("g").needs("d"), of("h").group("h"), of("none")])
            .await;
    }
    // A dependency and a queue that are named like the group have nothing to do with it.
    let shut =
        [at_most(0, of_group("default", "g")), at_most(0, of_dependency("g")), at_most(0, of_queue("g"))];
    let claimed = take(&bed, 9, &shut).await;
    assert_eq!(
        given(&claimed),
        ["g-other", "gd-other", "h-default", "h-other", "none-default", "none-other"]
    );
    assert_eq!(claimed.held_back, [of_group("default", "g")]);
    let claimed = take(&bed, 9, &[at_most(1, of_group("default", "g"))]).await;
    assert_eq!((claimed.leases.len(), claimed.held_back), (1, vec![of_group("default", "g")]));
}

pub async fn what_is_in_several_scopes_is_charged_to_each_and_bound_by_the_lowest(bed: Bed) {
    with_other_queue(&bed).await;
    let in_all = |number: u32| task(&format!("a{number:02}")).needs("d").group("g");
    bed.put_all((0..20).map(in_all).collect()).await;
    bed.put_all((0..20).map(|number| task(&format!("b{number:02}")).needs("d").group("h")).collect()).await;
    bed.put_all((0..20).map(|number| task(&format!("c{number:02}")).on("other").needs("d")).collect()).await;
    let gates = [
        at_most(12, of_dependency("d")),
        at_most(7, of_queue("default")),
        at_most(3, of_group("default", "g")),
    ];
    let claimed = take(&bed, 100, &gates).await;
    let (a, b, c) = (count(&claimed, "a"), count(&claimed, "b"), count(&claimed, "c"));
    assert_eq!(a + b + c, 12, "the dependency's");
    assert!(a + b <= 7 && a <= 3, "{a} {b}");
    assert!(claimed.held_back.contains(&of_dependency("d")), "{:?}", claimed.held_back);
    let claimed = take(&bed, 100, &gates[1..]).await;
    let (a, b, c) = (count(&claimed, "a"), count(&claimed, "b"), count(&claimed, "c"));
    assert!(a + b == 7 && a <= 3 && c > 0, "{a} {b} {c}");
    assert!(claimed.held_back.contains(&of_queue("default")));
    bed.assert_counts_are_right().await;
}

pub async fn of_several_scopes_that_let_nothing_through_the_first_is_told(bed: Bed) {
    bed.put_all(vec![task("t").needs("d").group("g")]).await;
    // Where one lets it through the next one is told: nobody is to take anything of the others before.
    let order = [of_queue("default"), of_group("default", "g"), of_dependency("d")];
    for open in 0..order.len() {
        let restrict = |(place, scope): (usize, &Scope)| at_most(u32::from(place < open), scope.clone());
        let gates: Vec<Restriction> = order.iter().enumerate().rev().map(restrict).collect();
        let claimed = take(&bed, 9, &gates).await;
        assert_eq!((given(&claimed), &claimed.held_back[..]), (vec![], &order[open..=open]));
        let avoiding = Claim { avoid: vec![name("d")], ..of_both(9) };
        let claimed = bed.claim(vec![avoiding], &gates).await.unwrap().remove(0);
        assert_eq!(claimed.held_back, [], "what it avoids is not held back from it");
    }
    assert_eq!(given(&take(&bed, 9, &order.map(|scope| at_most(1, scope))).await), ["t"]);
}

pub async fn a_queue_that_lets_nothing_through_hides_no_other_however_many_lanes_it_has(bed: Bed) {
    with_other_queue(&bed).await;
    let of_group = |number: u32| task(&format!("t{number}")).group(&format!("g{number}"));
    bed.put_all((0..1_500).map(of_group).collect()).await;
    bed.advance(1);
    bed.put(task("well").on("other")).await;
    let claimed = take(&bed, 2, &[at_most(0, of_queue("default"))]).await;
    assert_eq!((given(&claimed), &claimed.held_back[..]), (vec!["well"], &[of_queue("default")][..]));
    assert_eq!(take(&bed, 9, &[at_most(3, of_queue("default"))]).await.leases.len(), 3);
}

pub async fn claims_of_one_call_share_what_a_queue_lets_through(bed: Bed) {
    bed.put_all(
        (0..30).map(|number| task(&format!("t{number}")).group(&format!("g{}", number % 3))).collect(),
    )
    .await;
    let gates = [at_most(7, of_queue("default")), at_most(1, of_group("default", "g1"))];
    let claimed = bed.claim(vec![claim_of(4), claim_of(4), claim_of(4)], &gates).await.unwrap();
    let leases = claimed.iter().flat_map(|one| &one.leases);
    assert_eq!(leases.clone().count(), 7);
    assert!(leases.filter(|lease| lease.group == Some(name("g1"))).count() <= 1);
    assert!(claimed.iter().any(|one| one.held_back.contains(&of_queue("default"))));
}

pub async fn what_is_too_late_uses_up_nothing_of_a_queue(bed: Bed) {
    bed.put_all((0..5).map(|number| task(&format!("late{number}")).deadline(10)).collect()).await;
    bed.advance(11);
    bed.put(task("fine")).await;
    assert_eq!(given(&take(&bed, 9, &[at_most(1, of_queue("default"))]).await), ["fine"]);
}
