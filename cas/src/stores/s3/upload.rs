//! Writing an object that arrives in pieces: in one request where it is small, else in parts,
//! of which some are on their way while the next one arrives.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use kiln_net::causes::chain;
use tokio::task::JoinSet;

use super::body::body;
use super::bucket::Bucket;
use crate::blob::BlobWriter;
use crate::digest::Digest;
use crate::error::{Reason, StoreError};

/// Usual size of a part; also the largest object that is written in one request.
pub const PART_SIZE: u64 = 8 << 20;
/// S3 takes no more parts than this: larger blobs have larger parts.
const MAX_PARTS: u64 = 10_000;
/// Parts of one upload that are on their way at the same time.
const PARTS_IN_FLIGHT: usize = 4;

/// Dropped without a commit it leaves, if it has sent parts, an upload that
/// [`crate::stores::indexed::Objects::sweep`] removes.
pub struct Writer {
    bucket: Arc<Bucket>,
    key: String,
    digest: Digest,
    received: u64,
    part_size: u64,
    pieces: Vec<Bytes>,
    buffered: u64,
    upload: Option<Upload>,
}

struct Upload {
    id: String,
    parts: i32,
    in_flight: JoinSet<Result<CompletedPart, StoreError>>,
    done: Vec<CompletedPart>,
}

impl Writer {
    pub fn new(bucket: Arc<Bucket>, key: String, digest: Digest) -> Self {
        let part_size = PART_SIZE.max(digest.size.div_ceil(MAX_PARTS));
        let (pieces, upload) = (Vec::new(), None);
        Self { bucket, key, digest, received: 0, part_size, pieces, buffered: 0, upload }
    }

    fn mismatch(&self) -> StoreError {
        StoreError::SizeMismatch { expected: self.digest, actual: self.received }
    }

    async fn append(&mut self, mut data: Bytes) -> Result<(), StoreError> {
        // What fits in one request waits for the commit.
        if self.digest.size > self.part_size {
            while self.buffered + data.len() as u64 >= self.part_size {
                self.keep(data.split_to((self.part_size - self.buffered) as usize));
                self.send_part().await?;
            }
        }
        self.keep(data);
        Ok(())
    }

    fn keep(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.buffered += data.len() as u64;
            self.pieces.push(data);
        }
    }

    async fn send_part(&mut self) -> Result<(), StoreError> {
        let pieces = std::mem::take(&mut self.pieces);
        self.buffered = 0;
        let mut upload = match self.upload.take() {
            Some(upload) => upload,
            None => Upload::begin(&self.bucket, &self.key, &self.digest).await?,
        };
        upload.parts += 1;
        // Before the part is out of this writer's hands: whoever sends the blob is held back
        // while too many parts, of all uploads, are in memory.
        let permit = self.bucket.part_permit().await?;
        let (bucket, key) = (self.bucket.clone(), self.key.clone());
        let part = send(bucket, key, upload.id.clone(), upload.parts, pieces);
        upload.in_flight.spawn(async move {
            let _permit = permit;
            part.await
        });
        let upload = self.upload.insert(upload);
        upload.settle(PARTS_IN_FLIGHT - 1).await
    }

    async fn finish(&mut self) -> Result<(), StoreError> {
        if self.received != self.digest.size {
            return Err(self.mismatch());
        }
        if self.upload.is_none() {
            return self.bucket.put(&self.key, &self.pieces).await;
        }
        if self.buffered > 0 {
            self.send_part().await?;
        }
        match &mut self.upload {
            Some(upload) => {
                upload.settle(0).await?;
                upload.complete(&self.bucket, &self.key, &self.digest).await
            }
            None => Ok(()),
        }
    }

    /// Removes the parts that were sent.
    async fn give_up(&mut self) {
        self.pieces.clear();
        if let Some(mut upload) = self.upload.take() {
            upload.in_flight.shutdown().await;
            if let Err(error) = self.bucket.abort(&self.key, &upload.id).await {
                tracing::debug!(
                    key = self.key, error = %chain(&error),
                    "an upload is left to be swept"
                );
            }
        }
    }
}

impl Upload {
    async fn begin(bucket: &Bucket, key: &str, digest: &Digest) -> Result<Self, StoreError> {
        let name = &bucket.site.bucket;
        let patience = bucket.patience();
        let answer = loop {
            let request = bucket.clients.usual.create_multipart_upload().bucket(name).key(key);
            let answer = Box::pin(request.send()).await;
            let answer =
                answer.map_err(|error| bucket.site.failure("begin an upload", error).into());
            if let Some(ended) = patience.judge(answer).await {
                break ended?;
            }
        };
        let id = answer.upload_id.ok_or_else(|| {
            StoreError::corrupt(format!("{}: an upload of {digest} got no name", bucket.site))
        })?;
        Ok(Self { id, parts: 0, in_flight: JoinSet::new(), done: Vec::new() })
    }

    /// Returns when at most `left` parts are on their way.
    async fn settle(&mut self, left: usize) -> Result<(), StoreError> {
        while self.in_flight.len() > left
            && let Some(part) = self.in_flight.join_next().await
        {
            let lost = |error| StoreError::unavailable(Reason::caused("a part was cut off", error));
            self.done.push(part.map_err(lost)??);
        }
        Ok(())
    }

    async fn complete(
        &mut self,
        bucket: &Bucket,
        key: &str,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        self.done.sort_unstable_by_key(|part| part.part_number);
        let parts = std::mem::take(&mut self.done);
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let patience = bucket.patience();
        loop {
            let request = bucket
                .clients
                .usual
                .complete_multipart_upload()
                .bucket(&bucket.site.bucket)
                .key(key)
                .upload_id(&self.id)
                .multipart_upload(parts.clone());
            let Err(error) = Box::pin(request.send()).await else { return Ok(()) };
            let failure = bucket.site.failure("complete an upload", error);
            // A retry of a request whose answer was lost finds no upload, but the object.
            if failure.is_absent("NoSuchUpload") && bucket.size(key).await? == Some(digest.size) {
                return Ok(());
            }
            if let Some(ended) = patience.judge(Err(failure.into())).await {
                return ended;
            }
        }
    }
}

async fn send(
    bucket: Arc<Bucket>,
    key: String,
    upload: String,
    number: i32,
    pieces: Vec<Bytes>,
) -> Result<CompletedPart, StoreError> {
    let patience = bucket.patience();
    loop {
        let request = bucket
            .clients
            .uploads
            .upload_part()
            .bucket(&bucket.site.bucket)
            .key(&key)
            .upload_id(&upload)
            .part_number(number)
            .body(body(&pieces));
        let answer = Box::pin(request.send()).await;
        let answer = answer.map_err(|error| bucket.site.failure("upload a part", error).into());
        if let Some(ended) = patience.judge(answer).await {
            let part = CompletedPart::builder().part_number(number).set_e_tag(ended?.e_tag);
            return Ok(part.build());
        }
    }
}

#[async_trait]
impl BlobWriter for Writer {
    async fn write(&mut self, data: Bytes) -> Result<(), StoreError> {
        self.received += data.len() as u64;
        let result = if self.received > self.digest.size {
            Err(self.mismatch())
        } else {
            self.append(data).await
        };
        if result.is_err() {
            self.give_up().await;
        }
        result
    }

    async fn commit(mut self: Box<Self>) -> Result<(), StoreError> {
        let result = self.finish().await;
        if result.is_err() {
            self.give_up().await;
        }
        result
    }
}
