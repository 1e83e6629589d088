//! Reading an object as a stream that outlives broken connections.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use futures_util::stream::unfold;
use kiln_net::Backoff;
use kiln_net::causes::chain;

use super::bucket::Bucket;
use crate::blob::{BlobStream, MAX_WHOLE_BLOB};
use crate::digest::Digest;
use crate::error::StoreError;

/// How often a stream that breaks off is taken up again...
const RESUMES: u32 = 5;
/// ...before it has brought this many bytes, which make it count anew.
const PROGRESS: u64 = 1 << 20;
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));

/// A read in progress: `next..end` of the blob is still to come.
struct Reading {
    bucket: Arc<Bucket>,
    key: String,
    digest: Digest,
    next: u64,
    end: u64,
    body: Option<ByteStream>,
    /// What is left of a chunk that was too large to be handed out at once.
    rest: Bytes,
    breaks: u32,
    progress: u64,
}

/// Errors: `NotFound`, at once; `Corrupt` when the object is not as long as the blob.
pub async fn read(
    bucket: Arc<Bucket>,
    key: String,
    digest: Digest,
    range: Range<u64>,
) -> Result<BlobStream, StoreError> {
    if range.is_empty() {
        return Ok(Box::pin(futures_util::stream::empty()));
    }
    let mut reading = Reading {
        bucket,
        key,
        digest,
        next: range.start,
        end: range.end,
        body: None,
        rest: Bytes::new(),
        breaks: 0,
        progress: 0,
    };
    let patience = reading.bucket.patience();
    while reading.body.is_none() {
        if let Some(ended) = patience.judge(reading.request().await).await {
            reading.body = Some(ended?);
        }
    }
    Ok(Box::pin(unfold(Some(reading), |reading| async {
        let mut reading = reading?;
        match reading.chunk().await {
            Ok(Some(chunk)) => Some((Ok(chunk), Some(reading))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })))
}

impl Reading {
    async fn request(&self) -> Result<ByteStream, StoreError> {
        let bucket = &self.bucket;
        let mut request =
            bucket.clients.usual.get_object().bucket(&bucket.site.bucket).key(&self.key);
        if self.next > 0 || self.end < self.digest.size {
            request = request.range(format!("bytes={}-{}", self.next, self.end - 1));
        }
        let answer = Box::pin(request.send()).await;
        let answer = answer
            .map_err(|error| bucket.site.failure("read an object", error).about(&self.digest))?;
        self.check(&answer)?;
        Ok(answer.body)
    }

    /// The answer must be of an object as long as the blob, and bring just what was asked for.
    fn check(&self, answer: &GetObjectOutput) -> Result<(), StoreError> {
        let length = answer.content_length.and_then(|length| u64::try_from(length).ok());
        let total = answer
            .content_range
            .as_deref()
            .and_then(|range| range.rsplit_once('/'))
            .and_then(|(_, total)| total.parse().ok());
        let whole = total.unwrap_or(self.digest.size);
        if whole == self.digest.size && length.is_none_or(|length| length == self.end - self.next) {
            return Ok(());
        }
        Err(StoreError::corrupt(format!(
            "object {} in {}: {} bytes of {whole} came, bytes {}-{} of {} were asked for",
            self.key,
            self.bucket.site,
            length.unwrap_or_default(),
            self.next,
            self.end - 1,
            self.digest.size,
        )))
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, StoreError> {
        if self.rest.is_empty() {
            self.rest = match self.receive().await? {
                Some(chunk) => chunk,
                None => return Ok(None),
            };
        }
        let size = self.rest.len().min(MAX_WHOLE_BLOB as usize);
        Ok(Some(self.rest.split_to(size)))
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, StoreError> {
        while self.next < self.end {
            let mut body = match self.body.take() {
                Some(body) => body,
                None => self.request().await?,
            };
            match tokio::time::timeout(self.bucket.stall, body.next()).await {
                Ok(Some(Ok(chunk))) => {
                    self.body = Some(body);
                    self.account(chunk.len() as u64)?;
                    return Ok(Some(chunk));
                }
                Ok(Some(Err(error))) => self.pause(self.bucket.site.broken_body(error)).await?,
                Ok(None) => self.pause(self.cut("it ended early")).await?,
                Err(_) => self.pause(self.cut("nothing came any more")).await?,
            }
        }
        Ok(None)
    }

    fn account(&mut self, bytes: u64) -> Result<(), StoreError> {
        self.next += bytes;
        if self.next > self.end {
            let message = format!("object {} in {} is too long", self.key, self.bucket.site);
            return Err(StoreError::corrupt(message));
        }
        self.progress += bytes;
        if self.progress >= PROGRESS {
            self.breaks = 0;
        }
        Ok(())
    }

    /// Waits before the next request, longer each time. Errors: `error`, once it was enough.
    async fn pause(&mut self, error: StoreError) -> Result<(), StoreError> {
        self.breaks += 1;
        self.progress = 0;
        if self.breaks > RESUMES {
            return Err(error);
        }
        tracing::debug!(key = self.key, error = %chain(&error), at = self.next, "a read goes on");
        tokio::time::sleep(BACKOFF.pause(self.breaks)).await;
        Ok(())
    }

    fn cut(&self, how: &str) -> StoreError {
        StoreError::unavailable(format!(
            "S3: object {} in {}: {how} at byte {} of {}",
            self.key, self.bucket.site, self.next, self.end
        ))
    }
}
