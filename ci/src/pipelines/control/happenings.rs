//! What happens on a server and begins runs.

use async_trait::async_trait;

use crate::storage::StorageError;

/// A release that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// The number of the release, which grows with each one.
    pub number: u64,
    /// The instance in which it was made; `None`: that is not known.
    pub instance: Option<String>,
    /// The name of the release: `team/app:1.4.2`.
    pub name: String,
}

/// What happened on a server.
#[async_trait]
pub trait Happenings: Send + Sync + 'static {
    /// Releases that were made after a number, in order, and up to which number was looked.
    async fn released(&self, after: u64) -> Result<(Vec<Released>, u64), StorageError>;

    /// The number of what happened last.
    async fn latest(&self) -> Result<u64, StorageError>;
}
