//! A task's own backoff, from flags.

use clap::builder::PossibleValuesParser;
use redrive_shared::config::parse_duration_ms;
use redrive_shared::retry::Strategy;
use serde_json::{Map, Value};

use crate::arguments;
use crate::failure::Usage;

/// How long it waits between attempts, in place of what its queue says and within its bounds.
#[derive(Debug, Default, clap::Args)]
pub struct Backoff {
    /// Its own backoff, in place of the queue's.
    #[arg(long, value_name = "NAME", conflicts_with = "jsonl",
          value_parser = PossibleValuesParser::new(Strategy::NAMES))]
    strategy: Option<String>,
    /// The delay of `fixed`.
    #[arg(long, value_name = "DURATION", value_parser = arguments::duration_ms, requires = "strategy")]
    retry_delay: Option<u64>,
    /// The delays of `schedule`, such as 5s,5m,30m.
    #[arg(long, value_name = "DURATIONS", value_parser = parse_duration_ms, value_delimiter = ',', requires = "strategy")]
    retry_delays: Option<Vec<u64>>,
    /// The first delay of `exponential`.
    #[arg(long, value_name = "DURATION", value_parser = arguments::duration_ms, requires = "strategy")]
    retry_multiplier: Option<u64>,
    /// The first delay, or its ceiling, of the others.
    #[arg(long, value_name = "DURATION", value_parser = arguments::duration_ms, requires = "strategy")]
    retry_base: Option<u64>,
    /// The jitter of `exponential_jitter`.
    #[arg(long, value_name = "DURATION", value_parser = arguments::duration_ms, requires = "strategy")]
    retry_jitter: Option<u64>,
    /// The least delay, where the strategy has one.
    #[arg(long, value_name = "DURATION", value_parser = arguments::duration_ms, requires = "strategy")]
    retry_min: Option<u64>,
    /// The longest delay.
    #[arg(long, value_name = "DURATION", value_parser = arguments::duration_ms, requires = "strategy")]
    retry_max: Option<u64>,
    /// The longest delay of `decorrelated`.
    #[arg(long, value_name = "DURATION", value_parser = arguments::duration_ms, requires = "strategy")]
    retry_cap: Option<u64>,
}

impl Backoff {
    /// The strategy, if one was named.
    pub fn into_strategy(self) -> anyhow::Result<Option<Strategy>> {
        let Some(strategy) = self.strategy else { return Ok(None) };
        let fields = [
            ("delay_ms", self.retry_delay.map(Value::from)),
            ("delays_ms", self.retry_delays.map(Value::from)),
            ("multiplier_ms", self.retry_multiplier.map(Value::from)),
            ("base_ms", self.retry_base.map(Value::from)),
            ("jitter_ms", self.retry_jitter.map(Value::from)),
            ("min_ms", self.retry_min.map(Value::from)),
            ("max_ms", self.retry_max.map(Value::from)),
            ("cap_ms", self.retry_cap.map(Value::from)),
        ];
        let given = fields.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?)));
        let mut given: Map<String, Value> = given.collect();
        given.insert("strategy".to_owned(), strategy.clone().into());
        let refused = |error: serde_json::Error| {
            let flag = error.to_string().replace("_ms`", "`").replace('`', "").replacen(
                "unknown field ",
                "--retry-",
                1,
            );
            Usage::new(format!("--strategy {strategy}: {flag}"))
        };
        Ok(Some(serde_json::from_value(given.into()).map_err(refused)?))
    }
}
