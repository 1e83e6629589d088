//! The history of tests: every attempt, kept so that those of one test are found at once.
//!
//! Attempts come in batches, each of which is a small segment and a record that names it: fresh. From
//! time to time fresh segments are joined into larger ones, which one record lists: the catalogue. What the
//! history holds is a set of attempts, known by what they were: whatever is committed twice, by whomever,
//! counts once, and what two sources know of one attempt is joined ([`crate::attempts::join`]) wherever
//! it is read.
//!
//! [`plan`] says what is to be done, purely; [`History`] does it.

mod catalogue;
mod compact;
mod days;
mod digest;
mod figures;
mod fresh;
mod grid;
mod kept;
mod overview;
mod plan;
mod query;
pub mod segment;
mod snapshot;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use kiln_net::{Ages, Unread};
use lru::LruCache;
use thiserror::Error;
use tokio::sync::Notify;

pub use catalogue::{Catalogue, Dead, Fresh, SegmentMeta};
pub use days::{Day, days};
pub use figures::{Figures, LOOKED_AT, SuiteRun, Suites};
pub use grid::{Across, Cell, CellState, Column, Grid, GridQuery};
pub use overview::{Ranked, Tested};
pub use plan::{Policy, Task, plan};

use crate::attempts::{Attempt, distinct};
use crate::model::Time;
use crate::storage::{Damage, Expect, Records, Segments, StorageError, Write};
use digest::{Digest, SharedNames};
use kept::KeptFresh;
use segment::{Footer, Glance, Invocation};

/// Attempts and cases in one fresh segment; larger commits make several.
const MAX_FRESH_WEIGHT: u64 = 100_000;

/// Footers that are kept in memory.
const CACHED_FOOTERS: usize = 1024;
/// Attempts and cases in fresh segments that are kept in memory, at an estimated 800 bytes each: more than becomes one segment at a time
/// ([`Policy::settle_weight`]), so that there is room for what comes meanwhile.
const CACHED_FRESH: u64 = 300_000;
/// Bytes of digests of fresh segments that are kept in memory: a million attempts at an estimated 120 bytes each, and
/// names, which may be of any length.
const CACHED_DIGESTS: u64 = 192 << 20;
/// Blocks of attempts seen from afar that are kept in memory, and lists of invocations.
const CACHED_GLANCES: usize = 512;
const CACHED_INVOCATIONS: usize = 64;
/// A list with more invocations is read anew each time.
const CACHED_LIST: usize = 10_000;

#[derive(Debug, Error)]
pub enum HistoryError {
    #[error("the history of tests cannot be read or written")]
    Storage(#[from] StorageError),
    #[error("segment {segment} of the history is damaged")]
    Damaged {
        segment: String,
        #[source]
        source: Damage,
    },
    #[error("attempts cannot be written")]
    Unwritable(#[source] Damage),
    #[error("the history changed again and again while it was read")]
    Restless,
}

type Cached<K, V> = Mutex<LruCache<K, Arc<V>>>;
/// Whoever wants to hear of every attempt that is committed, once.
pub trait Tap: Send + Sync + 'static {
    /// What is written in the step in which these are committed.
    fn writes(&self, now: Time, attempts: &[Attempt]) -> Vec<Write>;

    /// Is told that the attempts have been committed.
    fn committed(&self);
}

/// The history of all tests of all instances. Any number of processes may use one at the same time.
pub struct History {
    segments: Arc<dyn Segments>,
    records: Arc<dyn Records>,
    unread: Unread,
    /// Segments that were seen and that nothing names.
    unnamed: Ages,
    policy: Policy,
    footers: Cached<String, Footer>,
    fresh: Mutex<KeptFresh<Vec<Attempt>>>,
    digests: Mutex<KeptFresh<Digest>>,
    names: Mutex<SharedNames>,
    /// Glances at the attempts of segments, by the segment's name and its first attempt.
    glances: Cached<(String, u64), Vec<Glance>>,
    invocations: Cached<String, Vec<Invocation>>,
    tap: Option<Arc<dyn Tap>>,
    /// Fresh segments that were made here since so many were that they should be joined.
    made: AtomicUsize,
    /// How many attempts and cases are in the segments that `made` counts.
    made_weight: AtomicU64,
    crowded: Notify,
}

impl History {
    pub fn new(segments: Arc<dyn Segments>, records: Arc<dyn Records>, policy: Policy) -> Self {
        let cache = |count| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
        Self {
            segments,
            records,
            unread: Unread::default(),
            unnamed: Ages::default(),
            policy,
            footers: Mutex::new(LruCache::new(cache(CACHED_FOOTERS))),
            fresh: Mutex::new(KeptFresh::new(CACHED_FRESH)),
            digests: Mutex::new(KeptFresh::new(CACHED_DIGESTS)),
            names: Mutex::default(),
            glances: Mutex::new(LruCache::new(cache(CACHED_GLANCES))),
            invocations: Mutex::new(LruCache::new(cache(CACHED_INVOCATIONS))),
            tap: None,
            made: AtomicUsize::new(0),
            made_weight: AtomicU64::new(0),
            crowded: Notify::new(),
        }
    }

    /// This history, with a tap that hears of what is committed through it.
    pub fn tapped(self, tap: Option<Arc<dyn Tap>>) -> Self {
        Self { tap, ..self }
    }

    /// Keeps attempts. They are durable when this returns, and found from then on; what is known already
    /// counts once.
    pub async fn commit(&self, now: Time, attempts: &[Attempt]) -> Result<(), HistoryError> {
        let (mut writes, mut put, mut weight) = (Vec::new(), Vec::new(), 0);
        for batch in batches(attempts) {
            let written = segment::write_fresh(distinct(batch).iter().map(|it| &**it));
            let written = written.map_err(HistoryError::Unwritable)?;
            let name = self.segments.put(written.bytes.clone()).await?;
            let fresh = Fresh { meta: SegmentMeta::of(name, &written), committed: now };
            weight += fresh.meta.weight();
            writes.push(Write {
                key: fresh.key(),
                expect: Expect::Absent,
                value: Some(catalogue::encode(&fresh)),
            });
            put.push((fresh.meta, written.bytes));
        }
        if writes.is_empty() {
            return Ok(());
        }
        let made = writes.len();
        if let Some(tap) = &self.tap {
            writes.extend(tap.writes(now, attempts));
        }
        self.records.write(writes).await?;
        if let Some(tap) = &self.tap {
            tap.committed();
        }
        for (meta, bytes) in &put {
            // Whoever looks first need not read them. What cannot be kept is read then, and the reason is said.
            self.keep_digest(meta, bytes).ok();
        }
        self.count_fresh(made, weight);
        Ok(())
    }

    fn count_fresh(&self, segments: usize, weight: u64) {
        let made = self.made.fetch_add(segments, Ordering::Relaxed) + segments;
        let made_weight = self.made_weight.fetch_add(weight, Ordering::Relaxed) + weight;
        if made >= self.policy.settle_count || made_weight >= self.policy.settle_weight {
            self.made.store(0, Ordering::Relaxed);
            self.made_weight.store(0, Ordering::Relaxed);
            self.crowded.notify_one();
        }
    }

    /// Waits until so much was committed here that [`Self::maintain`] has something to do: whoever asks for tests reads all
    /// that is fresh.
    pub async fn crowded(&self) {
        self.crowded.notified().await;
    }

    async fn whole(&self, name: &str) -> Result<Bytes, HistoryError> {
        Ok(self.segments.read(name, 0..u64::MAX).await?)
    }
}

/// What a test attempt weighs where work is bounded.
fn weight(it: &Attempt) -> u64 {
    1 + it.cases.len() as u64
}

fn batches(attempts: &[Attempt]) -> Vec<&[Attempt]> {
    let (mut batches, mut left) = (Vec::new(), attempts);
    while !left.is_empty() {
        let mut sum = 0;
        let fits = |it: &&Attempt| {
            sum += weight(it);
            sum <= MAX_FRESH_WEIGHT
        };
        let count = left.iter().take_while(fits).count().max(1);
        let (batch, behind) = left.split_at(count);
        batches.push(batch);
        left = behind;
    }
    batches
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::attempts::Known;
    use crate::attempts::samples::executed;
    use crate::model::Outcome;
    use crate::storage::memory::Memory;

    #[tokio::test]
    async fn it_is_told_when_so_much_is_fresh_that_it_should_be_joined() {
        let policy = Policy { settle_count: 3, ..Policy::default() };
        let (segments, records) = (Arc::new(Memory::default()), Arc::new(Memory::default()));
        let history = History::new(segments, records, policy);
        let commit = async |number: u64| {
            let attempt = executed("//a:t", number, number, Outcome::Passed);
            history.commit(Time(number), &[attempt]).await.unwrap();
        };
        commit(1).await;
        commit(2).await;
        assert!(history.crowded().now_or_never().is_none());
        commit(3).await;
        assert!(history.crowded().now_or_never().is_some());
        assert!(history.maintain(Time(3)).await.unwrap(), "there is something to do");
        commit(4).await;
        assert!(history.crowded().now_or_never().is_none());
    }

    /// As many attempts at a hundred tests.
    fn many(count: u64) -> Vec<Attempt> {
        let of = |number: u64| {
            executed(&format!("//a:t{}", number % 100), number, number, Outcome::Passed)
        };
        (1..=count).map(of).collect()
    }

    #[tokio::test]
    async fn parts_of_no_attempt_are_read_up_to_a_bound() {
        let (segments, records) = (Arc::new(Memory::default()), Arc::new(Memory::default()));
        let history = History::new(segments, records, Policy::default());
        let part = |number: u64| {
            let it = executed("//a:t", number, number, Outcome::Passed);
            Attempt { invocation: number.to_string(), known: it.known | Known::PART, ..it }
        };
        let parts: Vec<Attempt> = (1..=5000).map(part).collect();
        history.commit(Time(1), &parts).await.unwrap();
        assert!(history.maintain(Time(3_600_000)).await.unwrap(), "there is something to do");
        // Of one attempt and of the 65 that are read beside it there are 64 parts each at most.
        let read = history.newest_with_parts(&parts[0].test, 1).await.unwrap();
        assert_eq!((read.len(), read[0].execution), (66 * 64, 5000));
    }

    #[tokio::test]
    async fn no_older_block_is_read_where_the_newest_one_has_all_that_is_wanted() {
        // A block has 2,048 runs, and beside one attempt 65 are read: those of the newest block, or all but one.
        let mut calls = Vec::new();
        for runs in [2048 + 66, 2048 + 67] {
            let segments = Memory::default();
            let (shared, records) = (Arc::new(segments.clone()), Arc::new(Memory::default()));
            let history = History::new(shared, records, Policy::default());
            let run = |number: u64| {
                let it = executed("//a:t", number, number, Outcome::Passed);
                Attempt { invocation: number.to_string(), ..it }
            };
            let all: Vec<Attempt> = (1..=runs).map(run).collect();
            history.commit(Time(1), &all).await.unwrap();
            assert!(history.maintain(Time(3_600_000)).await.unwrap(), "there is something to do");
            let before = segments.calls();
            let found = history.newest(&all[0].test, 1, false).await.unwrap();
            assert_eq!((found.len(), found[0].execution), (1, runs));
            calls.push(segments.calls() - before);
        }
        assert_eq!(calls[0], calls[1]);
    }

    #[tokio::test]
    async fn a_few_large_commits_are_joined_as_many_small_ones_are() {
        let policy = Policy { settle_weight: 100, ..Policy::default() };
        let (segments, records) = (Arc::new(Memory::default()), Arc::new(Memory::default()));
        let history = History::new(segments, records, policy);
        history.commit(Time(1), &many(60)).await.unwrap();
        assert!(history.crowded().now_or_never().is_none());
        assert!(!history.maintain(Time(1)).await.unwrap());
        history.commit(Time(1), &many(120)[60..]).await.unwrap();
        assert!(history.crowded().now_or_never().is_some());
        assert!(history.maintain(Time(1)).await.unwrap(), "there is something to do");
        assert!(!history.maintain(Time(1)).await.unwrap());
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_read_hides_no_other_segment_and_its_own_is_not_swept() {
        let (segments, records) = (Memory::default(), Memory::default());
        let parts = (Arc::new(segments.clone()), Arc::new(records.clone()));
        let history = History::new(parts.0, parts.1, Policy::default());
        let attempts = many(2);
        for one in &attempts {
            history.commit(Time(1), std::slice::from_ref(one)).await.unwrap();
        }
        let kept = Records::list(&records, catalogue::FRESH, None, false, 10).await.unwrap();
        let (key, value) = (kept[0].key.clone(), Some("no segment".into()));
        let damaged = Write { key, expect: Expect::Anything, value };
        Records::write(&records, vec![damaged]).await.unwrap();
        let found =
            async |at: usize| history.newest(&attempts[at].test, 3, false).await.unwrap().len();
        assert_eq!((found(0).await, found(1).await), (0, 1));
        for hours in 0..3 {
            let now = std::time::Duration::from_secs(hours * 3_600);
            assert_eq!(history.sweep(now).await.unwrap(), 0);
        }
        assert_eq!(segments.blobs(), 2);
        // Where the records themselves cannot be had, nothing is known.
        records.fail_after(0, false);
        let nothing = history.newest(&attempts[1].test, 3, false).await;
        assert!(matches!(nothing, Err(HistoryError::Storage(_))));
    }

    #[tokio::test]
    async fn what_nothing_names_goes_once_it_was_seen_for_an_hour() {
        let (segments, records) = (Memory::default(), Memory::default());
        let parts = (Arc::new(segments.clone()), Arc::new(records));
        let history = History::new(parts.0, parts.1, Policy::default());
        history.commit(Time(1), &many(2)).await.unwrap();
        // By the clock of the store it is old already.
        segments.put(Bytes::from_static(b"left")).await.unwrap();
        for (minutes, swept) in [(5_000, 0), (5_059, 0), (5_060, 1), (5_061, 0)] {
            let now = std::time::Duration::from_secs(minutes * 60);
            assert_eq!(history.sweep(now).await.unwrap(), swept, "{minutes}");
        }
        assert_eq!(segments.blobs(), 1);
    }

    #[tokio::test]
    async fn what_others_joined_leaves_the_memory_though_nobody_looks() {
        let (segments, records) = (Memory::default(), Memory::default());
        let open = || {
            History::new(Arc::new(segments.clone()), Arc::new(records.clone()), Policy::default())
        };
        let (here, elsewhere) = (open(), open());
        here.commit(Time(1), &many(3)).await.unwrap();
        assert!(!here.digests.lock().unwrap().is_empty());
        assert!(elsewhere.maintain(Time(3_600_000)).await.unwrap());
        assert!(!here.maintain(Time(3_600_000)).await.unwrap(), "there is nothing left to do");
        assert!(here.digests.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_large_fresh_segment_is_read_once_however_often_it_is_looked_at() {
        let (segments, records) = (Memory::default(), Memory::default());
        let parts = (Arc::new(segments.clone()), Arc::new(records));
        let history = History::new(parts.0, parts.1, Policy::default());
        let attempts = many(5000);
        history.commit(Time(1), &attempts).await.unwrap();
        let written = segments.calls();
        let tested = history.tested(0..=9).await.unwrap();
        assert_eq!(tested.len(), 100);
        assert_eq!(segments.calls(), written, "who wrote a segment knows what is in it");
        let test = attempts[0].test.clone();
        let query = GridQuery { across: Across::Invocations, columns: 10, ..GridQuery::default() };
        let first = history.grid(&query, std::slice::from_ref(&test)).await.unwrap();
        assert!(first.rows[0].1.iter().any(Option::is_some), "there is something to see");
        assert_eq!(history.newest(&test, 3, false).await.unwrap().len(), 3);
        let read = segments.calls();
        assert_eq!(history.grid(&query, std::slice::from_ref(&test)).await.unwrap(), first);
        assert_eq!(history.newest(&test, 3, false).await.unwrap().len(), 3);
        assert_eq!(history.tested(0..=9).await.unwrap(), tested);
        assert_eq!(segments.calls(), read, "nothing has changed");
        // What is joined leaves the memory, and is found all the same.
        assert!(history.maintain(Time(3_600_000)).await.unwrap());
        let joined = history.grid(&query, std::slice::from_ref(&test)).await.unwrap();
        assert_eq!(joined.rows, first.rows);
        assert!(history.fresh.lock().unwrap().is_empty());
        assert!(history.digests.lock().unwrap().is_empty());
        assert!(history.names.lock().unwrap().is_empty());
    }
}
