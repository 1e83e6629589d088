//! The bucket and the requests that objects, reads and uploads have in common.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::body::body;
use super::client::{Clients, WHOLE_REQUEST};
use super::config::S3Config;
use super::error::{Failure, Site};
use super::patience::Patience;
use crate::error::StoreError;

/// Requests of all kinds but streams, at the same time.
const REQUESTS_IN_FLIGHT: usize = 128;
/// Parts of all uploads that are on their way, each in memory, at the same time.
const PARTS_IN_FLIGHT: usize = 16;

/// One bucket, as a process uses it.
pub struct Bucket {
    pub clients: Clients,
    pub site: Site,
    requests: Semaphore,
    parts: Arc<Semaphore>,
    /// How long the next bytes of a read may take.
    pub stall: Duration,
    /// How long reads and writes of blobs are repeated while the store is away.
    patience: Duration,
}

impl Bucket {
    /// Makes the clients, and asks the bucket nothing. Errors: `Config`.
    pub async fn connect(config: &S3Config) -> Result<Self, StoreError> {
        let clients = Clients::new(config).await?;
        let site = Site { bucket: config.bucket.clone(), endpoint: clients.endpoint.clone() };
        Ok(Self {
            clients,
            site,
            requests: Semaphore::new(REQUESTS_IN_FLIGHT),
            parts: Arc::new(Semaphore::new(PARTS_IN_FLIGHT)),
            stall: config.timeout,
            patience: config.timeout * WHOLE_REQUEST,
        })
    }

    /// The right to make one more request that is no stream; waits for it.
    pub async fn permit(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        self.requests.acquire().await.map_err(|_| closed())
    }

    /// The right to hold one more part of a blob in memory while it is on its way; waits for it.
    pub async fn part_permit(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        self.parts.clone().acquire_owned().await.map_err(|_| closed())
    }

    /// Writes an object that is in memory, in one request.
    pub async fn put(&self, key: &str, pieces: &[Bytes]) -> Result<(), StoreError> {
        let _permit = self.permit().await?;
        let patience = self.patience();
        loop {
            let request = self.clients.uploads.put_object().bucket(&self.site.bucket).key(key);
            let answer = Box::pin(request.body(body(pieces)).send()).await;
            let answer = answer.map_err(|error| self.site.failure("put an object", error).into());
            if let Some(ended) = patience.judge(answer).await {
                return ended.map(drop);
            }
        }
    }

    /// The patience of one request, with its repetitions.
    pub fn patience(&self) -> Patience {
        Patience::new(self.patience)
    }

    /// Deletes an object; one that is gone is no error.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let _permit = self.permit().await?;
        let request = self.clients.usual.delete_object().bucket(&self.site.bucket).key(key);
        let Err(error) = Box::pin(request.send()).await else { return Ok(()) };
        match self.site.failure("delete an object", error) {
            failure @ Failure::Absent { .. } if !failure.is_absent("NoSuchBucket") => Ok(()),
            failure => Err(failure.into()),
        }
    }

    /// Removes the parts of an upload. One that is gone is no error.
    pub async fn abort(&self, key: &str, upload: &str) -> Result<(), StoreError> {
        let _permit = self.permit().await?;
        let request = self
            .clients
            .usual
            .abort_multipart_upload()
            .bucket(&self.site.bucket)
            .key(key)
            .upload_id(upload);
        let Err(error) = Box::pin(request.send()).await else { return Ok(()) };
        match self.site.failure("abort an upload", error) {
            failure if failure.is_absent("NoSuchUpload") => Ok(()),
            failure => Err(failure.into()),
        }
    }

    /// The size of an object in bytes. `None`: there is no such object.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let _permit = self.permit().await?;
        let request = self.clients.usual.head_object().bucket(&self.site.bucket).key(key);
        match Box::pin(request.send()).await {
            Ok(answer) => Ok(answer.content_length.and_then(|size| u64::try_from(size).ok())),
            Err(error) => match self.site.failure("look at an object", error) {
                Failure::Absent { .. } => Ok(None),
                failure => Err(failure.into()),
            },
        }
    }
}

fn closed() -> StoreError {
    StoreError::unavailable("S3 was closed")
}
