//! Faults of one Redis, and of the way to it.

use std::time::Duration;

use super::front::{Front, outage};
use crate::support::proxy::{Fault, Proxy, Way};
use crate::support::redis::{AppendFsync, RedisOptions, RedisServer, ask};
use crate::support::wait::eventually;

const UNAVAILABLE: &str = "store_unavailable";

/// A Redis that keeps what it acknowledged.
fn durable() -> RedisOptions {
    RedisOptions::default().append_only(AppendFsync::Always)
}

#[tokio::test]
async fn a_redis_that_hangs_dies_fills_up_or_is_demoted_is_told_and_survived() {
    let redis = &mut RedisServer::with(durable()).await;
    let front = &mut Front::start(&redis.url(), 0).await;
    let hang = async |redis: &mut RedisServer| redis.suspend();
    let go_on = async |redis: &mut RedisServer| redis.resume();
    outage(front, redis, ("hang", UNAVAILABLE), hang, go_on).await;
    let demote = async |redis: &mut RedisServer| drop(redis.command(&["REPLICAOF", "127.0.0.1", "1"]).await);
    let promote = async |redis: &mut RedisServer| drop(redis.command(&["REPLICAOF", "NO", "ONE"]).await);
    outage(front, redis, ("readonly", UNAVAILABLE), demote, promote).await;
    let fill =
        async |redis: &mut RedisServer| drop(redis.command(&["CONFIG", "SET", "maxmemory", "64kb"]).await);
    let drain =
        async |redis: &mut RedisServer| drop(redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await);
    outage(front, redis, ("full", "store_full"), fill, drain).await;
    let die = async |redis: &mut RedisServer| redis.kill();
    let come_back = async |redis: &mut RedisServer| redis.restart().await;
    outage(front, redis, ("kill", UNAVAILABLE), die, come_back).await;
    front.finish().await;
}

#[tokio::test]
async fn a_redis_that_loads_its_data_is_waited_for() {
    let mut redis = RedisServer::with(durable().set("rdbcompression", "no")).await;
    let mut front = Front::start(&redis.url(), 0).await;
    front.put_well("before").await;
    // Two seconds' worth of keys, in the part of the file during whose loading Redis answers, after every 2 MiB.
    let filling = "for i = 1, 4000 do redis.call('SET', 'filler:' .. i, string.rep('x', 4096)) end";
    redis.command(&["EVAL", filling, "0"]).await;
    redis.command(&["BGREWRITEAOF"]).await;
    let rewritten = async || {
        let state = redis.command(&["INFO", "persistence"]).await;
        let done = ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"];
        done.iter().all(|line| state.contains(line)).then_some(())
    };
    eventually("the file is rewritten", Duration::from_secs(20), rewritten).await;
    redis.kill();
    let port = redis.port();
    let loading = async {
        let mut seen = false;
        while !front.is_ready().await {
            let answer = front.put("during").await;
            if answer.status != 200 {
                answer.assert_refused("loading", UNAVAILABLE);
            }
            seen |= ask(port, &["PING"]).await.is_err_and(|error| error.code() == Some("LOADING"));
        }
        seen
    };
    let ((), seen) = tokio::join!(redis.restart_with("key-load-delay", "500"), loading);
    assert!(seen, "it was met while it loaded");
    front.put_until_taken("during").await;
    front.finish().await;
}

#[tokio::test]
async fn scripts_that_are_flushed_are_loaded_again_unnoticed() {
    let redis = RedisServer::start().await;
    let mut front = Front::start(&redis.url(), 0).await;
    for round in 0..3 {
        redis.command(&["SCRIPT", "FLUSH"]).await;
        front.put_well(&format!("flushed-{round}")).await;
        redis.command(&["SCRIPT", "FLUSH"]).await;
        assert!(front.is_ready().await);
    }
    redis.command(&["SCRIPT", "FLUSH"]).await;
    front.finish().await;
}

#[tokio::test]
async fn a_batch_that_is_cut_off_can_be_repeated_and_doubles_nothing() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::to_port(redis.port()).await;
    let mut front = Front::start(&format!("redis://127.0.0.1:{}", proxy.port()), 0).await;
    front.put_well("before").await;
    for (way, bytes) in
        [(Way::Requests, 700), (Way::Responses, 0), (Way::Requests, 1_900), (Way::Responses, 5)]
    {
        let batch = format!("{way:?}-{bytes}");
        proxy.cut(way, bytes);
        // The cut may hit something else that the coordinator asks meanwhile: then this batch goes well.
        let mut number = 0;
        while proxy.is_cut_pending() {
            number += 1;
            if number % 10 == 0 {
                // It waits for one that says little, such as the subscription: left to the next.
                proxy.reset_all();
                front.until_ready(true).await;
            }
            let answer = front.put(&format!("{batch}-{number}")).await;
            if answer.status != 200 {
                answer.assert_refused(&batch, UNAVAILABLE);
            }
        }
        for number in 1..=number {
            front.put_until_taken(&format!("{batch}-{number}")).await;
        }
        front.until_ready(true).await;
    }
    front.finish().await;
}

#[tokio::test]
async fn a_network_that_swallows_holds_or_refuses_is_told_and_survived() {
    let redis = RedisServer::start().await;
    let proxy = &mut Proxy::to_port(redis.port()).await;
    let front = &mut Front::start(&format!("redis://127.0.0.1:{}", proxy.port()), 0).await;
    let swallow = async |proxy: &mut Proxy| proxy.set(Fault::BlackHole(Way::Both));
    let forget = async |proxy: &mut Proxy| {
        proxy.reset_all();
        proxy.set(Fault::None);
    };
    outage(front, proxy, ("black-hole", UNAVAILABLE), swallow, forget).await;
    let hold = async |proxy: &mut Proxy| proxy.set(Fault::BlackHole(Way::Both));
    // What was held gets through now: calls that were given up are done all the same.
    let release = async |proxy: &mut Proxy| proxy.set(Fault::None);
    outage(front, proxy, ("held", UNAVAILABLE), hold, release).await;
    let refuse = async |proxy: &mut Proxy| {
        proxy.set(Fault::Refuse);
        proxy.reset_all();
    };
    let accept = async |proxy: &mut Proxy| proxy.set(Fault::None);
    outage(front, proxy, ("refused", UNAVAILABLE), refuse, accept).await;
    front.finish().await;
}
