//! Repeating a call while the coordinator is away.

use std::time::Duration;

use rand::RngExt;
use redrive_worker::client::ClientError;
use tokio::time::Instant;

use crate::failure::brief;
use crate::output::{Output, duration};

const FIRST_DELAY: Duration = Duration::from_millis(200);
const MAX_DELAY: Duration = Duration::from_secs(5);

/// How long to go on trying.
#[derive(Debug)]
pub struct Patience {
    limit: Duration,
    output: Output,
}

/// What came of it, and whether an earlier try may have been carried out without our hearing of it.
#[derive(Debug)]
pub struct Answer<T> {
    /// The answer.
    pub value: T,
    /// True when an earlier try ended without an answer.
    pub repeated: bool,
}

impl Patience {
    /// Tries for `limit`, and says so on `output` when the first try has failed.
    pub fn new(limit: Duration, output: Output) -> Self {
        Self { limit, output }
    }

    /// Calls until there is an answer, an error that no repetition mends, or the time is up. The call must be safe to
    /// repeat. Waits with jitter, and never less than the coordinator asks for.
    pub async fn call<T>(
        &self,
        call: impl AsyncFn() -> Result<T, ClientError>,
    ) -> Result<Answer<T>, ClientError> {
        let started = Instant::now();
        let (mut ceiling, mut repeated, mut told) = (FIRST_DELAY, false, false);
        loop {
            let error = match call().await {
                Ok(value) => return Ok(Answer { value, repeated }),
                Err(error) => error,
            };
            let jittered = ceiling.mul_f64(rand::rng().random_range(0.5..=1.0));
            let delay = jittered.max(error.retry_after().unwrap_or_default());
            if !error.is_retryable() || started.elapsed() + delay > self.limit {
                return Err(error);
            }
            repeated |= error.is_outcome_unknown();
            if !told {
                let limit_ms = u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX);
                self.output.note(&format!("{}; trying again for {}", brief(&error), duration(limit_ms)));
                told = true;
            }
            tokio::time::sleep(delay).await;
            ceiling = (ceiling * 2).min(MAX_DELAY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redrive_shared::error::{ErrorCode, Problem};
    use std::cell::Cell;

    fn problem(code: ErrorCode, after_ms: u64) -> ClientError {
        ClientError::Problem(Box::new(Problem::new(code, "x").retry_after_ms(after_ms)))
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_as_asked_and_goes_on_until_there_is_an_answer() {
        let (tries, started) = (Cell::new(0), Instant::now());
        let patience = Patience::new(Duration::from_secs(60), Output::plain(false));
        let call = async || {
            tries.set(tries.get() + 1);
            if tries.get() < 4 { Err(problem(ErrorCode::StoreUnavailable, 3_000)) } else { Ok(7) }
        };
        let answer = patience.call(call).await.unwrap();
        assert_eq!((answer.value, answer.repeated, tries.get()), (7, true, 4));
        assert!(started.elapsed() >= Duration::from_secs(9));
    }

    #[tokio::test(start_paused = true)]
    async fn it_gives_up_in_time_and_never_repeats_what_cannot_succeed() {
        let tries = Cell::new(0);
        let patience = Patience::new(Duration::from_secs(10), Output::plain(false));
        let started = Instant::now();
        let error =
            patience.call(async || Err::<(), _>(problem(ErrorCode::Overloaded, 0))).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::Overloaded));
        assert!(started.elapsed() <= Duration::from_secs(10));
        let call = async || {
            tries.set(tries.get() + 1);
            Err::<(), _>(problem(ErrorCode::InvalidValue, 0))
        };
        assert!(patience.call(call).await.is_err());
        assert_eq!(tries.get(), 1);
    }
}
