//! Group commit: many callers that want durability share one round of it.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::error::StoreError;

#[derive(Default)]
pub struct GroupCommit {
    requested: AtomicU64,
    completed: Mutex<u64>,
}

impl GroupCommit {
    /// Returns after a run of `work` that began after this call did. Blocking work runs on a
    /// thread for it.
    pub async fn run(
        &self,
        work: impl FnOnce() -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let mine = self.requested.fetch_add(1, Ordering::AcqRel) + 1;
        let mut completed = self.completed.lock().await;
        if *completed >= mine {
            return Ok(());
        }
        let included = self.requested.load(Ordering::Acquire);
        blocking(work).await?;
        *completed = included;
        Ok(())
    }
}

/// Runs blocking work on a thread for it.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            Err(StoreError::Io { context: "storage task".to_owned(), message: error.to_string() })
        }
    }
}
