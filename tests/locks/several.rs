//! Several coordinators share the locks, and they outlive each of them.

use std::time::Duration;

use redrive_shared::lock::Token;

use super::{PATIENCE, release, renew, take, wish};
use crate::support::process::Coordinator;
use crate::support::redis::RedisServer;
use crate::support::wait::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_line_stands_before_all_coordinators() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let (a, b) = tokio::join!(Coordinator::on(&url), Coordinator::on(&url));
    let clients = [a.client(), b.client()];
    let first = take(&clients[0], &wish("first", "f", 0)).await;
    let mut waiting = Vec::new();
    for place in 0..12_usize {
        let (client, name) = (clients[place % 2].clone(), format!("waits-{place}"));
        waiting.push(tokio::spawn(async move {
            let grant = take(&client, &wish(&name, "f", 50_000)).await;
            release(&client, &name, &grant).await;
            grant.token
        }));
        let ask = async || (clients[0].locks().await.unwrap().waiting.len() == place + 1).then_some(());
        eventually("it stands in line", PATIENCE, ask).await;
    }
    release(&clients[1], "first", &first).await;
    let mut tokens: Vec<Token> = vec![first.token];
    for one in waiting {
        tokens.push(tokio::time::timeout(PATIENCE, one).await.expect("all are served").unwrap());
    }
    assert!(tokens.is_sorted() && tokens.windows(2).all(|pair| pair[0] < pair[1]), "{tokens:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_killed_takes_no_lock_and_no_line_with_it() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let (mut a, b) = tokio::join!(Coordinator::on(&url), Coordinator::on(&url));
    let (at_a, at_b) = (a.client(), b.client());
    let held = take(&at_a, &wish("holder", "f", 0)).await;
    // One waits at the coordinator that dies, and before the one at the other.
    let lost = tokio::spawn({
        let at_a = at_a.clone();
        async move { at_a.acquire_lock(&wish("lost", "f", 40_000), 40_000).await.is_err() }
    });
    let in_line = async |count: usize| {
        let ask = async || (at_b.locks().await.unwrap().waiting.len() == count).then_some(());
        eventually("they stand in line", PATIENCE, ask).await;
    };
    in_line(1).await;
    let next = tokio::spawn({
        let at_b = at_b.clone();
        async move { take(&at_b, &wish("next", "f", 40_000)).await }
    });
    in_line(2).await;
    a.kill().await;
    assert!(lost.await.unwrap(), "its caller learns of it");
    assert_eq!(renew(&at_b, "holder", &held).await.lost, None, "any coordinator will do");
    release(&at_b, "holder", &held).await;
    // The dead one is offered it, does not pick it up within 3 s, and is passed; or is not heard of for 15 s.
    let granted = tokio::time::timeout(Duration::from_secs(30), next).await.expect("it is passed").unwrap();
    assert!(granted.token > held.token);
}
