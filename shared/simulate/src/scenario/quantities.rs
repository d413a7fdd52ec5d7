//! What scenarios have of quantities beyond what every file has.

use redrive_shared::config::reader::{Read, Reader};
use toml::Value;

use super::Spread;
use crate::limits::{DURATION_MAX_MS, NAME_MAX_CHARS};

/// Reads them.
pub(super) trait Quantities {
    /// A duration or an instant, in milliseconds.
    fn millis(&mut self, key: &str) -> Read<Option<u64>>;
    /// A short text.
    fn name(&mut self, key: &str) -> Read<Option<String>>;
    /// A duration that is always the same (`10`) or normally distributed (`{ mean = 10, sd = 2 }`), in milliseconds.
    fn spread(&mut self, key: &str) -> Read<Spread>;
}

impl Quantities for Reader<'_> {
    fn millis(&mut self, key: &str) -> Read<Option<u64>> {
        self.whole(key, 0..=DURATION_MAX_MS)
    }

    fn name(&mut self, key: &str) -> Read<Option<String>> {
        self.text(key, NAME_MAX_CHARS)
    }

    fn spread(&mut self, key: &str) -> Read<Spread> {
        let most = DURATION_MAX_MS as f64;
        if !self.value(key).is_some_and(Value::is_table) {
            let mean_ms = self.number(key, 0.0..=most)?.unwrap_or(0.0);
            return Ok(Spread { mean_ms, sd_ms: 0.0 });
        }
        let Some(mut inner) = self.table(key)? else { return Ok(Spread::default()) };
        let mean_ms = inner.number("mean", 0.0..=most)?.unwrap_or(0.0);
        let sd_ms = inner.number("sd", 0.0..=most)?.unwrap_or(0.0);
        inner.finish()?;
        Ok(Spread { mean_ms, sd_ms })
    }
}
