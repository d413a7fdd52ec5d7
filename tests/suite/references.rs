//! Payloads, results and states that are blobs: a reference stands in their place, and the store knows which are needed.

use redrive_coordinator::store::{CheckpointSaved, Ending, Enqueue, Enqueued};
use redrive_shared::blob::{BlobId, BlobRef, Content, Sha256Sum};
use redrive_shared::checkpoint::Checkpoint;
use redrive_shared::task::TaskState;

use crate::support::{Bed, EnqueueExt, blob, checkpoint, id, ids, raw, save_of, task};

/// A task whose payload is a blob.
fn with_payload(text: &str, payload: BlobRef) -> Enqueue {
    Enqueue { payload: Content::Blob(payload), ..task(text) }
}

async fn blobs(bed: &Bed, task: &str) -> Vec<BlobId> {
    let mut blobs = bed.blobs(&[id(task)]).await.unwrap();
    assert_eq!(blobs.len(), 1);
    let mut blobs = blobs.remove(0).expect("it can be read");
    blobs.sort();
    blobs
}

pub async fn a_payload_s_reference_takes_its_place(mut bed: Bed) {
    let payload = blob(&bed, 1);
    bed.put_all(vec![with_payload("t", payload)]).await;
    bed.reopen().await;
    let view = bed.view("t").await;
    assert_eq!((view.payload.map(|json| json.to_string()), view.payload_ref), (None, Some(payload)));
    let lease = bed.take_one().await;
    assert_eq!((lease.payload.get(), lease.payload_ref), ("null", Some(payload)));
    bed.finish(&lease, Ending::Snoozed { delay_ms: 0 }).await;
    assert_eq!(bed.take_one().await.payload_ref, Some(payload), "after a transition, too");
    for seen in [bed.status(ids(&["t"])).await.unwrap(), bed.everything().await] {
        assert!(seen.len() == 1 && seen[0].payload.is_none() && seen[0].payload_ref.is_none(), "{seen:?}");
    }
}

pub async fn the_same_contents_under_another_name_are_a_duplicate(bed: Bed) {
    let payload = blob(&bed, 1);
    bed.put_all(vec![with_payload("t", payload)]).await;
    let again = BlobRef { blob: blob(&bed, 2).blob, ..payload };
    let known = Enqueued::Duplicate { state: TaskState::Scheduled, due_ms: bed.now_ms() };
    assert_eq!(bed.put(with_payload("t", again)).await, known);
    let longer = BlobRef { bytes: payload.bytes + 1, ..payload };
    let other = BlobRef { sha256: Sha256Sum([9; 32]), ..payload };
    let inline = task("t").payload(&serde_json::to_string(&payload).unwrap());
    for other in [with_payload("t", longer), with_payload("t", other), inline, task("t")] {
        assert_eq!(bed.put(other).await, Enqueued::IdReused);
    }
    assert_eq!(bed.take_one().await.payload_ref, Some(payload), "the first one stands");
}

pub async fn a_result_s_reference_takes_its_place(mut bed: Bed) {
    let result = blob(&bed, 1);
    let lease = bed.put_and_take(task("t")).await;
    assert_eq!(bed.finish(&lease, Ending::Done(Some(Content::Blob(result)))).await.0, TaskState::Succeeded);
    bed.reopen().await;
    let view = bed.view("t").await;
    assert_eq!((view.result.map(|json| json.to_string()), view.result_ref), (None, Some(result)));
    let status = bed.status(ids(&["t"])).await.unwrap().remove(0);
    assert!(status.result.is_none() && status.result_ref == Some(result), "who asks for results gets it");
    let listed = bed.everything().await.remove(0);
    assert!(listed.result.is_none() && listed.result_ref.is_none(), "lists have no results");
}

pub async fn the_store_tells_which_blobs_are_needed(mut bed: Bed) {
    let [payload, result, first, second, text] = [1, 2, 3, 4, 5].map(|random| blob(&bed, random));
    let saved = async |bed: &Bed, lease: &_, seq, step, state: Content| {
        let checkpoint = Checkpoint { state: Some(state), ..checkpoint(seq, step) };
        let answers = bed.save_checkpoints(vec![save_of(lease, checkpoint)]).await.unwrap();
        assert!(matches!(answers[..], [CheckpointSaved::Saved { .. }]), "{answers:?}");
    };
    bed.put_all(vec![with_payload("t", payload), task("plain").delay(10)]).await;
    assert_eq!(blobs(&bed, "t").await, [payload.blob]);
    let lease = bed.take_one().await;
    saved(&bed, &lease, 1, "a", Content::Blob(first)).await;
    saved(&bed, &lease, 2, "b", Content::Blob(second)).await;
    // JSON that looks like a reference is none.
    let like_one = raw(&serde_json::to_string(&text).unwrap());
    saved(&bed, &lease, 3, "c", like_one.into()).await;
    bed.reopen().await;
    assert_eq!(blobs(&bed, "t").await, [payload.blob, first.blob, second.blob]);
    saved(&bed, &lease, 4, "a", raw("1").into()).await;
    assert_eq!(blobs(&bed, "t").await, [payload.blob, second.blob], "a state that was replaced is not");
    bed.finish(&lease, Ending::Done(Some(Content::Blob(result)))).await;
    let left = blobs(&bed, "t").await;
    assert!(left.contains(&result.blob) && left.contains(&second.blob), "{left:?}");
    let all = bed.blobs(&ids(&["nowhere", "plain", "t", "plain"])).await.unwrap();
    let none: Vec<bool> = all.into_iter().map(|blobs| blobs.unwrap().is_empty()).collect();
    assert_eq!(none, [true, true, false, true]);
    assert!(bed.blobs(&[]).await.unwrap().is_empty());
    bed.advance(48 * 3_600_000);
    assert_eq!(bed.forget(1).await.unwrap(), 1);
    assert_eq!(blobs(&bed, "t").await, []);
}

pub async fn blobs_of_many_tasks_are_told_in_order(bed: Bed) {
    let names: Vec<String> = (0..150).map(|number| format!("t{number}")).collect();
    let payloads: Vec<BlobRef> = (0..150).map(|number| blob(&bed, number)).collect();
    let tasks = names.iter().zip(&payloads).map(|(text, payload)| with_payload(text, *payload));
    bed.put_all(tasks.collect()).await;
    let told = bed.blobs(&names.iter().map(|text| id(text)).collect::<Vec<_>>()).await.unwrap();
    let expected: Vec<Option<Vec<BlobId>>> =
        payloads.iter().map(|payload| Some(vec![payload.blob])).collect();
    assert_eq!(told, expected);
}

/// As the engine hands tasks over whose payload is not there.
fn only_compared(text: &str, payload: BlobRef) -> Enqueue {
    Enqueue { only_compared: true, ..with_payload(text, payload) }
}

pub async fn a_task_whose_payload_is_gone_is_compared_and_never_made(bed: Bed) {
    let [payload, result, other] = [1, 2, 3].map(|random| blob(&bed, random));
    bed.put_all(vec![with_payload("waits", payload).delay(9), with_payload("done", payload)]).await;
    let lease = bed.take_one().await;
    bed.finish(&lease, Ending::Done(Some(Content::Blob(result)))).await;
    bed.advance(2 * 3_600_000);
    let batch = vec![
        only_compared("new", payload),
        only_compared("done", payload),
        task("beside"),
        Enqueue { only_compared: true, ..task("inline") },
        only_compared("waits", payload),
        only_compared("done", BlobRef { sha256: Sha256Sum([9; 32]), ..other }),
        only_compared("new", payload),
    ];
    let answers = bed.enqueue(batch).await.unwrap();
    assert_eq!(answers[0], Enqueued::UnknownPayload);
    assert!(matches!(answers[1], Enqueued::Duplicate { state: TaskState::Succeeded, .. }), "{answers:?}");
    assert!(matches!(answers[2], Enqueued::Created { .. }), "{answers:?}");
    assert_eq!(answers[3], Enqueued::UnknownPayload);
    assert!(matches!(answers[4], Enqueued::Duplicate { state: TaskState::Scheduled, .. }), "{answers:?}");
    assert_eq!(answers[5..], [Enqueued::IdReused, Enqueued::UnknownPayload]);
    // Alone, too: then nothing but a comparison is asked for.
    assert_eq!(bed.put(only_compared("new", payload)).await, Enqueued::UnknownPayload);
    for never in ["new", "inline"] {
        assert!(bed.get(&id(never)).await.unwrap().is_none(), "{never} was made");
    }
    assert_eq!(bed.everything().await.len(), 3);
    bed.assert_counts_are_right().await;
    let mut given = bed.take_ids(9).await;
    given.sort();
    assert_eq!(given, ["beside", "waits"]);
    assert_eq!(bed.view("done").await.result_ref, Some(result), "what was there is as it was");
}

pub async fn a_payload_that_became_too_old_meanwhile_is_not_referred_to(bed: Bed) {
    const MAX_AGE_MS: i64 = 45 * 60_000;
    let payload = blob(&bed, 1);
    bed.advance(MAX_AGE_MS);
    assert!(matches!(bed.put(with_payload("in-time", payload)).await, Enqueued::Created { .. }));
    bed.advance(1);
    let young = blob(&bed, 2);
    let batch = vec![
        with_payload("young", young),
        with_payload("late", payload),
        with_payload("in-time", payload),
        task("inline"),
    ];
    let answers = bed.enqueue(batch).await.unwrap();
    assert!(matches!(answers[0], Enqueued::Created { .. }), "{answers:?}");
    assert_eq!(answers[1], Enqueued::UnknownPayload, "the sweep may have begun to look at it");
    assert!(matches!(answers[2], Enqueued::Duplicate { .. }), "{answers:?}");
    assert!(matches!(answers[3], Enqueued::Created { .. }), "{answers:?}");
    assert_eq!(bed.put(with_payload("late", payload)).await, Enqueued::UnknownPayload);
    assert!(bed.get(&id("late")).await.unwrap().is_none());
    bed.assert_counts_are_right().await;
    let mut given = bed.take_ids(9).await;
    given.sort();
    assert_eq!(given, ["in-time", "inline", "young"]);
}
