//! What every storage does, one function a behaviour.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::{StreamExt, future, stream};
use redrive_coordinator::blobs::{BlobError, BlobKey};

use super::bed::{Bed, MIB, body, body_that_stops, bytes, key};
use crate::support::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(20);
/// More than any storage takes in one piece: the upload is under way by then.
const SOME: usize = 11 * MIB;

pub async fn what_was_put_comes_back(bed: &Bed<'_>) {
    let borders = [MIB, 2 * MIB, 5 * MIB, 10 * MIB].into_iter().flat_map(|size| [size - 1, size, size + 1]);
    for (number, length) in [0, 1, 16].into_iter().chain(borders).enumerate() {
        let (key, bytes) = (key("task", number as u8), bytes(length));
        bed.put(&key, &bytes).await;
        assert!(bed.get(&key).await.as_ref() == Some(&bytes), "{length} bytes");
    }
}

pub async fn what_is_not_there_is_none(bed: &Bed<'_>) {
    bed.put(&key("a", 1), b"{}").await;
    for absent in [key("a", 2), key("b", 1)] {
        bed.assert_nothing(&absent).await;
        bed.blobs.remove(&[absent]).await.unwrap();
    }
    bed.blobs.remove(&[]).await.unwrap();
    assert_eq!(bed.list(10).await, [key("a", 1)]);
}

pub async fn what_is_removed_is_gone_and_the_others_stay(bed: &Bed<'_>) {
    let keys = [key("a", 1), key("a", 2), key("b", 1), key("c", 1)];
    for key in &keys {
        bed.put(key, &bytes(2 * MIB + 7)).await;
    }
    // One of them twice, and one that never was.
    bed.blobs.remove(&[keys[1].clone(), keys[2].clone(), keys[1].clone(), key("d", 9)]).await.unwrap();
    for gone in &keys[1..3] {
        bed.assert_nothing(gone).await;
    }
    for left in [&keys[0], &keys[3]] {
        assert_eq!(bed.get(left).await, Some(bytes(2 * MIB + 7)));
    }
    assert_eq!(bed.list(10).await.len(), 2);
    bed.put(&keys[2], b"again").await;
    assert_eq!(bed.get(&keys[2]).await.unwrap(), b"again");
}

pub async fn a_list_goes_on_where_it_ended(bed: &Bed<'_>) {
    assert_eq!(bed.list(3).await, []);
    let long = "L".repeat(128);
    let tasks = ["a", "a/b", "a-b", "B", "b", "é", &long];
    let keys: Vec<BlobKey> =
        tasks.iter().flat_map(|task| [key(task, 2), key(task, 1), key(task, 3)]).collect();
    for key in &keys {
        bed.put(key, b"{}").await;
    }
    let whole = bed.list(1_000).await;
    assert_eq!(whole.iter().collect::<BTreeSet<_>>(), keys.iter().collect::<BTreeSet<_>>());
    for page in [1, 2, 3, keys.len(), keys.len() + 1] {
        assert_eq!(bed.list(page).await, whole, "in pages of {page}");
    }
    // Also when what it ended with is gone by then.
    bed.blobs.remove(&whole[4..5]).await.unwrap();
    assert_eq!(bed.blobs.list(Some(&whole[4]), 1_000).await.unwrap(), whole[5..]);
    let together = whole.chunk_by(|one, next| one.task == next.task).count();
    assert_eq!(together, tasks.len(), "a task's blobs are together");
}

pub async fn an_upload_that_fails_leaves_nothing(bed: &Bed<'_>) {
    for (number, length) in [0, 1, MIB, SOME].into_iter().enumerate() {
        let key = key("task", number as u8);
        let broken = stream::iter([Err(BlobError::Interrupted("the caller hung up".into()))]);
        let error = bed.blobs.put(&key, body(bytes(length)).chain(broken).boxed()).await.unwrap_err();
        assert!(matches!(error, BlobError::Interrupted(_)), "{error}");
        bed.assert_nothing(&key).await;
    }
    assert_eq!(bed.list(10).await, [], "nothing is left to be removed either");
}

pub async fn a_call_that_is_dropped_leaves_nothing_that_cannot_be_removed(bed: &Bed<'_>) {
    let key = key("task", 1);
    let mut putting = bed.blobs.put(&key, body_that_stops(bytes(SOME)));
    let seen = future::select(&mut putting, Box::pin(is_listed(bed, &key))).await;
    assert!(matches!(seen, future::Either::Right(_)), "it cannot end before its bytes do");
    bed.assert_nothing(&key).await;
    drop(putting);
    bed.assert_nothing(&key).await;
    bed.blobs.remove(std::slice::from_ref(&key)).await.unwrap();
    eventually("nothing is left", PATIENCE, async || bed.list(10).await.is_empty().then_some(())).await;
    if let Some(directory) = bed.place.directory().filter(|_| bed.place.address("").starts_with("file")) {
        assert_eq!(files(&directory.join(bed.name)), [] as [PathBuf; 0]);
    }
    if let super::bed::Place::S3(server) = bed.place {
        assert_eq!(server.uploads_under_way().await, 0, "what nobody sees is not kept either");
    }
    bed.put(&key, b"{}").await;
    assert_eq!(bed.get(&key).await.unwrap(), b"{}");
}

/// Waits until an upload is seen by who looks for what is to be removed.
async fn is_listed(bed: &Bed<'_>, key: &BlobKey) {
    eventually("an upload that is under way is listed", PATIENCE, async || {
        bed.list(10).await.contains(key).then_some(())
    })
    .await;
}

/// Everything below a directory.
fn files(directory: &std::path::Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { [files(&path), vec![path]].concat() } else { vec![path] }
        })
        .collect()
}

pub async fn an_upload_that_is_removed_meanwhile_is_never_there(bed: &Bed<'_>) {
    let key = key("task", 1);
    let (go_on, waits) = tokio::sync::oneshot::channel::<()>();
    let rest = stream::once(async move {
        waits.await.unwrap();
        Ok(bytes(3 * MIB).into())
    });
    let putting = bed.blobs.put(&key, body(bytes(SOME)).chain(rest).boxed());
    let removing = async {
        is_listed(bed, &key).await;
        bed.blobs.remove(std::slice::from_ref(&key)).await.unwrap();
        // It may have noticed before it came so far.
        let _noticed = go_on.send(());
    };
    let (put, ()) = future::join(putting, removing).await;
    assert!(put.is_err(), "what was removed must not be acknowledged");
    bed.assert_nothing(&key).await;
}

pub async fn ids_that_differ_in_case_are_apart(bed: &Bed<'_>) {
    let keys = ["task", "Task", "TASK", "tasK", "täsk", "TÄSK"].map(|task| key(task, 1));
    for key in &keys {
        bed.put(key, key.task.as_bytes()).await;
    }
    for key in &keys {
        assert_eq!(bed.get(key).await.unwrap(), key.task.as_bytes());
    }
    bed.blobs.remove(&keys[1..2]).await.unwrap();
    assert_eq!(bed.list(100).await.len(), keys.len() - 1);
    assert_eq!(bed.get(&keys[0]).await.unwrap(), b"task");
}

pub async fn ids_lead_nowhere_else(bed: &Bed<'_>) {
    let long = "x".repeat(128);
    let hostile = [
        "../../escaped",
        "/etc/escaped",
        "a/../../escaped",
        "a/b/c",
        "...",
        "a+",
        "a",
        "a.json",
        "a#upload",
        "~",
        "=",
        "a:b",
        "@",
        "-",
        "ß/ẞ",
        &long,
        &"é".repeat(64),
        &"/".repeat(128),
    ];
    let keys: Vec<BlobKey> = hostile.iter().map(|task| key(task, 1)).collect();
    for key in &keys {
        bed.put(key, key.task.as_bytes()).await;
    }
    for key in &keys {
        assert_eq!(bed.get(key).await.unwrap(), key.task.as_bytes());
    }
    let listed = bed.list(100).await;
    assert_eq!(listed.iter().collect::<BTreeSet<_>>(), keys.iter().collect::<BTreeSet<_>>());
    if let Some(directory) = bed.place.directory() {
        let outside = |path: &PathBuf| !path.file_name().unwrap().to_str().unwrap().starts_with(bed.name);
        let beside: Vec<PathBuf> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(outside)
            .collect();
        assert_eq!(beside, [] as [PathBuf; 0]);
        assert!(!directory.parent().unwrap().join("escaped").exists());
    }
    bed.blobs.remove(&keys).await.unwrap();
    assert_eq!(bed.list(100).await, []);
}

pub async fn many_at_once_do_not_mix(bed: &Bed<'_>) {
    let keys: Vec<BlobKey> = (0..12).map(|number| key(["a", "b"][usize::from(number) % 2], number)).collect();
    let length = |place: usize| 700_000 * (place + 1);
    future::join_all(keys.iter().enumerate().map(|(place, key)| async move {
        bed.put(key, &bytes(length(place))).await;
    }))
    .await;
    let got = future::join_all(keys.iter().map(|key| bed.get(key))).await;
    for (place, got) in got.into_iter().enumerate() {
        assert!(got == Some(bytes(length(place))), "{place}");
    }
}

pub async fn opened_again_it_has_what_it_had(bed: &Bed<'_>) {
    let key = key("task", 1);
    bed.put(&key, &bytes(6 * MIB)).await;
    let again = Bed { blobs: bed.place.open(bed.name).await.unwrap(), ..*bed };
    assert_eq!(again.get(&key).await, Some(bytes(6 * MIB)));
    let elsewhere = Bed { blobs: bed.place.open("elsewhere").await.unwrap(), ..*bed };
    assert_eq!(elsewhere.get(&key).await, None, "places of other names are apart");
}

pub async fn it_says_what_it_is_and_that_it_works(bed: &Bed<'_>) {
    bed.blobs.check().await.unwrap();
    let said = bed.blobs.describe();
    let scheme = bed.place.address("x");
    assert_eq!(said.split(':').next(), scheme.split(':').next());
    assert!(!said.contains("hidden"), "{said}");
    assert_eq!(bed.list(10).await, [], "opening it leaves nothing behind");
}
