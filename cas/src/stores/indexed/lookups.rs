//! Which blobs are there, and the promises that come with the answer.

use std::sync::Arc;

use super::epoch::Epochs;
use super::index::IndexEntry;
use super::index_client::IndexClient;
use super::pending_elsewhere::PendingElsewhere;
use super::running::RunningInvocations;
use crate::digest::Digest;
use crate::error::StoreError;

pub struct Lookups {
    client: Arc<IndexClient>,
    epochs: Arc<Epochs>,
    running: Arc<RunningInvocations>,
    elsewhere: Arc<PendingElsewhere>,
}

impl Lookups {
    pub fn new(
        client: Arc<IndexClient>,
        epochs: Arc<Epochs>,
        running: Arc<RunningInvocations>,
        elsewhere: Arc<PendingElsewhere>,
    ) -> Self {
        Self { client, epochs, running, elsewhere }
    }

    /// Asks the index, which promises what it knows.
    pub async fn find(&self, digests: Vec<Digest>) -> Result<Vec<Option<IndexEntry>>, StoreError> {
        self.running.announce().await?;
        let entries = self.client.find(digests.clone()).await?;
        self.elsewhere.note(&digests, &entries).await?;
        Ok(entries)
    }

    /// Returns those of `digests` that are absent, in order; the others are promised.
    pub async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let promised = |digest: &Digest| self.client.promised(digest);
        if digests.iter().any(promised) {
            // Out of memory only what an index has said that is still there.
            self.epochs.confirm().await?;
        }
        let unsure = |digest: &&Digest| !digest.is_empty_blob() && !promised(digest);
        let asked: Vec<_> = digests.iter().filter(unsure).copied().collect();
        if asked.is_empty() {
            return Ok(asked);
        }
        let entries = self.find(asked.clone()).await?;
        let missing = asked.into_iter().zip(entries).filter(|(_, entry)| entry.is_none());
        Ok(missing.map(|(digest, _)| digest).collect())
    }

    /// Promises what is there beyond every lease, and returns those of `digests` that are absent.
    pub async fn pin(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let asked: Vec<_> = digests.iter().filter(|it| !it.is_empty_blob()).copied().collect();
        self.client.pin(&asked).await
    }

    pub async fn unpin(&self, digests: &[Digest]) -> Result<(), StoreError> {
        self.client.unpin(digests).await
    }

    /// Returns those of `digests` that are absent for certain; nothing is promised.
    pub async fn absent(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let asked: Vec<_> =
            digests.iter().filter(|digest| !digest.is_empty_blob()).copied().collect();
        self.epochs.confirm().await?;
        if self.epochs.is_incomplete() {
            // What an index that was lost does not know may well be in the object store.
            return Ok(Vec::new());
        }
        self.client.absent(&asked).await
    }
}
