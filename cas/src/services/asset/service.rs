//! The state that Fetch and Push share.

use std::sync::Arc;

use super::downloads::Downloads;
use crate::blob::SharedBlobStore;
use crate::records::SharedRecords;
use crate::services::config::ServicesConfig;
use crate::services::guard::Guard;
use crate::services::quotas::Quotas;

/// Fetch and Push.
pub struct AssetService {
    pub(super) blobs: SharedBlobStore,
    pub(super) records: SharedRecords,
    pub(super) guard: Guard,
    pub(super) quotas: Arc<Quotas>,
    pub(super) downloads: Downloads,
}

impl AssetService {
    /// Must be called within a tokio runtime: all downloads run on it.
    pub fn new(config: &ServicesConfig) -> Self {
        Self {
            blobs: config.blobs.clone(),
            records: config.records.clone(),
            guard: Guard(config.access.clone()),
            quotas: config.quotas.clone(),
            downloads: Downloads::new(
                config.fetch.clone(),
                config.max_blob_size,
                config.records.clone(),
            ),
        }
    }
}
