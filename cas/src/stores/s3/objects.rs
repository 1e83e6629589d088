//! The bucket as an object store.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{MultipartUpload, Object};
use bytes::Bytes;
use futures_util::TryStreamExt;

use super::bucket::Bucket;
use super::config::S3Config;
use super::deletes::{DELETE_BATCH, DELETES_IN_FLIGHT};
use super::key;
use super::read::read;
use super::stats::S3Stats;
use super::upload::{PART_SIZE, Writer};
use crate::blob::{BlobStream, BlobWriter};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::stores::indexed::{Generation, Listed, Objects, copy_through};
use crate::stores::range::clip;

/// Most bytes of the object that holds the mark.
const MARK_SIZE: i64 = 100;
/// Objects of a page of a listing.
const PAGE: i32 = 1000;
/// Larger objects are copied through this process: the store might take too long for a request.
const COPY_LIMIT: u64 = 1 << 30;

/// Blobs as objects in a bucket. Clones share it.
#[derive(Clone)]
pub struct S3Objects {
    bucket: Arc<Bucket>,
    /// What keys of blobs begin with.
    root: Arc<str>,
    clock_key: Arc<str>,
    mark_key: Arc<str>,
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
        let bucket = Arc::new(Bucket::connect(config).await?);
        let root = key::root(&config.prefix);
        let top = root.trim_end_matches("blobs/");
        let (clock_key, mark_key) = (format!("{top}clock").into(), format!("{top}index").into());
        Ok(Self { bucket, root: root.into(), clock_key, mark_key })
    }

    /// Requests so far, by what became of them.
    pub fn stats(&self) -> S3Stats {
        self.bucket.clients.counts.snapshot()
    }

    /// One cheap request; errors as those of [`S3Objects::open`].
    pub async fn check(&self) -> Result<(), StoreError> {
        self.page(self.root.to_string(), None, 1).await.map(drop)
    }

    fn no_mark(&self) -> StoreError {
        StoreError::corrupt(format!(
            "{} in {} is not 16 hexadecimal digits",
            self.mark_key, self.bucket.site
        ))
    }

    fn key(&self, digest: &Digest, generation: Generation) -> String {
        key::key(&self.root, digest, generation)
    }

    async fn page(
        &self,
        prefix: String,
        after: Option<String>,
        limit: i32,
    ) -> Result<(Vec<Object>, bool), StoreError> {
        let bucket = &self.bucket;
        let _permit = bucket.permit().await?;
        let request = bucket
            .clients
            .usual
            .list_objects_v2()
            .bucket(&bucket.site.bucket)
            .prefix(prefix)
            .set_start_after(after)
            .max_keys(limit);
        let answer = Box::pin(request.send()).await;
        let answer = answer.map_err(|error| bucket.site.failure("list objects", error))?;
        Ok((answer.contents.unwrap_or_default(), answer.is_truncated.unwrap_or(false)))
    }

    /// `None`: not a blob, or one of the wrong size.
    fn listed(&self, object: &Object) -> Option<Listed> {
        let name = object.key.as_deref()?;
        let (digest, generation) = key::parse(&self.root, name)?;
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
        let bucket = &self.bucket;
        let (key_marker, upload_marker) = after.unzip();
        let request = bucket
            .clients
            .usual
            .list_multipart_uploads()
            .bucket(&bucket.site.bucket)
            .prefix(&*self.root)
            .set_key_marker(key_marker)
            .set_upload_id_marker(upload_marker)
            .max_uploads(PAGE);
        let answer = Box::pin(request.send()).await;
        let answer = answer.map_err(|error| bucket.site.failure("list uploads", error))?;
        let stale = |upload: &MultipartUpload| seconds(upload.initiated.as_ref()) < before;
        let uploads = answer.uploads.unwrap_or_default().into_iter().filter(stale);
        let uploads = uploads.filter_map(|upload| upload.key.zip(upload.upload_id)).collect();
        let next = answer.next_key_marker.zip(answer.next_upload_id_marker);
        Ok((uploads, next.filter(|_| answer.is_truncated == Some(true))))
    }
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
            return self.bucket.put(&self.key(digest, generation), &[data]).await;
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
        Ok(Box::new(Writer::new(self.bucket.clone(), key, *digest)))
    }

    async fn read(
        &self,
        digest: &Digest,
        generation: Generation,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<BlobStream, StoreError> {
        let range = clip(digest, offset, limit)?;
        read(self.bucket.clone(), self.key(digest, generation), *digest, range).await
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
        let bucket = &self.bucket;
        let _permit = bucket.permit().await?;
        let request = bucket
            .clients
            .uploads
            .copy_object()
            .bucket(&bucket.site.bucket)
            .copy_source(format!("{}/{}", bucket.site.bucket, self.key(digest, from)))
            .key(self.key(digest, to));
        let answer = Box::pin(request.send()).await;
        answer.map_err(|error| bucket.site.failure("copy an object", error).about(digest))?;
        Ok(())
    }

    async fn delete(&self, objects: &[(Digest, Generation)]) -> Result<(), StoreError> {
        for batch in objects.chunks(DELETE_BATCH) {
            let key = |(digest, generation): &(Digest, Generation)| self.key(digest, *generation);
            match batch {
                [one] => self.bucket.delete(&key(one)).await?,
                _ => self.bucket.delete_batch(&batch.iter().map(key).collect::<Vec<_>>()).await?,
            }
        }
        Ok(())
    }

    async fn generations(&self, digest: &Digest) -> Result<Vec<Generation>, StoreError> {
        let prefix = key::blob_root(&self.root, digest);
        let (objects, _) = self.page(prefix, None, PAGE).await?;
        let listed = objects.iter().filter_map(|object| self.listed(object));
        Ok(listed.map(|listed| listed.generation).collect())
    }

    async fn list(
        &self,
        after: Option<String>,
    ) -> Result<(Vec<Listed>, Option<String>), StoreError> {
        let (objects, more) = self.page(self.root.to_string(), after, PAGE).await?;
        let last = objects.last().and_then(|object| object.key.clone());
        let listed = objects.iter().filter_map(|object| self.listed(object)).collect();
        Ok((listed, last.filter(|_| more)))
    }

    async fn now(&self) -> Result<u64, StoreError> {
        let (bucket, key) = (&self.bucket, &*self.clock_key);
        bucket.put(key, &[Bytes::new()]).await?;
        let request = bucket.clients.usual.head_object().bucket(&bucket.site.bucket).key(key);
        let answer = Box::pin(request.send()).await;
        let answer = answer.map_err(|error| bucket.site.failure("read the clock", error))?;
        Ok(seconds(answer.last_modified.as_ref()))
    }

    async fn mark(&self) -> Result<Option<u64>, StoreError> {
        let bucket = &self.bucket;
        let request =
            bucket.clients.usual.get_object().bucket(&bucket.site.bucket).key(&*self.mark_key);
        let answer = match Box::pin(request.send()).await {
            Ok(answer) => answer,
            Err(error) => match bucket.site.failure("read the mark", error) {
                failure if failure.is_absent("NoSuchKey") => return Ok(None),
                failure => return Err(failure.into()),
            },
        };
        if answer.content_length.is_some_and(|length| length > MARK_SIZE) {
            return Err(self.no_mark());
        }
        let text = answer.body.collect().await;
        let text = text.map_err(|error| bucket.site.broken_body(error))?.into_bytes();
        let text = std::str::from_utf8(&text).ok();
        let epoch = text.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
        epoch.map(Some).ok_or_else(|| self.no_mark())
    }

    async fn set_mark(&self, epoch: u64) -> Result<(), StoreError> {
        let text = Bytes::from(format!("{epoch:016x}\n"));
        self.bucket.put(&self.mark_key, &[text]).await
    }

    async fn sweep(&self, before: u64) -> Result<u64, StoreError> {
        let bucket = &self.bucket;
        let (mut swept, mut after) = (0, None);
        loop {
            let (stale, next) = self.stale_uploads(before, after).await?;
            swept += stale.len() as u64;
            futures_util::stream::iter(stale.into_iter().map(Ok))
                .try_for_each_concurrent(DELETES_IN_FLIGHT, |(key, id)| async move {
                    bucket.abort(&key, &id).await
                })
                .await?;
            after = next;
            if after.is_none() {
                return Ok(swept);
            }
        }
    }
}
