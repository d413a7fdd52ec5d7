//! A master that Sentinels choose.

use std::time::{Duration, Instant};

use super::replicas::replica_of;
use super::server::{Server, count, open, quick, said, until, words};
use crate::store::redis::address::Address;
use crate::store::redis::link::Link;

struct Installation {
    master: Server,
    replica: Server,
    sentinels: Vec<Server>,
}

impl Installation {
    async fn start() -> Self {
        let master = Server::start(&["--repl-diskless-sync-delay", "0"]).await;
        let replica = replica_of(&master).await;
        let config = format!(
            "sentinel monitor shop 127.0.0.1 {} 2\n\
             sentinel down-after-milliseconds shop 800\n\
             sentinel failover-timeout shop 5000\n",
            master.port
        );
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(Server::sentinel(&config).await);
        }
        let all = Self { master, replica, sentinels };
        until("the Sentinels know each other and the replica", async || {
            for sentinel in &all.sentinels {
                let info: String = sentinel.ask(&words("INFO sentinel")).await.unwrap_or_default();
                if !info.contains("slaves=1,sentinels=3") {
                    return false;
                }
            }
            true
        })
        .await;
        all
    }

    fn url(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port)).collect();
        format!("redis+sentinel://{}/shop", hosts.join(","))
    }
}

#[tokio::test]
async fn a_failover_is_followed_and_the_old_master_is_left() {
    let mut all = Installation::start().await;
    // Any Sentinel will do: one of them is gone from the start.
    all.sentinels[0].signal("STOP");
    all.sentinels[0].kill();
    let link = open(&all.url(), quick()).await;
    assert_eq!(count(&link, "k").await.unwrap(), 1);
    let caught_up = async || all.replica.ask::<i64>(&words("GET k")).await.unwrap_or_default() == 1;
    until("the replica has it", caught_up).await;

    // Hung, it still accepts connections.
    all.master.signal("STOP");
    let begun = Instant::now();
    let error = said(count(&link, "k").await);
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}: {error}", begun.elapsed());
    until("the new master counts", async || count(&link, "k").await.is_ok()).await;
    let there: i64 = all.replica.ask(&words("GET k")).await.unwrap();
    assert!(there >= 2, "{there}");

    // Back again, it takes itself for the master until the Sentinels tell it: nothing may go there.
    all.master.signal("CONT");
    let before: i64 = all.replica.ask(&words("GET k")).await.unwrap();
    for n in 1..=50 {
        assert_eq!(count(&link, "k").await.unwrap(), before + n);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let nodes = link.nodes().await.unwrap();
    assert_eq!(nodes[0].address, format!("127.0.0.1:{}", all.replica.port));
}

#[tokio::test]
async fn a_failover_by_hand_loses_no_more_than_what_was_under_way() {
    let all = Installation::start().await;
    let link = open(&all.url(), quick()).await;
    let mut confirmed = 0;
    assert!(count(&link, "k").await.is_ok());
    let () = all.sentinels[1].ask(&words("SENTINEL FAILOVER shop")).await.unwrap();
    until("the replica is the master, and counts", async || {
        confirmed += i32::from(count(&link, "k").await.is_ok());
        let role: String = all.replica.ask(&words("INFO replication")).await.unwrap_or_default();
        role.contains("role:master") && count(&link, "k").await.is_ok()
    })
    .await;
    let role: String = all.master.ask(&words("INFO replication")).await.unwrap();
    assert!(confirmed > 0, "{role}");
}

#[tokio::test]
async fn a_master_that_was_cut_off_from_its_sentinels_is_left() {
    let all = Installation::start().await;
    let link = open(&all.url(), quick()).await;
    assert!(count(&link, "k").await.is_ok());
    // As after a partition: the link still reaches the old master, which knows nothing of its successor. What Sentinels
    // ask it and tell it is refused.
    let () = all.master.ask(&words("ACL SETUSER default -ping -info -multi -slaveof")).await.unwrap();
    until("there is another master", async || {
        let role: String = all.replica.ask(&words("INFO replication")).await.unwrap_or_default();
        role.contains("role:master")
    })
    .await;
    let begun = Instant::now();
    until("the link uses it", async || {
        let _ = count(&link, "new").await;
        all.replica.ask::<Option<i64>>(&words("GET new")).await.is_ok_and(|count| count.is_some())
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let role: redis::Value = all.master.ask(&words("ROLE")).await.unwrap();
    assert!(format!("{role:?}").contains("master"), "it was told: {role:?}");
}

#[tokio::test]
async fn what_sentinels_do_not_know_is_said() {
    let sentinel = Server::sentinel("").await;
    let address: Address =
        format!("redis+sentinel://127.0.0.1:{},127.0.0.1:1/shop", sentinel.port).parse().unwrap();
    let error = said(Link::open(&address, quick()).await);
    assert!(error.contains("does not know that service"), "{error}");
    assert!(error.contains("127.0.0.1:1: refuses connections"), "{error}");
    let as_server: Address = sentinel.url().parse().unwrap();
    let error = said(Link::open(&as_server, quick()).await);
    assert!(error.contains("is a Sentinel"), "{error}");
}
