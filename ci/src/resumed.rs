//! Work without an end, which goes on after a panic: nobody starts it anew before the server does.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;

/// How long is waited after a panic.
pub const PAUSE: Duration = Duration::from_secs(5);

/// Does `work`, from its beginning whenever it panicked, so that nothing that it had is used again. `what` names it in
/// the log.
pub async fn resumed<F: Future<Output = ()>>(what: &'static str, work: impl Fn() -> F) {
    while is_broken_off(what, work()).await {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether it panicked.
pub async fn is_broken_off(what: &'static str, work: impl Future<Output = ()>) -> bool {
    // Of what it had only that is used again which it shares with others, and they have to stand a panic anyway. In a box,
    // since it is handed on from here to there.
    let has_panicked = AssertUnwindSafe(Box::pin(work)).catch_unwind().await.is_err();
    if has_panicked {
        tracing::error!(what, again_in = ?PAUSE, "it panicked, and begins anew");
    }
    has_panicked
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

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
}
