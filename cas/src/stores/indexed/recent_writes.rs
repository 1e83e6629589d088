//! Small blobs that were written here a short while ago: whoever runs an action reads them next.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::index_client::ITEM;
use crate::digest::Digest;
use crate::stores::actions::Recent;

/// Most bytes of small blobs that are kept in memory after they were written.
const CAPACITY: usize = 32 << 20;

pub struct RecentWrites(Mutex<Recent<Digest, Bytes>>);

impl Default for RecentWrites {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(CAPACITY)))
    }
}

impl RecentWrites {
    fn recent(&self) -> MutexGuard<'_, Recent<Digest, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, digest: &Digest) -> Option<Bytes> {
        self.recent().get(digest)
    }

    pub fn note(&self, digest: &Digest, data: Bytes) {
        let size = data.len() + ITEM;
        self.recent().insert(*digest, data, size);
    }
}
