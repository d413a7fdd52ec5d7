//! Waiting for what other processes do. They send no signal to this one, so it asks again and again, for so long.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// Between two questions: short beside what is waited for, long beside what a question costs.
const PAUSE: Duration = Duration::from_millis(2);

/// Asks until there is an answer, and returns it with the time that it took. Panics after `within`, also when a
/// question itself hangs. Not for tests that pause tokio's time: that does not wait for other processes.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> (T, Duration) {
    let started = Instant::now();
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            sleep(PAUSE).await;
        }
    };
    let answer = timeout(within, asking).await;
    (answer.unwrap_or_else(|_| panic!("not within {within:?}: {what}")), started.elapsed())
}
