//! Hashing of a long stream beside its receipt: one batch is hashed on another thread while
//! the next one arrives, so that a large upload does not hold up its neighbours.

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::digest::{Digest, DigestFunction, Hasher};
use crate::error::StoreError;

const HASHING: &str = "hash a blob";
/// Bytes that are worth a trip to another thread. At most twice as many are held.
pub const BATCH: usize = 512 << 10;

pub struct StreamHasher {
    state: HashingState,
    batch: Vec<Bytes>,
    batched: usize,
}

enum HashingState {
    /// No batch is being hashed.
    Idle(Hasher),
    /// A batch is hashed on another thread, which gives the hasher back.
    Busy(JoinHandle<Hasher>),
    /// The hasher is gone: the thread that had it panicked, or the call that waited for it was dropped.
    Lost,
}

impl StreamHasher {
    pub fn new(function: DigestFunction) -> Self {
        Self { state: HashingState::Idle(function.hasher()), batch: Vec::new(), batched: 0 }
    }

    pub async fn update(&mut self, data: Bytes) -> Result<(), StoreError> {
        self.batched += data.len();
        self.batch.push(data);
        if self.batched < BATCH {
            return Ok(());
        }
        let mut hasher = self.settled().await?;
        let batch = std::mem::take(&mut self.batch);
        self.batched = 0;
        self.state = HashingState::Busy(tokio::task::spawn_blocking(move || {
            batch.iter().for_each(|piece| hasher.update(piece));
            hasher
        }));
        Ok(())
    }

    /// The digest of all that came.
    pub async fn finish(mut self) -> Result<Digest, StoreError> {
        let mut hasher = self.settled().await?;
        self.batch.iter().for_each(|piece| hasher.update(piece));
        Ok(hasher.finish())
    }

    async fn settled(&mut self) -> Result<Hasher, StoreError> {
        match std::mem::replace(&mut self.state, HashingState::Lost) {
            HashingState::Idle(hasher) => Ok(hasher),
            HashingState::Busy(task) => {
                task.await.map_err(|error| StoreError::failed(HASHING, error))
            }
            HashingState::Lost => Err(StoreError::Io {
                context: HASHING.to_owned(),
                reason: "it failed before".into(),
            }),
        }
    }
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
