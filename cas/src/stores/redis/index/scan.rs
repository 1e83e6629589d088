//! Going through all blobs that have a place, bucket by bucket.

use super::RedisBlobIndex;
use super::layout::{BUCKETS, Bucket, Cursor, Stored, parse_field};
use crate::error::StoreError;
use crate::redis::Call;
use crate::stores::indexed::{Candidate, Place};

/// Entries that one page reads, roughly.
const SCAN: usize = 4096;

/// Part of a bucket: the second of the server's clock, the server's cursor to go on with (0: the end),
/// and fields with their values.
type Part = (u32, u64, Vec<(Vec<u8>, Vec<u8>)>);

impl RedisBlobIndex {
    /// A page, and where to go on. Errors: `Invalid`, when `from` is not what a page ended with.
    pub(super) async fn scan_from(
        &self,
        from: Option<u64>,
    ) -> Result<(Vec<Candidate>, Option<u64>), StoreError> {
        let start = Cursor::from_u64(from.unwrap_or(0))
            .ok_or_else(|| StoreError::invalid("a cursor that scan did not give"))?;
        // In the middle of a bucket, the rest of that alone; else as many as fit.
        let count = if start.within > 0 { 1 } else { self.buckets_that_fit(start.bucket).await? };
        let buckets = &self.buckets[start.bucket..start.bucket + count];
        let scan = |bucket: &Bucket| {
            self.scripts.scan.call(&[&bucket.entries]).arg(start.within).arg(SCAN)
        };
        let parts: Vec<Part> = self.redis.query_many(buckets.iter().map(scan).collect()).await?;
        let mut candidates = Vec::new();
        for (number, (now, within, entries)) in parts.into_iter().enumerate() {
            for (field, entry) in entries {
                let stored = Stored::parse(&entry)?;
                if let Place::Object(generation) = stored.place {
                    let (digest, expired) = (parse_field(&field)?, stored.expired(now));
                    let ends = stored.ends;
                    candidates.push(Candidate { digest, generation, expired, ends });
                }
            }
            if within != 0 {
                let bucket = start.bucket + number;
                return Ok((candidates, Some(Cursor { bucket, within }.to_u64()?)));
            }
        }
        let next = Cursor { bucket: start.bucket + count, within: 0 };
        let next = (next.bucket < BUCKETS).then(|| next.to_u64()).transpose()?;
        Ok((candidates, next))
    }

    /// How many buckets from this one on have about as many entries as one scan reads.
    async fn buckets_that_fit(&self, from: usize) -> Result<usize, StoreError> {
        let length = |bucket: &Bucket| Call::command("HLEN", &bucket.entries).idempotent();
        let lengths = self.buckets[from..].iter().map(length).collect();
        let lengths: Vec<usize> = self.redis.query_many(lengths).await?;
        let mut sum = 0;
        let fit = lengths.iter().take_while(|&&length| {
            sum += length;
            sum <= SCAN
        });
        Ok(fit.count().max(1))
    }
}
