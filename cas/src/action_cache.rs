//! The action cache trait. Completeness checking is a decorator around it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::digest::Digest;
use crate::error::StoreError;

/// Instance name and action digest. Instances never see each other's results.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ActionKey {
    pub instance: Arc<str>,
    pub action: Digest,
}

/// Results travel as encoded `ActionResult` messages: a hit is passed on without being decoded.
#[async_trait]
pub trait ActionCache: Send + Sync + 'static {
    /// `None`: no result, or (in the completeness-checking decorator) one whose blobs are gone.
    async fn get(&self, key: &ActionKey) -> Result<Option<Bytes>, StoreError>;

    /// Replaces what was there. The caller has made every blob that `result` names durable.
    async fn put(&self, key: &ActionKey, result: Bytes) -> Result<(), StoreError>;

    /// How often the cache may have lost its last writes, as far as this process knows, and with them
    /// the index of the blobs, which is kept beside it. Whoever makes sure of blobs, puts a result that
    /// names them, and finds another number afterwards, was told of what may be there no more.
    fn failures(&self) -> u64 {
        0
    }
}

pub type SharedActionCache = Arc<dyn ActionCache>;
