//! Writes objects, and tells the index that they are the places of their blobs.

use std::sync::Arc;

use bytes::Bytes;
use kiln_net::causes::chain;

use super::index::Generation;
use super::index_client::IndexClient;
use super::objects::Objects;
use crate::digest::Digest;
use crate::error::StoreError;

/// Writes objects and tells the index of them, once they are whole.
pub struct Uploads {
    client: Arc<IndexClient>,
    objects: Arc<dyn Objects>,
}

impl Uploads {
    pub fn new(client: Arc<IndexClient>, objects: Arc<dyn Objects>) -> Self {
        Self { client, objects }
    }

    /// Makes an object that is whole the place of its blob, or deletes it where the blob has
    /// a place already. Returns the generation that counts.
    pub async fn publish(
        &self,
        digest: &Digest,
        generation: Generation,
    ) -> Result<Generation, StoreError> {
        let winner = self.client.place(digest, generation).await?;
        self.delete_loser(digest, generation, winner).await;
        Ok(winner)
    }

    /// Writes a small blob that the index holds to the object store, and publishes it with others.
    pub async fn settle(
        &self,
        digest: &Digest,
        generation: Generation,
        data: Bytes,
    ) -> Result<(), StoreError> {
        self.objects.put(digest, generation, data).await?;
        let winner = self.client.place_late(digest, generation).await?;
        self.delete_loser(digest, generation, winner).await;
        Ok(())
    }

    async fn delete_loser(&self, digest: &Digest, generation: Generation, winner: Generation) {
        if winner != generation
            && let Err(error) = self.objects.delete(&[(*digest, generation)]).await
        {
            tracing::debug!(
                %digest, error = %chain(&error),
                "an object nobody needs is left to the collector"
            );
        }
    }
}
