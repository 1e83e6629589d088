use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use kiln_cas::records::{Record, Records, Version, Write};
use kiln_cas::stores::MemoryRecords;
use kiln_cas::{Digest, DigestFunction};
use kiln_protos::events::execution::Origin;
use kiln_protos::events::{self, Begun, Execution, Timeline};
use kiln_protos::reapi;
use proptest::prelude::*;
use prost::Message;

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
async fn every_index_finds_an_execution_newest_first_before_and_after_it_is_written() {
    // A delay that never comes to its end: what is read comes from memory at first.
    let config =
        JournalConfig { batch_delay: Duration::from_secs(3600), ..JournalConfig::default() };
    let records = memory_records();
    let (journal, events) = start(&records, config).await;
    events.publish(execution("op/1", "//a", "build 1", "x"));
    events.publish(execution("op/2", "//a", "build 2", "x"));
    events.publish(Execution {
        mnemonic: "CppLink".into(),
        ..execution("op/3", "//a", "build 2", "y")
    });
    // The task takes events in when it is its turn.
    while journal.stats().pending < 3 {
        tokio::task::yield_now().await;
    }
    assert!(keys_of(&records, "journal/x/").await.is_empty());
    for _ in 0..2 {
        let target = |mnemonic: Option<&str>| Query::Target {
            target: "//a".into(),
            mnemonic: mnemonic.map(Into::into),
        };
        assert_eq!(ids(&journal, &Query::Recent).await, ["op/3", "op/2", "op/1"]);
        assert_eq!(ids(&journal, &Query::Action(digest("x"))).await, ["op/2", "op/1"]);
        assert_eq!(ids(&journal, &target(Some("CppCompile"))).await, ["op/2", "op/1"]);
        assert_eq!(ids(&journal, &target(None)).await, ["op/3", "op/2", "op/1"]);
        assert_eq!(ids(&journal, &Query::Invocation("build 2".into())).await, ["op/3", "op/2"]);
        assert_eq!(ids(&journal, &Query::Invocation("build".into())).await, [""; 0]);
        let found = journal.execution("op/2").await.expect("readable").expect("it is there");
        assert_eq!(found.execution.invocation_id, "build 2");
        journal.flush().await;
        assert_eq!(journal.stats().pending, 0);
    }
    assert_eq!(keys_of(&records, "journal/x/").await.len(), 3);
}

#[tokio::test]
async fn pages_go_on_where_the_last_one_ended() {
    let records = memory_records();
    let (journal, events) = start(&records, JournalConfig::default()).await;
    for i in 0..10 {
        events.publish(execution(&format!("op-{i}"), "//a", "b", "x"));
    }
    journal.flush().await;
    let mut seen = Vec::new();
    let mut page = Page::first(3);
    loop {
        let query = Query::Target { target: "//a".into(), mnemonic: None };
        let entries = journal.executions(&query, page).await.expect("readable");
        let Some(last) = entries.last() else { break };
        page.before = Some(last.seq);
        seen.extend(entries.into_iter().map(|entry| entry.execution.id.clone()));
    }
    let expected: Vec<_> = (0..10).rev().map(|i| format!("op-{i}")).collect();
    assert_eq!(seen, expected);
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

#[tokio::test]
async fn actions_and_builds_are_found_by_their_beginnings() {
    let records = memory_records();
    let (journal, events) = start(&records, JournalConfig::default()).await;
    events.publish(execution("op-1", "//a", "5f3c1e1a-7a7e", "x"));
    events.publish(execution("op-2", "//a", "5f3c1e1b-0000", "y"));
    events.publish(execution("op-3", "//a", "5f3c1e1b-0000", "x"));
    while ids(&journal, &Query::Recent).await.len() < 3 {
        tokio::task::yield_now().await;
    }
    for _ in 0..2 {
        let wanted = digest("x");
        let found = journal.actions_like(&wanted.hex()[..12], 5).await.expect("readable");
        assert_eq!(found, [wanted]);
        let mut builds = journal.builds_like("5f3c1e1", 5).await.expect("readable");
        builds.sort();
        assert_eq!(builds, ["5f3c1e1a-7a7e", "5f3c1e1b-0000"]);
        assert_eq!(journal.builds_like("5f3c1e1a", 5).await.expect("readable").len(), 1);
        assert!(journal.builds_like("5f3c/", 5).await.expect("readable").is_empty());
        // In memory at first, then in the records.
        journal.flush().await;
    }
}

#[tokio::test]
async fn the_last_run_of_a_target_is_another_action_of_the_same_configuration() {
    let records = memory_records();
    let (journal, events) = start(&records, JournalConfig::default()).await;
    let configured = |id: &str, action: &str, configuration: &str| Execution {
        configuration_id: configuration.into(),
        ..execution(id, "//a", "b", action)
    };
    events.publish(configured("opt", "1", "opt"));
    events.publish(configured("dbg", "2", "dbg"));
    events.publish(configured("same", "3", "opt"));
    journal.flush().await;
    let action = digest("3");
    let earlier = Earlier {
        target: "//a",
        mnemonic: "CppCompile",
        configuration: Some("opt"),
        not_action: Some(&action),
        before: None,
        outputs: None,
    };
    let id = async |earlier| {
        let found = journal.last_run_before(earlier).await.expect("readable");
        found.map(|entry| entry.execution.id.clone())
    };
    assert_eq!(id(earlier).await.as_deref(), Some("opt"));
    assert_eq!(id(Earlier { configuration: None, ..earlier }).await.as_deref(), Some("dbg"));
    assert_eq!(id(Earlier { mnemonic: "Other", ..earlier }).await, None);
}

#[tokio::test]
async fn the_last_run_is_of_an_action_that_makes_the_same() {
    let records = memory_records();
    let (journal, events) = start(&records, JournalConfig::default()).await;
    let making = |id: &str, path: &str| {
        let file = |path: &str| reapi::OutputFile { path: path.into(), ..Default::default() };
        let output_files = vec![file(path), file(&format!("{id}.log"))];
        let result = reapi::ActionResult { output_files, ..Default::default() };
        Execution { action_result: result.encode_to_vec().into(), ..execution(id, "//a", "b", id) }
    };
    events.publish(making("one", "one.o"));
    events.publish(making("two", "two.o"));
    journal.flush().await;
    let id = async |path: &str| {
        let earlier = Earlier {
            target: "//a",
            mnemonic: "CppCompile",
            configuration: None,
            not_action: None,
            before: None,
            outputs: Some(&BTreeSet::from([path.to_owned()])),
        };
        let found = journal.last_run_before(earlier).await.expect("readable");
        found.map(|entry| entry.execution.id.clone())
    };
    assert_eq!(id("one.o").await.as_deref(), Some("one"));
    assert_eq!(id("two.o").await.as_deref(), Some("two"));
    assert_eq!(id("three.o").await, None);
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
    assert_eq!(keys_of(&shared, "journal/x/").await.len(), 1);
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Retention, order and counts against a list as the model.
    #[test]
    fn the_newest_stay_with_all_their_keys(
        steps in prop::collection::vec((0..4_u8, 0..5_u8, any::<bool>()), 1..120),
        max_executions in 1..40_u64,
        max_builds in 1..4_u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let records = memory_records();
            let config = JournalConfig { max_executions, max_builds, ..JournalConfig::default() };
            let (mut journal, mut events) = start(&records, config.clone()).await;
            let mut model = Vec::new();
            for (i, (target, build, restart)) in steps.iter().enumerate() {
                let id = format!("op-{i}");
                let (target, build) = (format!("//t{target}"), format!("b{build}"));
                events.publish(execution(&id, &target, &build, &target));
                model.push((id, target));
                if *restart {
                    journal.shutdown().await;
                    (journal, events) = start(&records, config.clone()).await;
                }
            }
            journal.flush().await;
            model.reverse();
            model.truncate(max_executions as usize);
            let expected: Vec<_> = model.iter().map(|(id, _)| id.clone()).collect();
            assert_eq!(ids(&journal, &Query::Recent).await, expected);
            let query = Query::Target { target: "//t0".into(), mnemonic: None };
            let of_target: Vec<_> = model
                .iter()
                .filter(|(_, target)| target == "//t0")
                .map(|(id, _)| id.clone())
                .collect();
            assert_eq!(ids(&journal, &query).await, of_target);
            let stats = journal.stats();
            assert_eq!(stats.executions, model.len() as u64);
            assert!(stats.builds <= max_builds);
            for prefix in ["x/", "id/", "action/", "target/", "invocation/"] {
                let keys = keys_of(&records, &format!("journal/{prefix}")).await;
                assert_eq!(keys.len(), model.len(), "{prefix}: {keys:?}");
            }
            for prefix in ["build/", "builds/"] {
                let keys = keys_of(&records, &format!("journal/{prefix}")).await;
                assert_eq!(keys.len() as u64, stats.builds, "{prefix}: {keys:?}");
            }
        });
    }
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
