//! Subscriptions.

use std::time::Duration;

use super::server::{Server, open, quick, words};
use crate::store::redis::link::{Hint, Hints};

async fn next(hints: &mut Hints) -> Hint {
    tokio::time::timeout(Duration::from_secs(20), hints.next()).await.expect("a hint")
}

/// Publishes until the subscription, which a gap announced, brings it.
fn message(text: &str) -> Hint {
    Hint::Message(text.into())
}

#[tokio::test]
async fn messages_arrive_and_a_lost_connection_is_a_gap() {
    let mut server = Server::start(&[]).await;
    let link = open(&server.url(), quick()).await;
    let mut hints = link.hints("news");
    assert_eq!(next(&mut hints).await, Hint::Gap, "a new subscription knows nothing of before");
    link.publish("news", b"one").await.unwrap();
    link.publish("other", b"-").await.unwrap();
    link.publish("news", b"two").await.unwrap();
    assert_eq!(next(&mut hints).await, message("one"));
    assert_eq!(next(&mut hints).await, message("two"));

    let _: i64 = server.ask(&words("CLIENT KILL TYPE pubsub")).await.unwrap();
    assert_eq!(next(&mut hints).await, Hint::Gap);
    link.publish("news", b"three").await.unwrap();
    assert_eq!(next(&mut hints).await, message("three"));

    server.kill();
    server.start_again().await;
    assert_eq!(next(&mut hints).await, Hint::Gap);
    server.signal("STOP");
    tokio::time::sleep(Duration::from_secs(4)).await;
    server.signal("CONT");
    assert_eq!(next(&mut hints).await, Hint::Gap, "what was published to a hung connection may be lost");
    drop(hints);
    link.query(&words("PING")).await.unwrap();
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_told() {
    let server = Server::start(&[]).await;
    let link = open(&server.url(), quick()).await;
    let mut hints = link.hints("news");
    assert_eq!(next(&mut hints).await, Hint::Gap);
    let mut pipe = redis::pipe();
    for n in 0..3_000 {
        pipe.cmd("PUBLISH").arg("news").arg(n);
    }
    link.pipeline(&pipe).await.unwrap();
    link.query(&words("PING")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut messages = 0;
    assert_eq!(next(&mut hints).await, Hint::Gap, "first of all");
    while let Ok(Hint::Message(_)) = tokio::time::timeout(Duration::from_millis(300), hints.next()).await {
        messages += 1;
    }
    assert!((1_000..3_000).contains(&messages), "{messages}");
}
