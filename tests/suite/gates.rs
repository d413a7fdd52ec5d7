//! Gates as the store keeps them: values that it does not understand, each changed by compare and swap.

use std::collections::BTreeMap;
use std::sync::Arc;

use redrive_coordinator::store::{GateCell, GateSwap, GateSwapped};
use redrive_shared::gate::Scope;
use redrive_shared::limits::{GATE_MAX_BYTES, GATES_MAX};

use crate::support::{Bed, of_dependency, of_group, of_queue};

/// A change of a gate that was made from that version.
pub fn swap(dependency: &str, seen: i64, value: &str) -> GateSwap {
    swap_of(of_dependency(dependency), seen, value)
}

fn swap_of(scope: Scope, seen: i64, value: &str) -> GateSwap {
    GateSwap { scope, seen, value: Some(value.to_owned()), tell: false }
}

fn forget(dependency: &str, seen: i64) -> GateSwap {
    GateSwap { value: None, ..swap(dependency, seen, "") }
}

async fn swap_one(bed: &Bed, swap: GateSwap) -> GateSwapped {
    let mut answers = bed.swap_gates(vec![swap]).await.unwrap();
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

/// Makes or changes a gate; returns its version.
async fn put(bed: &Bed, dependency: &str, seen: i64, value: &str) -> i64 {
    match swap_one(bed, swap(dependency, seen, value)).await {
        GateSwapped::Now(version) => version,
        other => panic!("nobody else changes it: {other:?}"),
    }
}

/// All gates by the key of their scope, and the change that they are as of.
async fn read(bed: &Bed) -> (i64, BTreeMap<String, (i64, String)>) {
    let gates = bed.gates(0).await.unwrap().expect("none was seen");
    let cells = gates.cells.into_iter();
    (gates.change, cells.map(|cell| (cell.scope.key().into_owned(), (cell.version, cell.value))).collect())
}

fn cell(dependency: &str, version: i64, value: &str) -> GateCell {
    GateCell { scope: of_dependency(dependency), version, value: value.to_owned() }
}

pub async fn at_first_there_is_no_gate(bed: Bed) {
    assert_eq!(read(&bed).await, (0, BTreeMap::new()));
    assert_eq!(bed.gates(7).await.unwrap().map(|gates| gates.change), Some(0), "what was seen is not there");
}

pub async fn a_gate_is_made_changed_and_forgotten(bed: Bed) {
    let first = put(&bed, "openai/team-1/gpt", 0, "shut { until: 7 }\n\u{1f6a7}").await;
    let (change, gates) = read(&bed).await;
    assert_eq!(gates["openai/team-1/gpt"], (first, "shut { until: 7 }\n\u{1f6a7}".to_owned()));
    assert_eq!(change, first);
    let second = put(&bed, "openai/team-1/gpt", first, "").await;
    assert!(second > first);
    assert_eq!(read(&bed).await.1["openai/team-1/gpt"], (second, String::new()), "an empty value is one");
    assert_eq!(swap_one(&bed, forget("openai/team-1/gpt", second)).await, GateSwapped::Now(0));
    let (last, gates) = read(&bed).await;
    assert!(gates.is_empty() && last > second, "that it is forgotten is a change");
    assert_eq!(swap_one(&bed, forget("openai/team-1/gpt", 0)).await, GateSwapped::Now(0));
    assert_eq!(read(&bed).await.0, last, "what is not there stays so");
}

pub async fn gates_of_one_name_are_apart_by_what_they_are_before(mut bed: Bed) {
    let scopes =
        [of_dependency("a"), of_queue("a"), of_group("a", "a"), of_group("a", "b"), of_group("b", "a")];
    let mut versions = Vec::new();
    for (place, scope) in scopes.iter().enumerate() {
        match swap_one(&bed, swap_of(scope.clone(), 0, &place.to_string())).await {
            GateSwapped::Now(version) => versions.push(version),
            other => panic!("{scope} is new: {other:?}"),
        }
    }
    assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
    bed.reopen().await;
    let (change, gates) = read(&bed).await;
    assert_eq!((change, gates.len()), (versions[4], 5));
    for (place, scope) in scopes.iter().enumerate() {
        assert_eq!(gates[&*scope.key()], (versions[place], place.to_string()));
    }
    let late = swap_one(&bed, swap_of(of_queue("a"), versions[0], "late")).await;
    let there = GateCell { scope: of_queue("a"), version: versions[1], value: "1".into() };
    assert_eq!(late, GateSwapped::Changed(Some(there)));
    let forget = GateSwap { value: None, ..swap_of(of_queue("a"), versions[1], "") };
    assert_eq!(swap_one(&bed, forget).await, GateSwapped::Now(0));
    let (last, gates) = read(&bed).await;
    assert!(last > change && !gates.contains_key(&*of_queue("a").key()) && gates.contains_key("a"));
    assert_eq!(gates.len(), 4);
}

pub async fn who_was_slower_changes_nothing_and_is_told_what_is_there(bed: Bed) {
    let first = put(&bed, "d", 0, "mine").await;
    let there = GateSwapped::Changed(Some(cell("d", first, "mine")));
    assert_eq!(swap_one(&bed, swap("d", 0, "yours")).await, there);
    assert_eq!(swap_one(&bed, swap("d", first - 1, "yours")).await, there);
    assert_eq!(swap_one(&bed, forget("d", first + 1)).await, there);
    assert_eq!(swap_one(&bed, forget("d", 0)).await, there);
    assert_eq!(swap_one(&bed, swap("e", first, "yours")).await, GateSwapped::Changed(None));
    assert_eq!(read(&bed).await, (first, BTreeMap::from([("d".into(), (first, "mine".into()))])));
}

pub async fn gates_that_did_not_change_are_not_read_again(bed: Bed) {
    let first = put(&bed, "d", 0, "one").await;
    assert_eq!(bed.gates(first).await.unwrap(), None);
    swap_one(&bed, swap("d", 1, "two")).await;
    assert_eq!(bed.gates(first).await.unwrap(), None, "nothing was changed");
    let second = put(&bed, "e", 0, "two").await;
    let gates = bed.gates(first).await.unwrap().expect("one was changed");
    assert_eq!((gates.change, gates.cells.len()), (second, 2), "they are told all together");
    assert_eq!(bed.gates(second).await.unwrap(), None);
}

pub async fn versions_rise_and_never_come_twice(bed: Bed) {
    let mut seen = vec![0];
    for round in 0..5 {
        let version = put(&bed, "d", 0, "again").await;
        seen.push(version);
        // Backwards, so that the store's clock alone would give the same numbers again.
        bed.advance(-1_000 * round);
        seen.push(put(&bed, "e", 0, "another").await);
        swap_one(&bed, forget("d", version)).await;
        seen.push(read(&bed).await.0);
        let last = *seen.iter().nth_back(1).unwrap();
        swap_one(&bed, forget("e", last)).await;
        seen.push(read(&bed).await.0);
    }
    assert!(seen.is_sorted_by(|one, next| one < next), "{seen:?}");
}

pub async fn a_batch_is_changed_gate_by_gate(bed: Bed) {
    let first = put(&bed, "there", 0, "before").await;
    let large = "x".repeat(GATE_MAX_BYTES + 1);
    let batch = vec![
        swap("new", 0, "made"),
        swap("there", first + 1, "too late"),
        swap("new", 0, "twice"),
        swap("large", 0, &large),
        swap("largest", 0, &large[1..]),
        swap("there", first, "after"),
    ];
    let answers = bed.swap_gates(batch).await.unwrap();
    let (change, gates) = read(&bed).await;
    let version = |dependency: &str| gates[dependency].0;
    let expected = [
        GateSwapped::Now(version("new")),
        GateSwapped::Changed(Some(cell("there", first, "before"))),
        GateSwapped::Changed(Some(cell("new", version("new"), "made"))),
        GateSwapped::NoRoom,
        GateSwapped::Now(version("largest")),
        GateSwapped::Now(version("there")),
    ];
    assert_eq!(answers, expected);
    assert_eq!(gates.keys().collect::<Vec<_>>(), ["largest", "new", "there"]);
    assert_eq!((gates["there"].1.as_str(), change), ("after", version("there")));
    assert!(version("new") < version("largest") && version("largest") < version("there"));
    assert_eq!(bed.swap_gates(Vec::new()).await.unwrap(), []);
}

pub async fn there_is_a_bound_on_gates(bed: Bed) {
    let all: Vec<String> = (0..GATES_MAX).map(|number| format!("d{number}")).collect();
    for part in all.chunks(1_000) {
        let answers = bed.swap_gates(part.iter().map(|gate| swap(gate, 0, "v")).collect()).await.unwrap();
        assert!(answers.iter().all(|answer| matches!(answer, GateSwapped::Now(1..))));
    }
    assert_eq!(swap_one(&bed, swap("one-more", 0, "v")).await, GateSwapped::NoRoom);
    assert_eq!(swap_one(&bed, swap_of(of_queue("q"), 0, "v")).await, GateSwapped::NoRoom, "of any kind");
    let (change, gates) = read(&bed).await;
    assert_eq!(gates.len(), GATES_MAX);
    put(&bed, "d7", gates["d7"].0, "those that are there can be changed").await;
    assert_eq!(swap_one(&bed, forget("d8", gates["d8"].0)).await, GateSwapped::Now(0));
    let GateSwapped::Now(version) = swap_one(&bed, swap_of(of_queue("q"), 0, "v")).await else {
        panic!("there is room for one")
    };
    assert!(version > change);
    assert_eq!(swap_one(&bed, swap("one-more", 0, "v")).await, GateSwapped::NoRoom);
}

pub async fn of_many_who_change_a_gate_at_once_one_is_first(bed: Bed) {
    let bed = Arc::new(bed);
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..8 {
        let bed = Arc::clone(&bed);
        callers.spawn(async move {
            // Each counts to ten, in one counter.
            let mut seen = GateCell { scope: of_dependency("d"), version: 0, value: "0".into() };
            let mut counted = 0;
            while counted < 10 {
                let next = (seen.value.parse::<u32>().unwrap() + 1).to_string();
                match swap_one(&bed, swap("d", seen.version, &next)).await {
                    GateSwapped::Now(version) => {
                        (seen, counted) = (GateCell { version, value: next, ..seen }, counted + 1);
                    }
                    GateSwapped::Changed(there) => seen = there.expect("nobody forgets it"),
                    GateSwapped::NoRoom => panic!("{caller}: there is room"),
                }
            }
        });
    }
    callers.join_all().await;
    assert_eq!(read(&bed).await.1["d"].1, "80");
}
