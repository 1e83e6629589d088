//! The bucket as an object store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::error::{DisplayErrorContext, SdkError};
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{Delete, MultipartUpload, Object, ObjectIdentifier};
use bytes::Bytes;
use futures_util::TryStreamExt;
use kiln_net::Backoff;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::body::body;
use super::client::{Clients, WHOLE_REQUEST};
use super::config::S3Config;
use super::error::{Failure, Site};
use super::key;
use super::read::read;
use super::stats::S3Stats;
use super::upload::{PART_SIZE, Writer};
use crate::blob::{BlobStream, BlobWriter};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::stores::indexed::{Generation, Listed, Objects, copy_through};
use crate::stores::range::clip;

/// Keys of one DeleteObjects request: as many as S3 allows.
const DELETE_BATCH: usize = 1000;
/// Single deletions at the same time, where a store knows no DeleteObjects.
const DELETES_IN_FLIGHT: usize = 16;
/// Most bytes of the object that holds the mark.
const MARK_SIZE: i64 = 100;
/// Objects of a page of a listing.
const PAGE: i32 = 1000;
/// Requests of all kinds but streams, at the same time.
const REQUESTS_IN_FLIGHT: usize = 128;
/// Parts of all uploads that are on their way, each in memory, at the same time.
const PARTS_IN_FLIGHT: usize = 16;
/// Between two requests of which the first found the store away.
const PAUSE: Duration = Duration::from_secs(1);
const BACKOFF: Backoff = Backoff::new(PAUSE, PAUSE);
/// Larger objects are copied through this process: the store might take too long for a request.
const COPY_LIMIT: u64 = 1 << 30;

/// Blobs as objects in a bucket. Clones share it.
#[derive(Clone)]
pub struct S3Objects {
    shared: Arc<Shared>,
}

pub struct Shared {
    pub clients: Clients,
    pub site: Site,
    /// What keys of blobs begin with.
    root: String,
    clock_key: String,
    mark_key: String,
    requests: Semaphore,
    parts: Arc<Semaphore>,
    /// How long the next bytes of a read may take.
    pub stall: Duration,
    /// For how long blobs are asked for, and written, again and again while the store is away.
    patience: Duration,
}

impl S3Objects {
    /// Makes the clients and asks the bucket once whether it is there and may be used.
    /// Errors: `Config` when what is configured cannot be used; `Unavailable` when nothing answers; `Io` when the bucket is missing, forbidden or
    /// elsewhere, with what to do.
    pub async fn open(config: &S3Config) -> Result<Self, StoreError> {
        let objects = Self::connect(config).await?;
        objects.check().await?;
        Ok(objects)
    }

    /// Makes the clients, and asks the bucket nothing. Errors: `Config`.
    pub async fn connect(config: &S3Config) -> Result<Self, StoreError> {
        let clients = Clients::new(config).await?;
        let site = Site { bucket: config.bucket.clone(), endpoint: clients.endpoint.clone() };
        let root = key::root(&config.prefix);
        let top = root.trim_end_matches("blobs/");
        let (clock_key, mark_key) = (format!("{top}clock"), format!("{top}index"));
        let (requests, parts) =
            (Semaphore::new(REQUESTS_IN_FLIGHT), Arc::new(Semaphore::new(PARTS_IN_FLIGHT)));
        let (stall, patience) = (config.timeout, config.timeout * WHOLE_REQUEST);
        let shared =
            Shared { clients, site, root, clock_key, mark_key, requests, parts, stall, patience };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Requests so far, by what became of them.
    pub fn stats(&self) -> S3Stats {
        self.shared.clients.counts.snapshot()
    }

    /// One cheap request; errors as those of [`S3Objects::open`].
    pub async fn check(&self) -> Result<(), StoreError> {
        self.page(self.shared.root.clone(), None, 1).await.map(drop)
    }

    fn key(&self, digest: &Digest, generation: Generation) -> String {
        key::key(&self.shared.root, digest, generation)
    }

    async fn page(
        &self,
        prefix: String,
        after: Option<String>,
        limit: i32,
    ) -> Result<(Vec<Object>, bool), StoreError> {
        let shared = &self.shared;
        let _permit = shared.permit(&shared.requests).await?;
        let request = shared
            .clients
            .usual
            .list_objects_v2()
            .bucket(&shared.site.bucket)
            .prefix(prefix)
            .set_start_after(after)
            .max_keys(limit);
        let answer = Box::pin(request.send()).await;
        let answer = answer.map_err(|error| shared.site.failure("list objects", error))?;
        Ok((answer.contents.unwrap_or_default(), answer.is_truncated.unwrap_or(false)))
    }

    /// `None`: not a blob, or one of the wrong size.
    fn listed(&self, object: &Object) -> Option<Listed> {
        let name = object.key.as_deref()?;
        let (digest, generation) = key::parse(&self.shared.root, name)?;
        if object.size.is_some_and(|size| u64::try_from(size) != Ok(digest.size)) {
            tracing::warn!(key = name, size = ?object.size, "an object is not as long as its blob");
            return None;
        }
        Some(Listed { digest, generation, modified: seconds(object.last_modified.as_ref()) })
    }

    /// Keys and names of a page of the unfinished uploads that began before this time.
    async fn stale_uploads(
        &self,
        before: u64,
        after: Option<(String, String)>,
    ) -> Result<(Vec<(String, String)>, Option<(String, String)>), StoreError> {
        let shared = &self.shared;
        let (key_marker, upload_marker) = after.unzip();
        let request = shared
            .clients
            .usual
            .list_multipart_uploads()
            .bucket(&shared.site.bucket)
            .prefix(&shared.root)
            .set_key_marker(key_marker)
            .set_upload_id_marker(upload_marker)
            .max_uploads(PAGE);
        let answer = Box::pin(request.send()).await;
        let answer = answer.map_err(|error| shared.site.failure("list uploads", error))?;
        let stale = |upload: &MultipartUpload| seconds(upload.initiated.as_ref()) < before;
        let uploads = answer.uploads.unwrap_or_default().into_iter().filter(stale);
        let uploads = uploads.filter_map(|upload| upload.key.zip(upload.upload_id)).collect();
        let next = answer.next_key_marker.zip(answer.next_upload_id_marker);
        Ok((uploads, next.filter(|_| answer.is_truncated == Some(true))))
    }

    async fn delete_batch(&self, keys: &[String]) -> Result<(), StoreError> {
        let shared = &self.shared;
        let identify = |key: &String| ObjectIdentifier::builder().key(key).build();
        let objects = keys.iter().map(identify).collect::<Result<Vec<_>, _>>();
        let delete = objects
            .and_then(|objects| Delete::builder().set_objects(Some(objects)).quiet(true).build());
        let delete = delete.map_err(|error| StoreError::Invalid(error.to_string()))?;
        let request =
            shared.clients.usual.delete_objects().bucket(&shared.site.bucket).delete(delete);
        let answer = {
            let _permit = shared.permit(&shared.requests).await?;
            Box::pin(request.send()).await
        };
        let answer = match answer {
            Err(SdkError::ServiceError(error))
                if refuses_batches(error.raw().status().as_u16()) =>
            {
                let error = DisplayErrorContext(error.err());
                tracing::debug!(%error, "objects are deleted one by one");
                return self.delete_each(keys).await;
            }
            answer => answer.map_err(|error| shared.site.failure("delete objects", error))?,
        };
        let failed = answer.errors.unwrap_or_default();
        let failed = failed.iter().find(|error| error.code.as_deref() != Some("NoSuchKey"));
        failed.map_or(Ok(()), |error| {
            let (code, key) = (error.code.as_deref(), error.key.as_deref());
            let message = error.message.as_deref().unwrap_or("no reason given");
            Err(StoreError::Unavailable(format!(
                "S3: cannot delete {} in {}: {message} ({})",
                key.unwrap_or("an object"),
                shared.site,
                code.unwrap_or_default()
            )))
        })
    }

    async fn delete_each(&self, keys: &[String]) -> Result<(), StoreError> {
        futures_util::stream::iter(keys.iter().map(Ok))
            .try_for_each_concurrent(DELETES_IN_FLIGHT, |key| self.shared.delete(key))
            .await
    }
}

/// Some stores have no DeleteObjects, others want a checksum that the SDK no longer sends.
fn refuses_batches(status: u16) -> bool {
    matches!(status, 400 | 405 | 501)
}

impl Shared {
    async fn permit<'a>(&self, of: &'a Semaphore) -> Result<SemaphorePermit<'a>, StoreError> {
        of.acquire().await.map_err(|_| closed())
    }

    /// To hold one more part of a blob in memory while it is on its way.
    pub async fn part_permit(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        self.parts.clone().acquire_owned().await.map_err(|_| closed())
    }

    pub async fn put(&self, key: &str, pieces: &[Bytes]) -> Result<(), StoreError> {
        let _permit = self.permit(&self.requests).await?;
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

    pub fn patience(&self) -> Patience {
        Patience { until: Instant::now() + self.patience }
    }

    fn no_mark(&self) -> StoreError {
        StoreError::Corrupt(format!(
            "{} in {} is not 16 hexadecimal digits",
            self.mark_key, self.site
        ))
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let request = self.clients.usual.delete_object().bucket(&self.site.bucket).key(key);
        let Err(error) = Box::pin(request.send()).await else { return Ok(()) };
        match self.site.failure("delete an object", error) {
            failure @ Failure::Absent { .. } if !failure.is_absent("NoSuchBucket") => Ok(()),
            failure => Err(failure.into()),
        }
    }

    /// Removes the parts of an upload. One that is gone is no error.
    pub async fn abort(&self, key: &str, upload: &str) -> Result<(), StoreError> {
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

    /// `None`: there is no such object.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
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

/// How long one request, which may be repeated, is repeated while the store is away. The SDK does
/// so for some seconds where connections are refused; a store that is started again takes longer.
pub struct Patience {
    until: Instant,
}

impl Patience {
    /// What the request came to; `None`, after a pause: it is to be repeated.
    pub async fn judge<T>(&self, result: Result<T, StoreError>) -> Option<Result<T, StoreError>> {
        match result {
            Err(StoreError::Unavailable(reason)) if Instant::now() + PAUSE < self.until => {
                tracing::debug!(reason, "S3 is away: a request is repeated");
                tokio::time::sleep(BACKOFF.pause(1)).await;
                None
            }
            result => Some(result),
        }
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("S3 was closed".to_owned())
}

fn seconds(time: Option<&DateTime>) -> u64 {
    time.and_then(|time| u64::try_from(time.secs()).ok()).unwrap_or(0)
}

#[async_trait]
impl Objects for S3Objects {
    async fn put(
        &self,
        digest: &Digest,
        generation: Generation,
        data: Bytes,
    ) -> Result<(), StoreError> {
        if digest.size <= PART_SIZE && data.len() as u64 == digest.size {
            return self.shared.put(&self.key(digest, generation), &[data]).await;
        }
        let mut writer = self.writer(digest, generation).await?;
        writer.write(data).await?;
        writer.commit().await
    }

    async fn writer(
        &self,
        digest: &Digest,
        generation: Generation,
    ) -> Result<Box<dyn BlobWriter>, StoreError> {
        let key = self.key(digest, generation);
        Ok(Box::new(Writer::new(self.shared.clone(), key, *digest)))
    }

    async fn read(
        &self,
        digest: &Digest,
        generation: Generation,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<BlobStream, StoreError> {
        let range = clip(digest, offset, limit)?;
        read(self.shared.clone(), self.key(digest, generation), *digest, range).await
    }

    async fn copy(
        &self,
        digest: &Digest,
        from: Generation,
        to: Generation,
    ) -> Result<(), StoreError> {
        if digest.size > COPY_LIMIT {
            return copy_through(self, digest, from, to).await;
        }
        let shared = &self.shared;
        let _permit = shared.permit(&shared.requests).await?;
        let request = shared
            .clients
            .uploads
            .copy_object()
            .bucket(&shared.site.bucket)
            .copy_source(format!("{}/{}", shared.site.bucket, self.key(digest, from)))
            .key(self.key(digest, to));
        let answer = Box::pin(request.send()).await;
        answer.map_err(|error| shared.site.failure("copy an object", error).about(digest))?;
        Ok(())
    }

    async fn delete(&self, objects: &[(Digest, Generation)]) -> Result<(), StoreError> {
        for batch in objects.chunks(DELETE_BATCH) {
            let key = |(digest, generation): &(Digest, Generation)| self.key(digest, *generation);
            match batch {
                [one] => self.shared.delete(&key(one)).await?,
                _ => self.delete_batch(&batch.iter().map(key).collect::<Vec<_>>()).await?,
            }
        }
        Ok(())
    }

    async fn generations(&self, digest: &Digest) -> Result<Vec<Generation>, StoreError> {
        let prefix = key::blob_root(&self.shared.root, digest);
        let (objects, _) = self.page(prefix, None, PAGE).await?;
        let listed = objects.iter().filter_map(|object| self.listed(object));
        Ok(listed.map(|listed| listed.generation).collect())
    }

    async fn list(
        &self,
        after: Option<String>,
    ) -> Result<(Vec<Listed>, Option<String>), StoreError> {
        let (objects, more) = self.page(self.shared.root.clone(), after, PAGE).await?;
        let last = objects.last().and_then(|object| object.key.clone());
        let listed = objects.iter().filter_map(|object| self.listed(object)).collect();
        Ok((listed, last.filter(|_| more)))
    }

    async fn now(&self) -> Result<u64, StoreError> {
        let (shared, key) = (&self.shared, &self.shared.clock_key);
        shared.put(key, &[Bytes::new()]).await?;
        let request = shared.clients.usual.head_object().bucket(&shared.site.bucket).key(key);
        let answer = Box::pin(request.send()).await;
        let answer = answer.map_err(|error| shared.site.failure("read the clock", error))?;
        Ok(seconds(answer.last_modified.as_ref()))
    }

    async fn mark(&self) -> Result<Option<u64>, StoreError> {
        let shared = &self.shared;
        let request =
            shared.clients.usual.get_object().bucket(&shared.site.bucket).key(&shared.mark_key);
        let answer = match Box::pin(request.send()).await {
            Ok(answer) => answer,
            Err(error) => match shared.site.failure("read the mark", error) {
                failure if failure.is_absent("NoSuchKey") => return Ok(None),
                failure => return Err(failure.into()),
            },
        };
        if answer.content_length.is_some_and(|length| length > MARK_SIZE) {
            return Err(shared.no_mark());
        }
        let text = answer.body.collect().await;
        let text = text.map_err(|error| shared.site.broken_body(&error))?.into_bytes();
        let text = std::str::from_utf8(&text).ok();
        let epoch = text.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
        epoch.map(Some).ok_or_else(|| shared.no_mark())
    }

    async fn set_mark(&self, epoch: u64) -> Result<(), StoreError> {
        let text = Bytes::from(format!("{epoch:016x}\n"));
        self.shared.put(&self.shared.mark_key, &[text]).await
    }

    async fn sweep(&self, before: u64) -> Result<u64, StoreError> {
        let shared = &self.shared;
        let (mut swept, mut after) = (0, None);
        loop {
            let (stale, next) = self.stale_uploads(before, after).await?;
            swept += stale.len() as u64;
            futures_util::stream::iter(stale.into_iter().map(Ok))
                .try_for_each_concurrent(DELETES_IN_FLIGHT, |(key, id)| async move {
                    shared.abort(&key, &id).await
                })
                .await?;
            after = next;
            if after.is_none() {
                return Ok(swept);
            }
        }
    }
}
