//! Values that cannot be read though their version is known: damaged, cut off, or not a task at all. Their neighbours live on
//! through every verb, and they are put off rather than dropped: who mends one finds it where it was.

use redrive_coordinator::store::{Acted, Ending, Enqueued, Extend, Extended, Settled};
use redrive_shared::gate::Standing;
use redrive_shared::task::{Lease, TaskState};

use crate::support::redis::RedisServer;
use crate::support::{Bed, EnqueueExt, RedisBackend, claim_of, fence, id, ids, name, settle_of, task};

/// One task for each way of being damaged, and healthy ones around them.
const ALL: [&str; 7] = ["a-fine", "b-garbled", "c-fine", "d-cut", "e-stub", "f-half", "g-fine"];
const FINE: [&str; 3] = ["a-fine", "c-fine", "g-fine"];
const DAMAGED: [&str; 4] = ["b-garbled", "d-cut", "e-stub", "f-half"];

async fn bed() -> (RedisServer, Bed) {
    let redis = RedisServer::start().await;
    let bed = Bed::new(RedisBackend::at(&redis.url(), "rd", 1)).await;
    (redis, bed)
}

fn key(task: &str) -> String {
    format!("rd:{{0}}:t:{task}")
}

/// Damages tasks, each in its way. What they were is kept.
async fn damage(redis: &RedisServer) {
    const CUT: &str = "redis.call('SET', KEYS[1], string.sub(redis.call('GET', KEYS[1]), 1, ARGV[1]))";
    for damaged in DAMAGED {
        let key = key(damaged);
        redis.command(&["COPY", &key, &format!("kept:{{0}}:{damaged}"), "REPLACE"]).await;
        match damaged {
            // No protobuf begins so.
            "b-garbled" => redis.command(&["SETRANGE", &key, "50", &"\u{7f}".repeat(20)]).await,
            // Within what comes after the header, and within the header.
            "d-cut" => redis.command(&["EVAL", CUT, "1", &key, "59"]).await,
            "e-stub" => redis.command(&["SET", &key, "\u{1}123456789"]).await,
            _ => redis.command(&["EVAL", CUT, "1", &key, "30"]).await,
        };
    }
}

async fn mend(redis: &RedisServer) {
    for damaged in DAMAGED {
        redis.command(&["COPY", &format!("kept:{{0}}:{damaged}"), &key(damaged), "REPLACE"]).await;
    }
}

fn sorted(given: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
    let mut given: Vec<String> = given.into_iter().map(|id| id.as_ref().to_owned()).collect();
    given.sort_unstable();
    given
}

async fn reaped(bed: &Bed) -> Vec<String> {
    let round = bed.reap(100).await.unwrap();
    assert!(round.next_ms.is_none_or(|next_ms| next_ms > bed.now_ms()), "not at once again");
    sorted(round.reaped.iter().map(|lost| &*lost.id))
}

#[tokio::test]
async fn claims_get_the_neighbours_of_unreadable_tasks() {
    let (redis, bed) = bed().await;
    bed.put_all(ALL.map(task).to_vec()).await;
    damage(&redis).await;
    let wave = bed.claim(vec![claim_of(4), claim_of(4)], &[]).await.unwrap();
    let got: Vec<Lease> = wave.into_iter().flat_map(|claimed| claimed.leases).collect();
    assert_eq!(sorted(got.iter().map(|lease| &*lease.id)), FINE);
    assert_eq!(bed.take_ids(9).await, [""; 0], "they do not come at once again");
    for lease in &got {
        bed.finish(lease, Ending::Done(None)).await;
    }
    bed.advance(31_000);
    assert_eq!(reaped(&bed).await, [""; 0]);
}

#[tokio::test]
async fn a_payload_that_is_cut_off_fails_no_claim() {
    let (redis, bed) = bed().await;
    let payload = format!("\"{}\"", "x".repeat(3_000));
    bed.put_all(["first", "cut", "second"].map(|text| task(text).payload(&payload)).to_vec()).await;
    let cut = "redis.call('SET', KEYS[1], string.sub(redis.call('GET', KEYS[1]), 1, 1000))";
    redis.command(&["EVAL", cut, "1", &key("cut")]).await;
    assert_eq!(bed.take_ids(9).await, ["first", "second"]);
}

#[tokio::test]
async fn leases_beside_unreadable_ones_are_reaped_and_those_when_they_are_mended() {
    let (redis, bed) = bed().await;
    bed.put_all(ALL.map(task).to_vec()).await;
    assert_eq!(bed.take(9).await.len(), ALL.len());
    damage(&redis).await;
    bed.advance(31_000);
    assert_eq!(reaped(&bed).await, FINE);
    bed.advance(1_000);
    assert_eq!(reaped(&bed).await, [""; 0]);
    mend(&redis).await;
    assert_eq!(reaped(&bed).await, [""; 0], "they are put off");
    bed.advance(60_000);
    assert_eq!(reaped(&bed).await, DAMAGED);
}

#[tokio::test]
async fn late_tasks_beside_unreadable_ones_are_escalated_and_those_when_they_are_mended() {
    for others in [0, 200] {
        let (redis, bed) = bed().await;
        bed.pause(&name("default"), true).await.unwrap();
        bed.put_all(ALL.map(|text| task(text).deadline(20_000)).to_vec()).await;
        bed.put_all((0..others).map(|number| task(&format!("o{number}"))).collect()).await;
        damage(&redis).await;
        bed.advance(20_001);
        let round = bed.reap(100).await.unwrap();
        assert_eq!(sorted(round.too_late.iter().map(|id| &**id)), FINE);
        assert!(round.next_ms.is_none_or(|next_ms| next_ms > bed.now_ms()), "not at once again");
        mend(&redis).await;
        bed.advance(1_000);
        let round = bed.reap(100).await.unwrap();
        assert!(!round.too_late.contains(&id("b-garbled")), "it is put off: {round:?}");
        let mut escalated = sorted(round.too_late.iter().map(|id| &**id));
        for _ in 0..3 {
            bed.advance(60_001);
            escalated.extend(bed.reap(100).await.unwrap().too_late.iter().map(|id| id.to_string()));
        }
        assert_eq!(sorted(escalated), DAMAGED);
        assert_eq!(bed.state("b-garbled").await, TaskState::Escalated);
    }
}

#[tokio::test]
async fn finished_tasks_beside_unreadable_ones_are_forgotten_and_those_when_they_are_mended() {
    let (redis, bed) = bed().await;
    bed.put_all(ALL.map(task).to_vec()).await;
    for lease in bed.take(9).await {
        bed.finish(&lease, Ending::Done(None)).await;
    }
    damage(&redis).await;
    bed.advance(1_000_000_000);
    assert_eq!(bed.forget(4).await.unwrap() + bed.forget(4).await.unwrap(), FINE.len());
    mend(&redis).await;
    assert_eq!(bed.forget(9).await.unwrap(), 0, "they are put off");
    bed.advance(60_000);
    assert_eq!(bed.forget(9).await.unwrap(), DAMAGED.len());
    bed.assert_counts_are_right().await;
}

#[tokio::test]
async fn a_batch_that_names_unreadable_tasks_does_what_it_says_with_the_others() {
    let (redis, mut bed) = bed().await;
    bed.put_all(ALL.map(task).to_vec()).await;
    let leases = bed.take_by_id(9).await;
    // So that it has to read what it settles.
    bed.reopen().await;
    damage(&redis).await;
    let expected =
        |fine: Enqueued| ALL.map(|text| if FINE.contains(&text) { fine } else { Enqueued::Unreadable });
    let again = bed.enqueue([&ALL[..], &["new"]].concat().into_iter().map(task).collect()).await.unwrap();
    let leased = Enqueued::Duplicate { state: TaskState::Leased, due_ms: bed.now_ms() };
    assert_eq!(again[..ALL.len()], expected(leased));
    assert!(matches!(again[ALL.len()], Enqueued::Created { .. }));

    let extend =
        |lease: &Lease| Extend { id: lease.id.clone(), fence: fence(lease), lease_ms: None, run: None };
    let extended = bed.extend(leases.iter().map(extend).collect()).await.unwrap();
    for (lease, answer) in leases.iter().zip(extended) {
        assert!(!FINE.contains(&&*lease.id) || matches!(answer, Extended::Until(_)), "{answer:?}");
    }

    let settled = leases[..6].iter().map(|lease| settle_of(lease, Ending::Done(None)));
    let settled = bed.settle(settled.collect()).await.unwrap();
    for (lease, answer) in leases.iter().zip(settled) {
        let fine = FINE.contains(&&*lease.id);
        assert_eq!(fine, matches!(answer, Settled::Applied { .. }), "{}: {answer:?}", lease.id);
        assert_eq!(!fine, answer == Settled::Unreadable, "{}: {answer:?}", lease.id);
    }

    let cancelled = bed.cancel(ids(&["b-garbled", "g-fine", "e-stub", "nowhere"]), None).await.unwrap();
    assert!(matches!(cancelled[1], Acted::Now { state: TaskState::Cancelled, .. }), "{cancelled:?}");
    assert_eq!(
        [cancelled[0], cancelled[2], cancelled[3]],
        [Acted::Unreadable, Acted::Unreadable, Acted::Unknown]
    );
    let retried = bed.retry(ids(&["d-cut", "g-fine", "f-half"]), None, Standing::OPEN).await.unwrap();
    assert!(matches!(retried[1], Acted::Now { state: TaskState::Scheduled, .. }), "{retried:?}");
    assert_eq!([retried[0], retried[2]], [Acted::Unreadable; 2]);
    assert_eq!(bed.status(ids(&ALL)).await.unwrap().len(), FINE.len());
    assert_eq!(bed.everything().await.len(), FINE.len() + 1, "lists leave them out");
}

#[tokio::test]
async fn a_state_that_makes_no_sense_fails_no_batch() {
    let (redis, mut bed) = bed().await;
    bed.put_all(["fine", "odd"].map(task).to_vec()).await;
    let leases = bed.take_by_id(2).await;
    redis.command(&["SETRANGE", &key("odd"), "1", "\u{63}"]).await;
    let extend =
        |lease: &Lease| Extend { id: lease.id.clone(), fence: fence(lease), lease_ms: None, run: None };
    let extended = bed.extend(leases.iter().map(extend).collect()).await.unwrap();
    assert!(
        matches!(extended[..], [Extended::Until(_), Extended::Until(_)]),
        "its holder has it: {extended:?}"
    );
    bed.reopen().await;
    let settled = leases.iter().map(|lease| settle_of(lease, Ending::Done(None)));
    let settled = bed.settle(settled.collect()).await.unwrap();
    assert!(matches!(settled[..], [Settled::Applied { .. }, Settled::Unreadable]), "{settled:?}");
    bed.advance(40_000);
    bed.reap(10).await.unwrap();
    redis.command(&["ZREM", "rd:{0}:r", "odd"]).await;
    let extended = bed.extend(leases.iter().map(extend).collect()).await.unwrap();
    assert!(matches!(extended[..], [Extended::Stale(_), Extended::Unknown]), "{extended:?}");
}
