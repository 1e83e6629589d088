//! Which invocations run, for promises that are cut short. When all that nobody was promised makes
//! too little room, promises to invocations that are over give way; those that were made to one
//! that runs never do.
//!
//! Each process tells the index which invocations run there. The index does not know to whom a blob was
//! promised: what was promised since the oldest of the running ones began stays.

use std::sync::Arc;
use std::time::Duration;

use super::index::{BlobIndex, Runs};
use crate::error::StoreError;
use crate::promises::Invocations;

/// Tells the index which invocations run at this process, and asks it which run at all.
pub struct RunningInvocations {
    index: Arc<dyn BlobIndex>,
    /// `None`: promises are never cut short.
    invocations: Option<Invocations>,
    /// What blobs are promised for, in seconds.
    lease: u32,
}

impl RunningInvocations {
    pub fn new(
        index: Arc<dyn BlobIndex>,
        invocations: Option<Invocations>,
        lease: Duration,
    ) -> Self {
        let lease = u32::try_from(lease.as_secs()).unwrap_or(u32::MAX);
        Self { index, invocations, lease }
    }

    /// Returns when the index knows of every invocation that began here, before any of them is promised
    /// something.
    pub async fn announce(&self) -> Result<(), StoreError> {
        match &self.invocations {
            Some(invocations) if invocations.unreported() => self.report().await.map(drop),
            _ => Ok(()),
        }
    }

    /// Tells the index who runs here, and returns who runs anywhere. `None`: promises are never cut
    /// short.
    pub async fn report(&self) -> Result<Option<Runs>, StoreError> {
        let Some(invocations) = &self.invocations else { return Ok(None) };
        let runs = self.index.report_runs(&invocations.report()).await;
        runs.inspect_err(|_| invocations.report_again()).map(Some)
    }

    /// Blobs whose lease ends in this second of the index's clock, or before, are promised to nobody
    /// who runs. `None`: promises may not be cut short.
    pub async fn cut_until(&self) -> Result<Option<u32>, StoreError> {
        let Some(invocations) = &self.invocations else { return Ok(None) };
        let Some(runs) = self.report().await? else { return Ok(None) };
        Ok(cut_until(runs, self.lease, invocations.min_lease()))
    }
}

/// Whoever was promised a blob saw to it that its lease ends at least `lease` after that moment. So a
/// lease that ends within `lease` of a moment says that nobody was promised the blob after it.
fn cut_until(runs: Runs, lease: u32, min_lease: u32) -> Option<u32> {
    let quiet = runs.now.checked_sub(min_lease.max(1))?;
    let last = match runs.oldest {
        Some(oldest) => quiet.min(oldest.checked_sub(1)?),
        None => quiet,
    };
    last.checked_add(lease)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::stores::indexed::MemoryIndex;

    #[test]
    fn what_running_invocations_may_have_been_promised_stays() {
        let until = |oldest| cut_until(Runs { now: 10_000, oldest }, 1000, 100);
        assert_eq!(until(None), Some(9900 + 1000));
        assert_eq!(until(Some(9950)), Some(9900 + 1000), "the least that is kept");
        assert_eq!(until(Some(5000)), Some(4999 + 1000));
        assert_eq!(until(Some(0)), None, "it may have begun before anything");
        assert_eq!(cut_until(Runs { now: 50, oldest: None }, 1000, 100), None);
    }

    #[tokio::test]
    async fn every_process_hears_of_an_invocation_that_one_has_announced() {
        let clock = Clock::manual(1_000_000);
        let index: Arc<dyn BlobIndex> = Arc::new(MemoryIndex::new(clock.clone()));
        let lease = Duration::from_secs(1000);
        let process = || {
            let invocations = Invocations::new(clock.clone(), Duration::from_secs(100));
            let running = RunningInvocations::new(index.clone(), Some(invocations.clone()), lease);
            (invocations, running)
        };
        let ((invocations, one), (_, other)) = (process(), process());
        clock.advance(5000);
        let now = clock.now();
        assert_eq!(other.cut_until().await.unwrap(), Some(now - 100 + 1000));
        let _request = invocations.begin(b"a build").unwrap();
        one.announce().await.unwrap();
        assert!(!invocations.unreported());
        clock.advance(150);
        let began = other.report().await.unwrap().unwrap().oldest.unwrap();
        assert!(began <= now && began >= now - 10, "{began} is not about {now}");
        assert_eq!(other.cut_until().await.unwrap(), Some(began - 1 + 1000));
        let never = RunningInvocations::new(index.clone(), None, lease);
        never.announce().await.unwrap();
        assert_eq!(never.cut_until().await.unwrap(), None);
    }
}
