//! Hashing of a long stream beside its receipt.

use bytes::Bytes;

use super::stage::{Stage, Task};
use crate::digest::{Digest, DigestFunction, Hasher};
use crate::error::StoreError;

const HASHING: &str = "hash a blob";
/// Bytes that are worth a trip to another thread. At most twice as many are held.
pub const BATCH: usize = 512 << 10;

pub struct StreamHasher(Stage<Hasher>);

impl StreamHasher {
    pub fn new(function: DigestFunction) -> Self {
        Self(Stage::new(function.hasher(), Task { name: HASHING, batch: BATCH, work: update }))
    }

    pub async fn update(&mut self, data: Bytes) -> Result<(), StoreError> {
        self.0.push(data).await
    }

    /// The digest of all that came.
    pub async fn finish(self) -> Result<Digest, StoreError> {
        let (mut hasher, rest) = self.0.end().await?;
        update(&mut hasher, &rest)?;
        Ok(hasher.finish())
    }
}

fn update(hasher: &mut Hasher, pieces: &[Bytes]) -> Result<(), StoreError> {
    pieces.iter().for_each(|piece| hasher.update(piece));
    Ok(())
}

/// The digest of `data`, taken on another thread where there is much of it.
pub async fn hash(function: DigestFunction, data: &Bytes) -> Result<Digest, StoreError> {
    if data.len() < BATCH {
        return Ok(function.digest(data));
    }
    let data = data.clone();
    let hashed = tokio::task::spawn_blocking(move || function.digest(&data)).await;
    hashed.map_err(|error| StoreError::failed(HASHING, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn batches_do_not_change_the_digest() {
        let data = Bytes::from((0..5 * BATCH).map(|i| (i % 251) as u8).collect::<Vec<_>>());
        for function in DigestFunction::ALL {
            for step in [1000, BATCH - 1, BATCH, 3 * BATCH] {
                let mut hasher = StreamHasher::new(function);
                for start in (0..data.len()).step_by(step) {
                    let end = data.len().min(start + step);
                    hasher.update(data.slice(start..end)).await.unwrap();
                }
                assert_eq!(hasher.finish().await.unwrap(), function.digest(&data), "{step}");
            }
        }
    }
}
