use super::*;
use crate::blob::Sha256Sum;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn json(text: &str) -> Option<Content> {
    Some(Content::Inline(RawValue::from_string(text.to_owned()).unwrap()))
}

fn done(seq: u64, step: &str, state: Option<Content>) -> Checkpoint {
    Checkpoint { seq, step: name(step), completed: true, state, pending: None }
}

fn blob(id: u8, hash: u8) -> Option<Content> {
    let blob = BlobRef { blob: BlobId::new(9, [id; 10]), bytes: 3, sha256: Sha256Sum([hash; 32]) };
    Some(Content::Blob(blob))
}

#[test]
fn numbers_rise_and_gaps_do_no_harm() {
    let mut progress = Progress::default();
    assert!(progress.is_empty() && progress.saved_at_ms().is_none());
    assert_eq!(progress.save(done(1, "fetch", json("{\"a\": 1.0}")), 10), Ok(Saved::Now));
    assert_eq!(progress.save(done(7, "parse", None), 20), Ok(Saved::Now));
    assert_eq!(progress.save(done(6, "write", None), 30), Err(Refused::Behind { last: 7 }));
    assert_eq!(progress.save(done(0, "write", None), 30), Err(Refused::Behind { last: 7 }));
    assert_eq!((progress.seq, progress.saved_at_ms()), (7, Some(20)));
    assert_eq!(progress.completed("fetch").unwrap().state.as_ref().unwrap().get(), "{\"a\": 1.0}");
    assert!(progress.completed("write").is_none());
}

#[test]
fn what_was_accepted_elsewhere_is_noted_whatever_the_bounds() {
    let mut progress = Progress::default();
    let large = json(&format!("\"{}\"", "x".repeat(STATES_MAX_BYTES)));
    assert!(matches!(progress.save(done(1, "fetch", large.clone()), 10), Err(Refused::TooLarge { .. })));
    assert!(progress.is_empty());
    progress.put(done(1, "fetch", large), 10);
    assert_eq!(progress.inline_bytes_with(&name("parse"), 1), STATES_MAX_BYTES + 3);
    assert_eq!(progress.inline_bytes_with(&name("fetch"), 1), 1, "its own is replaced");
}

#[test]
fn the_same_checkpoint_again_is_a_repeat_and_another_of_its_number_is_not() {
    let mut progress = Progress::default();
    progress.save(done(1, "fetch", json("1")), 10).unwrap();
    progress.save(done(2, "parse", blob(1, 5)), 20).unwrap();
    for _ in 0..2 {
        assert_eq!(progress.save(done(1, "fetch", json("1")), 99), Ok(Saved::Before));
        // Uploaded twice, it has two names.
        assert_eq!(progress.save(done(2, "parse", blob(2, 5)), 99), Ok(Saved::Before));
    }
    assert_eq!(progress.blobs().collect::<Vec<_>>(), [BlobId::new(9, [1; 10])], "the first is what counts");
    let unlike = [
        done(2, "write", blob(1, 5)),
        done(2, "parse", blob(1, 6)),
        done(2, "parse", json("1")),
        done(2, "parse", None),
        Checkpoint { completed: false, ..done(2, "parse", blob(1, 5)) },
    ];
    for other in unlike {
        assert_eq!(progress.save(other, 99), Err(Refused::Behind { last: 2 }));
    }
    assert_eq!(progress.saved_at_ms(), Some(20));
}

#[test]
fn a_repeat_is_one_wherever_its_state_went_before_and_goes_now() {
    use sha2::{Digest, Sha256};

    let text = r#"{ "n" : 1.0 }"#;
    let contents = |text: &str, bytes: u64| {
        let sha256 = Sha256Sum(Sha256::digest(text).into());
        Some(Content::Blob(BlobRef { blob: BlobId::new(9, [1; 10]), bytes, sha256 }))
    };
    let there = || contents(text, 13);
    for (first, again) in [(json(text), there()), (there(), json(text))] {
        let mut progress = Progress::default();
        progress.save(done(1, "fetch", first.clone()), 10).unwrap();
        let before = serde_json::to_string(&progress).unwrap();
        assert_eq!(progress.save(done(1, "fetch", again), 99), Ok(Saved::Before));
        assert_eq!(serde_json::to_string(&progress).unwrap(), before, "the first is what counts");
        let others = [json(r#"{ "n" : 1.1 }"#), contents(text, 12), contents(r#"{ "n" : 1.1 }"#, 13), None];
        for other in others {
            assert_eq!(progress.save(done(1, "fetch", other), 99), Err(Refused::Behind { last: 1 }));
        }
    }
    let mut progress = Progress::default();
    progress.save(done(1, "fetch", None), 10).unwrap();
    for other in [json(text), there()] {
        assert_eq!(progress.save(done(1, "fetch", other), 99), Err(Refused::Behind { last: 1 }));
    }
}

#[test]
fn a_step_that_is_saved_again_keeps_its_place() {
    let mut progress = Progress::default();
    let halfway = |seq, state| Checkpoint { completed: false, ..done(seq, "fetch", json(state)) };
    progress.save(halfway(1, "1"), 10).unwrap();
    progress.save(done(2, "other", None), 20).unwrap();
    progress.save(halfway(3, "2"), 30).unwrap();
    assert!(progress.completed("fetch").is_none());
    progress.save(done(4, "fetch", json("3")), 40).unwrap();
    let order: Vec<&str> = progress.steps.iter().map(|step| step.step.as_str()).collect();
    assert_eq!(order, ["fetch", "other"]);
    assert_eq!(progress.completed("fetch").unwrap().seq, 4);
    // Its earlier number is gone with what it said.
    assert_eq!(progress.save(halfway(3, "2"), 50), Err(Refused::Behind { last: 4 }));
}

#[test]
fn what_is_done_is_not_pending_any_more() {
    let mut progress = Progress::default();
    let steps = ["fetch", "parse", "write"].map(name).to_vec();
    progress.save(Checkpoint { pending: Some(steps), ..done(1, "fetch", None) }, 1).unwrap();
    assert_eq!(progress.pending, ["parse", "write"].map(name));
    progress.save(Checkpoint { completed: false, ..done(2, "parse", None) }, 2).unwrap();
    assert_eq!(progress.pending.len(), 2, "it only began");
    progress.save(done(3, "parse", None), 3).unwrap();
    assert_eq!(progress.pending, ["write"].map(name));
}

#[test]
fn so_many_steps_and_so_many_bytes_and_no_more() {
    let mut progress = Progress::default();
    for seq in 1..=STEPS_MAX as u64 {
        progress.save(done(seq, &format!("step-{seq}"), None), 1).unwrap();
    }
    assert_eq!(progress.save(done(999, "one-more", None), 1).unwrap_err(), Refused::TooManySteps);
    let many = vec![name("x"); STEPS_MAX + 1];
    let checkpoint = Checkpoint { pending: Some(many), ..done(999, "step-1", None) };
    assert_eq!(progress.save(checkpoint, 1).unwrap_err(), Refused::TooManySteps);
    assert_eq!(
        progress.save(done(1_000, "step-1", None), 1),
        Ok(Saved::Now),
        "one that is there may be saved again"
    );

    let mut progress = Progress::default();
    let text = |bytes: usize| json(&format!("\"{}\"", "x".repeat(bytes - 2)));
    progress.save(done(1, "a", text(STATES_MAX_BYTES - 10)), 1).unwrap();
    assert_eq!(
        progress.save(done(2, "b", text(11)), 1),
        Err(Refused::TooLarge { bytes: STATES_MAX_BYTES + 1 })
    );
    assert_eq!(progress.seq, 1, "nothing was changed");
    assert_eq!(
        progress.save(done(2, "b", blob(1, 1)), 1),
        Ok(Saved::Now),
        "a blob does not lie in the store"
    );
    assert_eq!(
        progress.save(done(3, "a", text(STATES_MAX_BYTES)), 1),
        Ok(Saved::Now),
        "what it replaces does not count"
    );
}

#[test]
fn it_comes_back_from_json_as_it_was() {
    let mut progress = Progress::default();
    progress.save(done(1, "fetch", json("{ \"n\" :1.000}")), 10).unwrap();
    progress
        .save(Checkpoint { pending: Some(vec![name("write")]), ..done(2, "parse", blob(1, 5)) }, 20)
        .unwrap();
    let text = serde_json::to_string(&progress).unwrap();
    let back: Progress = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&back).unwrap(), text);
    assert!(text.contains("{ \"n\" :1.000}"), "{text}");
}
