//! What the journal keeps, and what it counts.

mod reading;
mod retention;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use kiln_cas::records::{Record, Records, Version, Write};
use kiln_cas::stores::MemoryRecords;
use kiln_cas::{Digest, DigestFunction};
use kiln_protos::events::execution::Origin;
use kiln_protos::events::{self, Begun, Execution, Timeline};

use super::*;

pub(super) fn digest(text: &str) -> Digest {
    DigestFunction::Sha256.digest(text.as_bytes())
}

pub(super) fn execution(id: &str, target: &str, invocation: &str, action: &str) -> Execution {
    let action = digest(action);
    Execution {
        id: id.into(),
        origin: Origin::Executed.into(),
        digest_function: 1,
        action: Some(events::Digest { hash: action.hex(), size_bytes: action.size as i64 }),
        invocation_id: invocation.into(),
        target_id: target.into(),
        mnemonic: "CppCompile".into(),
        timeline: Some(Timeline {
            received: 1_000,
            queued: 1_000,
            leased: 2_000,
            run_start: 3_000,
            run_end: 5_003_000,
            finished: 5_004_000,
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(super) fn begun(invocation: &str) -> Begun {
    let at = unix_nanos();
    Begun {
        invocation_id: invocation.into(),
        tool_name: "bazel".into(),
        at,
        last_at: at,
        requests: 1,
        ..Default::default()
    }
}

pub(super) fn hit(id: &str, target: &str, invocation: &str) -> Execution {
    Execution { origin: Origin::CacheHit.into(), ..execution(id, target, invocation, target) }
}

async fn start(records: &SharedRecords, config: JournalConfig) -> (Journal, Events) {
    let events = Events::new();
    let journal =
        Journal::start(records.clone(), &events, config).await.expect("the records can be read");
    (journal, events)
}

fn memory_records() -> SharedRecords {
    Arc::new(MemoryRecords::default())
}

pub(super) async fn ids(journal: &Journal, query: &Query) -> Vec<String> {
    let entries = journal.executions(query, Page::first(MAX_PAGE)).await.expect("readable");
    entries.iter().map(|entry| entry.execution.id.clone()).collect()
}

pub(super) async fn keys_of(records: &SharedRecords, prefix: &str) -> Vec<String> {
    let list = records.list(prefix, None, false, 100_000).await.expect("readable");
    list.into_iter().map(|record| record.key).collect()
}

#[tokio::test]
async fn a_build_of_many_hits_costs_few_records_and_keeps_exact_counts() {
    let records = Arc::new(Counting::default());
    let shared: SharedRecords = records.clone();
    let config = JournalConfig { max_stored_hits_per_build: 50, ..JournalConfig::default() };
    let (journal, events) = start(&shared, config).await;
    for i in 0..50_000 {
        events.publish(hit(&format!("hit-{i}"), &format!("//t:{}", i % 5_000), "big"));
        if i % 1_000 == 0 {
            journal.flush().await;
        }
    }
    journal.flush().await;
    let build = journal.build("big").await.expect("readable").expect("it is there");
    assert_eq!((build.counts.hits, build.targets, build.stored_hits), (50_000, 5_000, 50));
    assert_eq!(build.counts.hit_rate(), Some(1.0));
    assert_eq!(keys_of(&shared, "journal/x/").await.len(), 50);
    assert_eq!(journal.stats().counts.hits, 50_000);
    // One batch or two for each of the 51 flushes above, not one for each hit.
    let batches = records.batches.load(Ordering::Relaxed);
    assert!(batches <= 110, "{batches} batches");
}

#[tokio::test]
async fn a_restart_forgets_nothing_and_a_build_goes_on_counting() {
    let records = memory_records();
    let (journal, events) = start(&records, JournalConfig::default()).await;
    events.publish(execution("op-1", "//a", "b", "x"));
    journal.shutdown().await;
    let (journal, events) = start(&records, JournalConfig::default()).await;
    assert_eq!(journal.expected_ms("//a", "CppCompile"), Some(5));
    assert_eq!(journal.expected_ms("//never", "CppCompile"), Some(5));
    assert!(journal.has_run("//a", "CppCompile") && !journal.has_run("//never", "CppCompile"));
    assert_eq!(journal.recent_runs().len(), 1);
    events.publish(execution("op-2", "//a", "b", "x"));
    journal.flush().await;
    assert_eq!(ids(&journal, &Query::Recent).await, ["op-2", "op-1"]);
    let build = journal.build("b").await.expect("readable").expect("it is there");
    assert_eq!((build.counts.executed, build.counts.run_ns), (2, 10_000_000));
    assert_eq!(journal.builds(Page::first(10)).await.expect("readable").len(), 1);
    let stats = journal.stats();
    assert_eq!((stats.executions, stats.builds), (2, 1));
}

#[tokio::test]
async fn a_build_is_known_from_its_first_request_and_what_a_restart_ends_is_lost() {
    let records = memory_records();
    let (journal, events) = start(&records, JournalConfig::default()).await;
    let open = async |journal: &Journal| {
        let builds = journal.builds(Page::first(10)).await.expect("readable");
        assert_eq!(builds.len(), 1);
        let build = journal.build("b").await.expect("readable").expect("it is there");
        assert_eq!(build.tool_name, "bazel");
        journal.lost_and_open(&build)
    };
    for _ in 0..5 {
        events.begin(begun("b"));
    }
    events.publish(execution("op-1", "//a", "b", "x"));
    let cancelled = Execution {
        cancelled: true,
        status_code: 1,
        timeline: Some(Timeline { received: 1_000, finished: 9_000_000, ..Default::default() }),
        ..execution("op-2", "//b", "b", "y")
    };
    events.publish(cancelled);
    journal.flush().await;
    assert_eq!(open(&journal).await, (0, 3));
    let build = journal.build("b").await.expect("readable").expect("it is there");
    assert_eq!((build.counts.executed, build.counts.cancelled, build.counts.failed), (1, 1, 0));
    assert!(build.is_cancelled);
    journal.shutdown().await;

    // The queue was in the process that has ended.
    let (journal, events) = start(&records, JournalConfig::default()).await;
    assert_eq!(open(&journal).await, (3, 0));
    // The build tool tries again; that it does so does not undo what was lost.
    events.begin(begun("b"));
    journal.flush().await;
    assert_eq!(open(&journal).await, (3, 1));
    events.publish(execution("op-3", "//a", "b", "x"));
    journal.flush().await;
    assert_eq!(open(&journal).await, (3, 0));
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_written_is_kept_and_written_later() {
    let records = Arc::new(Counting::default());
    let shared: SharedRecords = records.clone();
    let (journal, events) = start(&shared, JournalConfig::default()).await;
    records.fails.store(true, Ordering::Relaxed);
    events.publish(execution("op-1", "//a", "b", "x"));
    journal.flush().await;
    assert_eq!((journal.stats().pending, journal.stats().failed_writes), (1, 1));
    assert_eq!(ids(&journal, &Query::Recent).await, ["op-1"]);
    records.fails.store(false, Ordering::Relaxed);
    // The clock is paused: the time of the next try comes at once.
    while journal.stats().pending > 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for prefix in ["journal/x/", "journal/build/", "journal/duration/"] {
        assert_eq!(keys_of(&shared, prefix).await.len(), 1, "{prefix}");
    }
}

#[tokio::test]
async fn an_execution_its_build_and_what_it_teaches_are_written_in_one_step() {
    let records = Arc::new(Counting::default());
    let shared: SharedRecords = records.clone();
    let (journal, events) = start(&shared, JournalConfig::default()).await;
    events.publish(execution("op-1", "//a", "b", "x"));
    journal.flush().await;
    assert_eq!(records.batches.load(Ordering::Relaxed), 1);
    for prefix in ["journal/x/", "journal/build/", "journal/duration/"] {
        assert_eq!(keys_of(&shared, prefix).await.len(), 1, "{prefix}");
    }
}

#[tokio::test]
async fn ids_that_repeat_and_strings_from_hell_are_kept_apart() {
    let records = memory_records();
    let (journal, events) = start(&records, JournalConfig::default()).await;
    let nasty = "//a/../b\0%2f\n<script>".repeat(100);
    events.publish(execution("same", &nasty, "b/c", "x"));
    events.publish(execution("same", "", "b", "x"));
    events.publish(execution("", "//a", "", "x"));
    journal.flush().await;
    assert_eq!(ids(&journal, &Query::Recent).await, ["", "same", "same"]);
    assert_eq!(ids(&journal, &Query::Invocation("b".into())).await, ["same"]);
    assert!(journal.build("b/c").await.expect("readable").is_some());
}

/// Records in memory that count batches and fail when told to.
#[derive(Default)]
struct Counting {
    inner: MemoryRecords,
    batches: AtomicUsize,
    fails: AtomicBool,
}

#[async_trait]
impl Records for Counting {
    async fn get(&self, key: &str) -> Result<Option<Record>, RecordsError> {
        self.inner.get(key).await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Version>, RecordsError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(RecordsError::Unavailable("told to fail".into()));
        }
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.inner.write(writes).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Record>, RecordsError> {
        self.inner.list(prefix, after, reverse, limit).await
    }
}
