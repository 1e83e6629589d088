//! Cutting promises short. When all that nobody was promised makes too little room, promises to
//! invocations that are over give way; those that were made to one that runs never do.
//!
//! Each process tells the index which invocations run there. The index does not know to whom a blob was
//! promised: what was promised since the oldest of the running ones began stays.

use super::index::Runs;
use super::parts::Parts;
use crate::error::StoreError;

impl Parts {
    /// Returns when the index knows of every invocation that began here, before any of them is promised
    /// something.
    pub async fn announce(&self) -> Result<(), StoreError> {
        match &self.options.invocations {
            Some(invocations) if self.space.limited() && invocations.unreported() => {
                self.report_runs().await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Tells the index who runs here. `None`: promises are never cut short.
    pub async fn report_runs(&self) -> Result<Option<Runs>, StoreError> {
        let Some(invocations) = &self.options.invocations else { return Ok(None) };
        if !self.space.limited() {
            return Ok(None);
        }
        let runs = self.index.report_runs(&invocations.report()).await;
        runs.inspect_err(|_| invocations.report_again()).map(Some)
    }

    /// Blobs whose lease ends in this second of the index's clock, or before, are promised to nobody
    /// who runs. `None`: promises may not be cut short.
    pub async fn cut_until(&self) -> Result<Option<u32>, StoreError> {
        let Some(invocations) = &self.options.invocations else { return Ok(None) };
        let Some(runs) = self.report_runs().await? else { return Ok(None) };
        let lease = u32::try_from(self.options.lease.as_secs()).unwrap_or(u32::MAX);
        Ok(cut_until(runs, lease, invocations.min_lease()))
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

    #[test]
    fn what_running_invocations_may_have_been_promised_stays() {
        let until = |oldest| cut_until(Runs { now: 10_000, oldest }, 1000, 100);
        assert_eq!(until(None), Some(9900 + 1000));
        assert_eq!(until(Some(9950)), Some(9900 + 1000), "the least that is kept");
        assert_eq!(until(Some(5000)), Some(4999 + 1000));
        assert_eq!(until(Some(0)), None, "it may have begun before anything");
        assert_eq!(cut_until(Runs { now: 50, oldest: None }, 1000, 100), None);
    }
}
