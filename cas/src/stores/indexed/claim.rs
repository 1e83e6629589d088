//! The right to collect garbage: one process of a fleet at a time has it.

use std::sync::Arc;
use std::time::Duration;

use super::index::BlobIndex;
use crate::error::StoreError;

/// How long a process keeps the right to collect without using it.
pub const HOLD: Duration = Duration::from_secs(60);

/// Takes the right to collect for this process.
pub struct CollectionClaim {
    index: Arc<dyn BlobIndex>,
    /// Names this process.
    owner: String,
}

impl CollectionClaim {
    pub fn new(index: Arc<dyn BlobIndex>) -> Self {
        Self { index, owner: format!("{:016x}", fastrand::u64(..)) }
    }

    /// Whether this process may collect now; others may not meanwhile.
    pub async fn take(&self) -> Result<bool, StoreError> {
        self.index.claim_collection(&self.owner, HOLD).await
    }
}
