//! Group commit: many callers that want durability share one round of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::error::StoreError;

#[derive(Default)]
pub struct GroupCommit {
    requested: AtomicU64,
    completed: Arc<Mutex<u64>>,
}

impl GroupCommit {
    /// Returns after a run of `work` that began after this call did, or at once where `is_done` says that it
    /// would have nothing to do; that is asked while no run goes on. Blocking work runs on a
    /// thread for it. No two runs overlap: one whose caller went away is waited for, because
    /// what it took on is not durable before it ends.
    pub async fn run(
        &self,
        is_done: impl FnOnce() -> bool + Send,
        work: impl FnOnce() -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let mine = self.requested.fetch_add(1, Ordering::AcqRel) + 1;
        let mut completed = self.completed.clone().lock_owned().await;
        if *completed >= mine {
            return Ok(());
        }
        let included = self.requested.load(Ordering::Acquire);
        if is_done() {
            *completed = included;
            return Ok(());
        }
        blocking(move || {
            work()?;
            *completed = included;
            Ok(())
        })
        .await
    }
}

/// Runs blocking work on a thread for it.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::failed("storage task", error)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_round_whose_caller_went_away_is_waited_for() {
        let group = Arc::new(GroupCommit::default());
        let (started, begun) = mpsc::channel();
        let (finish, finished) = mpsc::channel::<()>();
        let is_over = Arc::new(AtomicBool::new(false));
        let first = tokio::spawn({
            let (group, is_over) = (group.clone(), is_over.clone());
            async move {
                let work = move || {
                    started.send(()).unwrap();
                    finished.recv().unwrap();
                    is_over.store(true, Ordering::Release);
                    Ok(())
                };
                group.run(|| false, work).await
            }
        });
        tokio::task::spawn_blocking(move || begun.recv().unwrap()).await.unwrap();
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        // What the first round has taken is not durable before that round ends.
        let (second_started, second_begun) = mpsc::channel();
        let second = tokio::spawn(async move {
            let work = move || {
                let _ = second_started.send(());
                Ok(())
            };
            let is_done = move || {
                assert!(is_over.load(Ordering::Acquire), "it is asked while a round goes on");
                false
            };
            group.run(is_done, work).await
        });
        let early = tokio::task::spawn_blocking(move || {
            second_begun.recv_timeout(std::time::Duration::from_millis(100)).is_ok()
        });
        assert!(!early.await.unwrap(), "two rounds ran at the same time");
        finish.send(()).unwrap();
        second.await.unwrap().unwrap();
    }
}
