//! Push: the same play, with workers that RabbitMQ feeds. The demo's queues and exchange there have names of their own, so
//! that it neither meets nor deletes anything of an installation that is in earnest, and are gone when it ends.

use std::time::Duration;

use redrive_coordinator::AmqpConfig;
use redrive_coordinator::amqp::{PushConfig, doctor, removal};
use redrive_coordinator::store::doctor::{Finding, Verdict};
use redrive_shared::id::Name;

use super::scenario;

/// Who claims what is pushed, until the worker that got it begins.
pub const PUSHER: &str = "amqp";
/// For the last deletions.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes a configuration the demo's: all of its queues are pushed, nothing else is, and names are of this run alone. They
/// stay below the prefix that is configured, which is what the user may be allowed to declare.
pub fn arrange(config: &mut AmqpConfig) -> anyhow::Result<()> {
    config.prefix = format!("{}.demo-{:08x}", config.prefix, rand::random::<u32>());
    config.republish.clear();
    let pushed =
        scenario::queues().into_iter().map(|(name, _)| anyhow::Ok((Name::new(name)?, PushConfig::default())));
    config.push = pushed.collect::<anyhow::Result<_>>()?;
    Ok(())
}

/// Whether RabbitMQ can be used, before anything waits for it: a coordinator would go on without it, and the workers of the
/// demo would wait for ever.
pub async fn examine(config: &AmqpConfig) -> anyhow::Result<()> {
    let Some(address) = &config.url else { return Ok(()) };
    let report = doctor::examine(config).await;
    let wrong = report.findings().iter().filter(|finding| finding.verdict > Verdict::Skipped);
    let wrong: Vec<String> = wrong.map(told).collect();
    anyhow::ensure!(
        wrong.is_empty(),
        "the demo cannot push over RabbitMQ at {address}: {}; or leave out --amqp: then its workers pull, and it needs no \
         server",
        wrong.join("; ")
    );
    Ok(())
}

fn told(finding: &Finding) -> String {
    match finding.check {
        // What the doctor advises is for a coordinator, which can go on without.
        "connection" => format!("{}; start RabbitMQ there, or correct the address", finding.found),
        _ => finding.to_string(),
    }
}

/// Deletes what the coordinator has declared. It must have ended, or it would declare it anew.
pub async fn clear(config: &AmqpConfig) -> anyhow::Result<()> {
    let removed = tokio::time::timeout(PATIENCE, removal::remove(config)).await;
    let why = match removed {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
    };
    anyhow::bail!(
        "RabbitMQ still has what the demo made there ({why}); delete the queues and the exchange whose names begin with \
         `{}.`",
        config.prefix
    )
}

#[cfg(test)]
mod tests {
    use redrive_coordinator::amqp::Republish;

    use super::*;

    fn arranged(mut config: AmqpConfig) -> AmqpConfig {
        arrange(&mut config).unwrap();
        config
    }

    #[test]
    fn names_are_of_this_run_alone_and_below_the_prefix() {
        let [one, other] = [arranged(AmqpConfig::default()), arranged(AmqpConfig::default())];
        assert!(one.prefix.starts_with("redrive.demo-"), "{}", one.prefix);
        assert_ne!(one.prefix, other.prefix);
        let own = arranged(AmqpConfig { prefix: "fleet".into(), ..AmqpConfig::default() });
        assert!(own.names().enqueue().starts_with("fleet.demo-"));
    }

    #[test]
    fn the_demos_queues_are_pushed_and_no_others_touched() {
        let orders = || Name::new("orders").unwrap();
        let config = AmqpConfig {
            push: [(orders(), PushConfig::default())].into(),
            republish: [(orders(), Republish::Queue)].into(),
            ..AmqpConfig::default()
        };
        let config = arranged(config);
        let pushed: Vec<&str> = config.push.keys().map(|queue| queue.as_str()).collect();
        assert_eq!(pushed, ["chat", "reports", "tools"]);
        assert!(config.republish.is_empty());
        config.check().unwrap();
    }

    #[tokio::test]
    async fn without_an_address_there_is_nothing_to_examine() {
        examine(&AmqpConfig::default()).await.unwrap();
    }
}
