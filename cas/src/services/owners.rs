//! Removes records about blobs when the blobs are gone: sizes of the HTTP cache, mappings of chunks, assets.

use std::time::{Duration, Instant};

use kiln_net::Backoff;
use kiln_net::causes::chain;
use kiln_net::panics::caught;

use super::{asset, chunking, http};
use crate::blob::SharedBlobStore;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::records::{Expect, Record, RecordsError, SharedRecords, Write};

/// Records looked at together. Mappings of chunks may have a megabyte each.
const PAGE: usize = 64;
/// How often the number of evicted blobs is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The pause after a round, as a multiple of the time that the round took: sweeping takes at most a twentieth of
/// a processor.
const REST: u32 = 20;
/// Pauses after rounds that failed.
const BACKOFF: Backoff = Backoff::new(LOOK, Duration::from_secs(60));

/// Records of one kind that are about blobs.
#[derive(Debug, Clone, Copy)]
pub struct Remembered {
    /// What their keys begin with.
    pub prefix: &'static str,
    /// The blob that a record is about; `None`: it cannot be read.
    pub owner: fn(&Record) -> Option<Digest>,
    /// Whether one that cannot be read stays: somebody put it there, and it may be of a newer server. Of what is only
    /// remembered of a blob it is of no use.
    pub unread_stays: bool,
}

const OWN: [Remembered; 3] = [
    Remembered { prefix: http::SIZES, owner: http::owner, unread_stays: false },
    Remembered { prefix: chunking::MAPPINGS, owner: chunking::owner, unread_stays: false },
    Remembered { prefix: asset::ASSETS, owner: asset::owner, unread_stays: false },
];

#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error("the records: {0}")]
    Records(#[from] RecordsError),
    #[error("the blobs: {0}")]
    Blobs(#[from] StoreError),
}

/// Removes records without a blob, `others` among them, a round each time that `evicted` tells something new. Never
/// returns.
pub async fn keep_swept(
    records: SharedRecords,
    blobs: SharedBlobStore,
    others: &'static [Remembered],
    evicted: impl Fn() -> u64 + Send,
) {
    // What went in the last run is not known.
    let mut swept = None;
    let mut failures = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        let now = evicted();
        if swept == Some(now) {
            continue;
        }
        let began = Instant::now();
        let done = match caught(sweep(&records, &blobs, others)).await {
            Ok(done) => done.map_err(|error| chain(&error)),
            Err(panicked) => Err(panicked.to_string()),
        };
        match done {
            Ok(gone) => {
                (swept, failures) = (Some(now), 0);
                tracing::debug!(gone, "removed what was remembered of evicted blobs");
            }
            Err(error) => {
                tracing::warn!(error, "records of evicted blobs stay for now");
                failures += 1;
                tokio::time::sleep(BACKOFF.pause(failures)).await;
            }
        }
        tokio::time::sleep(began.elapsed() * REST).await;
    }
}

/// One round. Returns how many records went.
pub async fn sweep(
    records: &SharedRecords,
    blobs: &SharedBlobStore,
    others: &[Remembered],
) -> Result<u64, SweepError> {
    let mut gone = 0;
    for kind in OWN.iter().chain(others) {
        let mut after: Option<String> = None;
        loop {
            let page = records.list(kind.prefix, after.as_deref(), false, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            gone += sweep_page(records, blobs, kind, &page).await?;
        }
    }
    if gone > 0 {
        records.compact().await?;
    }
    Ok(gone)
}

async fn sweep_page(
    records: &SharedRecords,
    blobs: &SharedBlobStore,
    kind: &Remembered,
    page: &[Record],
) -> Result<u64, SweepError> {
    let owners: Vec<_> = page.iter().map(kind.owner).collect();
    let asked: Vec<_> = owners.iter().flatten().copied().collect();
    let absent = blobs.absent(&asked).await?;
    let orphaned = |owner: &Option<Digest>| match owner {
        Some(owner) => absent.contains(owner),
        None => !kind.unread_stays,
    };
    let orphans: Vec<_> = page.iter().zip(&owners).filter(|(_, owner)| orphaned(owner)).collect();
    if orphans.is_empty() {
        return Ok(0);
    }
    let writes = orphans.iter().map(|(record, _)| Write {
        key: record.key.clone(),
        expect: Expect::Version(record.version),
        value: None,
    });
    match records.write(writes.collect()).await {
        Ok(_) => {}
        // Somebody remembers one of them anew: the next round sees what became of it.
        Err(RecordsError::Conflict { .. }) => return Ok(0),
        Err(error) => return Err(error.into()),
    }
    restore(records, blobs, &orphans).await?;
    Ok(orphans.len() as u64)
}

/// A blob that came back in between keeps what is known of it.
async fn restore(
    records: &SharedRecords,
    blobs: &SharedBlobStore,
    removed: &[(&Record, &Option<Digest>)],
) -> Result<(), SweepError> {
    let owners: Vec<_> = removed.iter().filter_map(|(_, owner)| **owner).collect();
    let absent = blobs.absent(&owners).await?;
    for (record, owner) in removed {
        if owner.is_none_or(|owner| absent.contains(&owner)) {
            continue;
        }
        let write = Write {
            key: record.key.clone(),
            expect: Expect::Absent,
            value: Some(record.value.clone()),
        };
        match records.write(vec![write]).await {
            Ok(_) | Err(RecordsError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::digest::DigestFunction;
    use crate::records::{Records, Version};
    use crate::stores::{Clock, MemoryBlobStore, MemoryRecords};

    async fn put(records: &SharedRecords, key: String, value: Vec<u8>) {
        let value = Some(Bytes::from(value));
        records.write(vec![Write { key, expect: Expect::Anything, value }]).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_remembered_of_a_blob_goes_with_it() {
        let clock = Clock::manual(1000);
        let lease = Duration::from_secs(10);
        let blobs: SharedBlobStore = Arc::new(MemoryBlobStore::new(100, lease, clock.clone()));
        let records: SharedRecords = Arc::new(MemoryRecords::default());
        let (old, new) = (Bytes::from(vec![1; 60]), Bytes::from(vec![2; 60]));
        let digests = [&old, &new].map(|data| DigestFunction::Sha256.digest(data));
        put(&records, "jobs/1".to_owned(), vec![1]).await;
        for digest in &digests {
            for (key, value) in [
                http::remembered(digest),
                chunking::remembered(digest, &[*digest]),
                asset::remembered(digest),
            ] {
                put(&records, key, value).await;
            }
        }
        let left = async || records.list("", None, false, 100).await.unwrap().len();
        blobs.write(&digests[0], old).await.unwrap();
        clock.advance(11);
        // A sweep looks at blobs without promising them anew, so it keeps none of them alive.
        assert_eq!(sweep(&records, &blobs, &[]).await.unwrap(), 3);
        assert_eq!((left().await, sweep(&records, &blobs, &[]).await.unwrap()), (4, 0));
        blobs.write(&digests[1], new).await.unwrap();
        assert_eq!(sweep(&records, &blobs, &[]).await.unwrap(), 3);
        assert_eq!(left().await, 1, "what is no blob's stays");
    }

    #[tokio::test]
    async fn what_cannot_be_read_goes_only_where_it_was_but_remembered() {
        let blobs: SharedBlobStore = Arc::new(MemoryBlobStore::default());
        let records: SharedRecords = Arc::new(MemoryRecords::default());
        for prefix in [http::SIZES, "kept/", "noted/"] {
            put(&records, format!("{prefix}odd"), b"odd".to_vec()).await;
        }
        let kind = |prefix, unread_stays| Remembered { prefix, owner: |_| None, unread_stays };
        let others = [kind("kept/", true), kind("noted/", false)];
        assert_eq!(sweep(&records, &blobs, &others).await.unwrap(), 2);
        let left = records.list("", None, false, 10).await.unwrap();
        assert_eq!(left.iter().map(|it| it.key.as_str()).collect::<Vec<_>>(), ["kept/odd"]);
    }

    /// Records that cannot be read.
    #[derive(Default)]
    struct Away(AtomicU32);

    #[async_trait::async_trait]
    impl Records for Away {
        async fn get(&self, _: &str) -> Result<Option<Record>, RecordsError> {
            Err(RecordsError::Unavailable("away".into()))
        }

        async fn write(&self, _: Vec<Write>) -> Result<Vec<Version>, RecordsError> {
            Err(RecordsError::Unavailable("away".into()))
        }

        async fn list(
            &self,
            _: &str,
            _: Option<&str>,
            _: bool,
            _: usize,
        ) -> Result<Vec<Record>, RecordsError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err(RecordsError::Unavailable("away".into()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_that_fails_is_repeated_ever_less_often() {
        let away = Arc::new(Away::default());
        let blobs: SharedBlobStore = Arc::new(MemoryBlobStore::default());
        let ten_minutes = Duration::from_secs(600);
        let sweeping = keep_swept(away.clone(), blobs, &[], || 0);
        assert!(tokio::time::timeout(ten_minutes, sweeping).await.is_err());
        let rounds = away.0.load(Ordering::Relaxed);
        assert!((10..40).contains(&rounds), "{rounds} rounds");
    }
}
