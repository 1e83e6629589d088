//! Work whose panic is heard. Whoever waits for what a task of its own does would wait for ever if that ended without
//! a word; and what goes on for as long as the server runs must not end with one fault.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;

/// Before a task goes on after a fault: one that comes again at once would take all of a core.
const PAUSE: Duration = Duration::from_secs(1);

/// The work has ended in a panic, which says this. It is for the log; clients hear that the server failed.
#[derive(Debug, thiserror::Error)]
#[error("a fault of the server: {0}")]
pub struct Panicked(String);

/// Does `work` to its end or to its panic. What it shares with others lies behind locks that are taken whether or not
/// somebody has panicked with them.
pub fn caught<T>(work: impl Future<Output = T>) -> impl Future<Output = Result<T, Panicked>> {
    let done = AssertUnwindSafe(work).catch_unwind();
    done.map(|done| done.map_err(|payload| Panicked::new(&*payload)))
}

impl Panicked {
    fn new(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Self(text.unwrap_or_else(|| "it panicked without words".to_owned()))
    }

    /// Of a task that goes on all the same, after a moment.
    pub async fn goes_on(self, task: &'static str) {
        tracing::error!(error = %self, task, "a task of the server goes on after a fault");
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_panic_says_is_heard() {
        assert_eq!(caught(async { 7 }).await.ok(), Some(7));
        let later = async {
            tokio::task::yield_now().await;
            panic!("at {}", 3);
        };
        let error: Result<(), _> = caught(later).await;
        assert_eq!(error.unwrap_err().to_string(), "a fault of the server: at 3");
        let error: Result<(), _> = caught(async { panic!("here") }).await;
        assert_eq!(error.unwrap_err().to_string(), "a fault of the server: here");
    }
}
