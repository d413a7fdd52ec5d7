//! What agents lost with their workers is kept no longer than it is told.

use redrive_coordinator::store::{LOST_KEPT_MS, LostAttempt};

use crate::support::redis::RedisServer;
use crate::support::{Bed, RedisBackend, name};

fn of(agent: &str) -> Vec<LostAttempt> {
    vec![LostAttempt { agent: name(agent), boot_id: Some(name("boot")), dependency: None }]
}

#[tokio::test]
async fn losses_of_agents_that_nobody_hears_of_again_do_not_pile_up() {
    let redis = RedisServer::start().await;
    let bed = Bed::new(RedisBackend::at(&redis.url(), "rd", 1)).await;
    for number in 0..10 {
        bed.count_lost(of(&format!("old-{number}"))).await.unwrap();
    }
    redis.command(&["HSET", "rd:{*}:lost", "newer", "{\"of\":\"a newer release\"}"]).await;
    bed.advance(LOST_KEPT_MS - 1);
    bed.count_lost(of("young")).await.unwrap();
    assert_eq!(redis.command(&["HLEN", "rd:{*}:lost"]).await, "12", "all of them are told");
    bed.advance(1);
    bed.count_lost(of("last")).await.unwrap();
    let mut left: Vec<String> =
        redis.command(&["HKEYS", "rd:{*}:lost"]).await.lines().map(str::to_owned).collect();
    left.sort();
    assert_eq!(left, ["last", "newer", "young"]);
}
