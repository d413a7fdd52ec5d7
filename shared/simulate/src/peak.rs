//! The most that happened within any one second.

const WINDOW_MS: usize = 1_000;

/// Counts events of the last second, to the millisecond, and remembers the most that there ever were.
#[derive(Debug)]
pub(crate) struct Peak {
    counts: Box<[u32; WINDOW_MS]>,
    latest_ms: u64,
    within: u64,
    most: u64,
}

impl Peak {
    pub(crate) fn new() -> Self {
        Self { counts: Box::new([0; WINDOW_MS]), latest_ms: 0, within: 0, most: 0 }
    }

    /// One event; never earlier than the one before.
    pub(crate) fn count(&mut self, now_us: u64) {
        let now_ms = now_us / 1_000;
        let passed = (now_ms - self.latest_ms).min(WINDOW_MS as u64);
        for ago in 0..passed {
            let slot = &mut self.counts[((now_ms - ago) % WINDOW_MS as u64) as usize];
            self.within -= u64::from(std::mem::take(slot));
        }
        self.latest_ms = now_ms;
        self.counts[(now_ms % WINDOW_MS as u64) as usize] += 1;
        self.within += 1;
        self.most = self.most.max(self.within);
    }

    pub(crate) fn most(&self) -> u64 {
        self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_may_begin_anywhere() {
        let mut peak = Peak::new();
        for at_ms in [0, 900, 950, 1_100, 1_899, 1_950, 5_000] {
            peak.count(at_ms * 1_000);
        }
        assert_eq!(peak.most(), 4, "900 to 1899");
    }
}
