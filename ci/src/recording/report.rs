//! Reports of attempts, out of the store.

use std::sync::Arc;

use bytes::Bytes;
use kiln_net::panics::caught;

use super::figures::{Counters, Recorded};
use crate::attempts::{Attempt, BlobName, read_cases};
use crate::storage::Blobs;

/// Bytes of a report that is read without being asked for. Larger ones are counted as unreadable: their
/// attempt is known without cases.
const MAX_REPORT: u64 = 32 << 20;
/// Bytes of a report that is parsed at once: about a hundred cases, which are read sooner than another thread is woken and
/// has answered.
const SMALL_REPORT: usize = 8 << 10;

/// Reads contents of the CAS, and counts what cannot be had.
#[derive(Clone)]
pub struct Reader {
    pub blobs: Arc<dyn Blobs>,
    pub counters: Arc<Counters>,
}

impl Reader {
    /// `function`: as REAPI numbers digest functions; 0 where nobody said.
    pub async fn fetch(&self, function: i32, blob: &BlobName, most: u64) -> Option<Bytes> {
        let found = self.blobs.fetch(function, &blob.hash, blob.size, most).await;
        let found = found.ok().flatten();
        if found.is_none() {
            self.counters.count(Recorded::Unreadable, 1);
        }
        found
    }

    /// The attempt with the cases of its report. One that cannot be read changes nothing.
    pub async fn with_cases(
        &self,
        mut attempt: Attempt,
        function: i32,
        report: &BlobName,
    ) -> Attempt {
        let Some(bytes) = self.fetch(function, report, MAX_REPORT).await else { return attempt };
        let is_small = bytes.len() <= SMALL_REPORT;
        let label = attempt.test.label.clone();
        let parse = move || read_cases(&label, &bytes[..]);
        let parsed = match is_small {
            true => caught(async move { parse() }).await.ok(),
            // It takes longer than anybody on this thread should wait.
            false => tokio::task::spawn_blocking(parse).await.ok(),
        };
        match parsed {
            Some(Ok(cases)) => {
                cases.add_to(&mut attempt);
            }
            Some(Err(_)) => self.counters.count(Recorded::Refused, 1),
            None => {}
        }
        attempt
    }
}
