//! A registry over stores that others share.

use std::sync::Arc;

use kiln_cas::blob::SharedBlobStore;
use kiln_cas::pins::Pins;
use kiln_cas::records::{Record, SharedRecords};
use kiln_net::Unread;

use super::body::Arriving;
use super::error::RegistryError;
use crate::registry::ownership::SharedOwned;
use crate::registry::uploads::UploadLimits;

/// Records read together: those of manifests, and of what is about them, may be large.
pub const PAGE: usize = 64;
/// How often a write is made anew because somebody else was faster.
pub const TRIES: usize = 16;

/// What a registry is made of.
pub struct RegistryParts {
    pub blobs: SharedBlobStore,
    pub records: SharedRecords,
    pub pins: Pins,
    pub uploads: UploadLimits,
    /// Bytes that one blob may have.
    pub max_blob_size: u64,
    /// What is not for pushes.
    pub owned: Vec<SharedOwned>,
    /// Milliseconds since the Unix epoch.
    pub now: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// A registry. Clones share it.
#[derive(Clone)]
pub struct Registry {
    pub(super) parts: Arc<RegistryParts>,
    pub(super) arriving: Arc<Arriving>,
    unread: Arc<Unread>,
}

impl Registry {
    pub fn new(parts: RegistryParts) -> Self {
        Self { parts: Arc::new(parts), arriving: Arc::default(), unread: Arc::default() }
    }

    pub(super) fn now(&self) -> u64 {
        (self.parts.now)()
    }

    pub(super) async fn record(&self, key: &str) -> Result<Option<Record>, RegistryError> {
        Ok(self.parts.records.get(key).await?)
    }

    /// What was read of one record among many. `None`: it cannot be read, which holds up none of the others.
    pub(super) fn readable<T>(&self, record: &Record, read: Result<T, RegistryError>) -> Option<T> {
        self.unread.readable(&record.key, read)
    }
}
