//! Work in proportion to an output, a state or a payload: where that may take long, beside the other tasks of its thread.

/// Bytes that are read or parsed where they are: about a millisecond's work. Heartbeats and the other attempts of the thread wait
/// no longer than that.
const LIGHT_MAX_BYTES: usize = 1024 * 1024;

/// Does work on so many bytes. It goes on when this is dropped, and nobody hears of it. A panic in it is one here.
pub(crate) async fn work_on<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes <= LIGHT_MAX_BYTES {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The process ends: nobody is there to be told.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// More than is worked on in place.
    pub(crate) const HEAVY_BYTES: usize = LIGHT_MAX_BYTES + 1;

    /// Whether that leaves its thread to others while it works: here it cannot go on until the only other thread is free.
    pub(crate) fn leaves_its_thread<T>(work: impl Future<Output = T>) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let (free, taken) = mpsc::channel::<()>();
        runtime.spawn_blocking(move || taken.recv());
        runtime.block_on(async {
            let mut work = pin!(work);
            let in_place = tokio::time::timeout(Duration::from_millis(500), &mut work).await.is_ok();
            drop(free);
            if !in_place {
                work.await;
            }
            !in_place
        })
    }

    #[test]
    fn only_what_may_take_long_leaves_the_thread() {
        assert!(!leaves_its_thread(work_on(LIGHT_MAX_BYTES, || ())));
        assert!(leaves_its_thread(work_on(HEAVY_BYTES, || ())));
    }

    #[tokio::test]
    #[should_panic = "on demand"]
    async fn a_panic_is_told() {
        work_on(HEAVY_BYTES, || panic!("on demand")).await;
    }
}
