//! Streams do not stay for ever, and what crashes left of them goes.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::head;
use super::log::{Chunk, EventLog, LogError, of_all};
use super::names::CHUNKS;
use crate::model::Time;
use crate::storage::{Expect, Record, Write};

/// Records that are read or deleted at once.
const PAGE: usize = 256;

/// A blob that nothing names is no longer about to be named.
const ORPHANED: Duration = Duration::from_secs(3600);

impl EventLog {
    /// Forgets streams of which nothing was heard for `keep`, and says how many. Whoever does it at the same
    /// time does the same.
    pub async fn age(&self, now: Time, keep: Duration) -> Result<u64, LogError> {
        let mut gone = 0;
        let mut after: Option<String> = None;
        while let Some(first) = self.page(CHUNKS, after.as_deref(), false, 1).await?.pop() {
            let Some((stream, _)) = first.key.rsplit_once('/') else { break };
            let prefix = format!("{stream}/");
            let newest = self.page(&prefix, None, true, 1).await?.pop();
            // Of one that cannot be read it is not known: it may have come just now.
            let newest = newest.and_then(|it| self.readable(&it));
            if newest.is_some_and(|it| now.since(it.at) > keep) {
                self.forget(&prefix).await?;
                gone += 1;
            }
            // Behind all numbers of this stream.
            after = Some(format!("{prefix}~"));
        }
        self.age_builds(now, keep).await?;
        Ok(gone)
    }

    /// From its end on: what a crash leaves is a beginning, behind which a client goes on.
    pub(super) async fn forget(&self, prefix: &str) -> Result<(), LogError> {
        let name = prefix.trim_start_matches(CHUNKS).trim_end_matches('/');
        loop {
            let page = self.page(prefix, None, true, PAGE).await?;
            if page.is_empty() {
                return self.records.write(head::forget(name).into()).await.map_err(of_all);
            }
            let delete =
                |it: &Record| Write { key: it.key.clone(), expect: Expect::Anything, value: None };
            let mut writes: Vec<_> = page.iter().map(delete).collect();
            if page.len() < PAGE {
                writes.extend(head::forget(name));
            }
            self.records.write(writes).await.map_err(of_all)?;
            // What others name is swept.
            for named in page.iter().filter_map(|it| read(it).ok()) {
                self.segments.remove(&named.blob).await.map_err(of_all)?;
            }
        }
    }

    /// Removes chunks that were put by somebody who ended before naming them: what this process has seen unnamed for so long;
    /// none while there is a record of which it cannot be read what it names. `now`: by a clock of this process that nobody
    /// sets, from any origin.
    pub async fn sweep(&self, now: Duration) -> Result<u64, LogError> {
        let (hash, mut known) = (RandomState::new(), HashSet::new());
        let mut after: Option<String> = None;
        loop {
            let page = self.page(CHUNKS, after.as_deref(), false, PAGE).await?;
            for record in &page {
                let Some(named) = self.readable(record) else { return Ok(0) };
                known.insert(hash.hash_one(&named.blob));
            }
            match page.into_iter().last() {
                Some(last) => after = Some(last.key),
                None => break,
            }
        }
        self.remove_unknown(now, |name| known.contains(&hash.hash_one(name))).await
    }

    async fn remove_unknown(
        &self,
        now: Duration,
        is_known: impl Fn(&String) -> bool,
    ) -> Result<u64, LogError> {
        let (mut swept, mut seen) = (0, BTreeSet::new());
        let mut after: Option<String> = None;
        loop {
            let page = self.segments.list(after.as_deref(), PAGE).await.map_err(of_all)?;
            let Some((last, _)) = page.last().cloned() else { break };
            for (name, _) in page {
                if is_known(&name) {
                    continue;
                }
                if self.unnamed.of(&name, now) >= ORPHANED {
                    self.segments.remove(&name).await.map_err(of_all)?;
                    swept += 1;
                }
                seen.insert(name);
            }
            after = Some(last);
        }
        self.unnamed.keep(&seen);
        Ok(swept)
    }

    /// `None`: it cannot be read, which the log says.
    fn readable(&self, record: &Record) -> Option<Chunk> {
        self.unread.readable(&record.key, read(record))
    }

    async fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Record>, LogError> {
        self.records.list(prefix, after, reverse, limit).await.map_err(of_all)
    }
}

fn read(record: &Record) -> Result<Chunk, serde_json::Error> {
    serde_json::from_slice(&record.value)
}
