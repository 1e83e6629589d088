//! Work whose panic is heard. Whoever waits for what a task of its own does would wait for ever if that ended without
//! a word; and what goes on for as long as the server runs must not end with one fault.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::backoff::Backoff;

/// Most characters that are kept of what a panic says.
const SHOWN: usize = 500;
/// The pause before a task goes on after a fault: one that comes again at once would take all of a core.
const PAUSE: Duration = Duration::from_secs(1);
/// Pauses before work begins anew, which reads again what is durable: longer each time where it panics each time.
const ANEW: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(300));
/// Work that went on for so long before it panicked does so for the first time.
const CALM: Duration = Duration::from_secs(900);

/// The work has ended in a panic, which says this. Whatever it held is dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fault of Kiln ended it: {0}")]
pub struct Panicked(String);

/// Does `work` to its end or to its panic. What it shares with others lies behind locks that are taken whether or not
/// somebody has panicked with them, or may be half done: who begins it again begins with what is durable.
pub fn caught<T>(work: impl Future<Output = T>) -> impl Future<Output = Result<T, Panicked>> {
    let done = AssertUnwindSafe(work).catch_unwind();
    done.map(|done| done.map_err(|payload| Panicked::new(&*payload)))
}

/// Does `work`, from its beginning whenever it panicked, so that nothing that it had is used again. `what` names it in
/// the log.
pub async fn resumed<F: Future<Output = ()>>(what: &'static str, work: impl Fn() -> F) {
    let mut panics = 0;
    loop {
        let began = Instant::now();
        if !is_broken_off(what, work()).await {
            return;
        }
        panics = if began.elapsed() < CALM { panics + 1 } else { 1 };
        tokio::time::sleep(ANEW.pause(panics)).await;
    }
}

/// Does what [`resumed`] does, in a Tokio task of its own. Must be called within a Tokio runtime.
pub fn spawn_resumed<F>(what: &'static str, work: impl Fn() -> F + Send + 'static) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(resumed(what, work))
}

/// Work as a task of its own that cannot begin anew. Where it panics the log says at once what is done no more: whoever ends
/// it looks only then. Must be called within a Tokio runtime.
pub fn spawn_heard(
    what: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(panicked) = caught(work).await {
            tracing::error!(what, error = %panicked, "it panicked, and is done no more until a restart");
        }
    })
}

/// Does `work` once and answers whether it panicked, which is logged under the name `what`.
pub async fn is_broken_off(what: &'static str, work: impl Future<Output = ()>) -> bool {
    // In a box, since it is handed on from here to there.
    let Err(panicked) = caught(Box::pin(work)).await else { return false };
    tracing::error!(what, error = %panicked, "it panicked, and begins anew");
    true
}

impl Panicked {
    fn new(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self(text.unwrap_or("it panicked without words").chars().take(SHOWN).collect())
    }

    /// Logs the panic of a task (`task` names it) that goes on all the same, and waits a moment before it does.
    pub async fn goes_on(self, task: &'static str) {
        tracing::error!(error = %self, task, "a task of the server goes on after a fault");
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_a_panic_says_is_heard() {
        assert_eq!(caught(async { 7 }).await, Ok(7));
        let later = async {
            tokio::task::yield_now().await;
            panic!("at {}", 3);
        };
        let error: Result<(), _> = caught(later).await;
        assert_eq!(error.unwrap_err().to_string(), "a fault of Kiln ended it: at 3");
        let error: Result<(), _> = caught(async { panic!("here") }).await;
        assert_eq!(error.unwrap_err().to_string(), "a fault of Kiln ended it: here");
        let error: Result<(), _> = caught(async { panic!("{}", "x".repeat(2 * SHOWN)) }).await;
        assert!(error.unwrap_err().to_string().len() < SHOWN + 50);
    }

    #[tokio::test(start_paused = true)]
    async fn what_panicked_begins_anew_and_what_has_ended_does_not() {
        let begun = AtomicU32::new(0);
        resumed("this", || async {
            let before = begun.fetch_add(1, Ordering::Relaxed);
            assert!(before >= 2, "it panics twice");
        })
        .await;
        assert_eq!(begun.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn whoever_ends_a_task_hears_no_panic_that_was_told() {
        spawn_heard("this", async { panic!("once") }).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_panics_each_time_begins_anew_more_and_more_rarely() {
        let begun = Arc::<AtomicU32>::default();
        let counted = begun.clone();
        let going_on = spawn_resumed("this", move || {
            let before = counted.fetch_add(1, Ordering::Relaxed);
            async move { assert_eq!(before, u32::MAX, "it panics each time") }
        });
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert!(!going_on.is_finished());
        going_on.abort();
        let begun = begun.load(Ordering::Relaxed);
        assert!((12..40).contains(&begun), "{begun}");
    }
}
