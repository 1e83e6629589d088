//! Contents of the CAS for the history.

use async_trait::async_trait;
use bytes::Bytes;
use kiln_cas::{Digest, DigestFunction, SharedBlobStore, StoreError};
use kiln_ci::storage::{Blobs, StorageError};

use super::errors::unavailable;

pub struct StoredBlobs(pub SharedBlobStore);

#[async_trait]
impl Blobs for StoredBlobs {
    async fn fetch(
        &self,
        function: i32,
        hash: &str,
        size: u64,
        most: u64,
    ) -> Result<Option<Bytes>, StorageError> {
        if size > most {
            return Ok(None);
        }
        for function in functions(function) {
            let Ok(digest) = Digest::from_hex(hash.as_bytes(), size, function) else {
                return Ok(None);
            };
            if let Some(bytes) = self.read(&digest).await? {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

impl StoredBlobs {
    async fn read(&self, digest: &Digest) -> Result<Option<Bytes>, StorageError> {
        let found = match self.0.read(digest, 0, None).await {
            Ok(blob) => blob.collect(digest.size).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }
}

/// The digest functions by which a blob may be meant: both where the message names none, since a
/// hash of one function is no other blob's by the other; none for an unknown value.
fn functions(wire: i32) -> Vec<DigestFunction> {
    match DigestFunction::from_wire(wire) {
        Ok(function) if wire != 0 => vec![function],
        Ok(_) => DigestFunction::ALL.to_vec(),
        Err(_) => Vec::new(),
    }
}
