//! A server's memory after a morning of builds, for tests and for looking at the pages.

mod actions;
pub mod flakes;
mod merge_queue;
pub mod pipeline;
mod promotion;
mod queue;
mod rollout;
pub mod suite;
mod tests;
pub mod told;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use kiln_cas::access::Everybody;
use kiln_cas::events::Events;
use kiln_cas::logs::LogStreams;
use kiln_cas::pins::Pins;
use kiln_cas::records::SharedRecords;
use kiln_cas::stores::{Clock, MemoryActionCache, MemoryBlobStore, MemoryRecords, StorageSnapshot};
use kiln_cas::{ActionKey, Digest, DigestFunction, SharedActionCache, SharedBlobStore};
use kiln_ci::storage::memory::Memory;
use kiln_deploy::catalog::{Catalog, CatalogParts};
use kiln_deploy::retention::{Collector, Rules};
use kiln_protos::events::execution::Origin;
use kiln_protos::events::{self, Execution, Timeline};
use kiln_protos::reapi;
use kiln_scheduler::api::Unavailable;
use kiln_scheduler::hermeticity::Checker;
use kiln_scheduler::journal::{Journal, JournalConfig};
use kiln_scheduler::queue::Counters;
use kiln_scheduler::snapshot::{OperationView, PropertySetView, WorkerView};
use kiln_scheduler::{Parts, Scheduler, SchedulerConfig, Snapshot};
use prost::Message;

use self::actions::failed_action;
use self::queue::busy;
use crate::format::now;
use crate::{QueueView, WebState};

const MS: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MS;
const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

pub struct Sample {
    pub state: WebState,
    /// An action that failed, with everything about it in the store.
    pub failed: Digest,
    pub failed_operation: String,
    pub last_build: String,
    /// The id of an earlier build, in which the same target ran with other inputs.
    pub earlier_build: String,
}

struct FixedQueue(Snapshot);

#[async_trait]
impl QueueView for FixedQueue {
    async fn snapshot(&self) -> Result<Snapshot, Unavailable> {
        Ok(self.0.clone())
    }
}

pub async fn empty() -> WebState {
    state(Snapshot {
        workers: Vec::new(),
        queue_depth: 0,
        running_count: 0,
        slots: 0,
        oldest_queued_ms: None,
        queued: Vec::new(),
        running: Vec::new(),
        property_sets: Vec::new(),
        draining: false,
        counters: Counters::default(),
        cache_hits: 0,
        completed: Default::default(),
    })
    .await
    .0
}

async fn state(snapshot: Snapshot) -> (WebState, Events) {
    let blobs: SharedBlobStore =
        Arc::new(MemoryBlobStore::new(1 << 30, Duration::from_secs(3600), Clock::system()));
    let actions: SharedActionCache = Arc::new(MemoryActionCache::default());
    let logs = LogStreams::default();
    let events = Events::new();
    let journal =
        Journal::start(Arc::new(MemoryRecords::default()), &events, JournalConfig::default()).await;
    let journal = journal.expect("records in memory can be read");
    let records = Arc::new(MemoryRecords::default());
    let releases = releases(&blobs);
    let promotion = Some(promotion::keeper().await);
    let scheduler = Scheduler::start(
        SchedulerConfig::default(),
        Parts {
            blobs: blobs.clone(),
            actions: actions.clone(),
            logs: logs.clone(),
            events: events.clone(),
            access: Arc::new(Everybody { write_results: false }),
            records: records.clone(),
            ..Parts::in_memory()
        },
    );
    let hermeticity = Checker::new(&scheduler, journal.clone(), records);
    let storage = StorageSnapshot {
        blobs: 182_344,
        used_bytes: 14_900_000_000,
        max_bytes: 50 << 30,
        ..StorageSnapshot::default()
    };
    let collector = Collector {
        catalog: releases.clone(),
        records: Arc::new(MemoryRecords::default()),
        rules: Rules::default(),
    };
    let state = WebState {
        pieces: kiln_deploy::swarm::pieces::Cutting::new(blobs.clone()),
        blobs,
        actions,
        logs,
        journal,
        hermeticity,
        tests: tests::services(&events),
        kept: Default::default(),
        verdicts: tests::verdicts(),
        plans: kiln_ci::plans::Plans::new(Arc::new(Memory::default())),
        merge_queues: merge_queue::queues().await,
        releases,
        collector,
        checkpoints: promotion::checkpoints(),
        promotion,
        rollouts: rollout::control().await,
        pipelines: pipeline::control().await,
        previews: pipeline::previews().await,
        executions: None,
        fleet: kiln_deploy::fleet::Fleet::new(Arc::new(MemoryRecords::default()), Arc::new(|| 0)),
        access: Arc::new(kiln_cas::access::Everybody { write_results: true }),
        audit: Arc::new(kiln_cas::stores::audit::AuditLog::new(Arc::new(
            kiln_cas::stores::MemoryRecords::default(),
        ))),
        queue: Arc::new(FixedQueue(snapshot)),
        storage: Arc::new(move || storage),
        shared: None,
        base_url: "http://build.example.com:8980".into(),
        reloads: Default::default(),
        version: "0.1.0",
        started: SystemTime::now() - Duration::from_secs(11_640),
    };
    (state, events)
}

fn releases(blobs: &SharedBlobStore) -> Catalog {
    let records: SharedRecords = Arc::new(MemoryRecords::default());
    Catalog::new(CatalogParts {
        pins: Pins::new(blobs.clone(), records.clone()),
        records,
        blobs: blobs.clone(),
        clock: Arc::new(now),
        key: None,
        builder: "http://build.example.com:8980".to_owned(),
        version: "0.1.0".to_owned(),
    })
}

const PACKAGES: [&str; 12] = [
    "//server/http",
    "//server/auth",
    "//storage/log",
    "//storage/index",
    "//net/quic",
    "//client/ui",
    "//client/sync",
    "//tools/codegen",
    "//third_party/zlib",
    "//base/strings",
    "//base/time",
    "//proto/api",
];
const MNEMONICS: [(&str, &str, i64); 6] = [
    ("CppCompile", "", 1_900),
    ("CppCompile", "_impl", 2_600),
    ("CppArchive", "", 120),
    ("CppLink", "_bin", 900),
    ("TestRunner", "_test", 3_800),
    ("Genrule", "_gen", 300),
];

pub async fn full() -> Sample {
    let (state, events) = state(busy()).await;
    let mut dice = Dice(7);
    let (mut last_build, mut earlier) = (String::new(), String::new());
    let begin = now() - 34 * 26 * SECOND;
    for build in 0..34_i64 {
        let invocation = invocation(&mut dice);
        let start = begin + build * 26 * SECOND;
        one_build(&events, &mut dice, &invocation, start, build);
        state.journal.flush().await;
        if build == 11 {
            earlier.clone_from(&invocation);
        }
        last_build = invocation;
    }
    let (failed, failed_operation) = failed_action(&state, &events, &earlier, &last_build).await;
    state.journal.flush().await;
    Sample { state, failed, failed_operation, last_build, earlier_build: earlier }
}

fn invocation(dice: &mut Dice) -> String {
    let mut part =
        |length: usize| (0..length).map(|_| format!("{:x}", dice.roll(16))).collect::<String>();
    format!("{}-{}-4{}-a{}-{}", part(8), part(4), part(3), part(3), part(12))
}

fn digest_of(text: &str) -> events::Digest {
    let digest = FUNCTION.digest(text.as_bytes());
    events::Digest { hash: digest.hex(), size_bytes: 142 + (digest.hash[0] % 40) as i64 }
}

/// Hits in the greater part, the misses packed onto two workers of four slots.
fn one_build(events: &Events, dice: &mut Dice, invocation: &str, start: i64, number: i64) {
    let actions = 50 + dice.roll(210);
    let misses = if number % 9 == 0 { 46 } else { 6 + dice.roll(26) };
    let mut free = [start; 8];
    for action in 0..actions {
        let package = PACKAGES[dice.roll(12) as usize];
        let (mnemonic, suffix, typical) = MNEMONICS[dice.roll(6) as usize];
        let name = package.rsplit('/').next().unwrap_or(package);
        let mut run = Execution {
            id: format!("{invocation}-{action}"),
            digest_function: 1,
            action: Some(digest_of(&format!("{invocation}{action}"))),
            invocation_id: invocation.to_owned(),
            target_id: format!("{package}:{name}{suffix}"),
            mnemonic: mnemonic.to_owned(),
            tool_name: "bazel".to_owned(),
            tool_version: "8.4.2".to_owned(),
            attempts: 1,
            ..Execution::default()
        };
        let received = start + action as i64 * 12 * MS;
        if action >= misses {
            run.origin = Origin::CacheHit.into();
            run.timeline = Some(Timeline { received, finished: received, ..Default::default() });
            events.publish(run);
            continue;
        }
        let slot = (0..8).min_by_key(|slot| free[*slot]).unwrap_or(0);
        let leased = free[slot].max(received + 2 * MS);
        let duration = typical * MS / 2 + dice.roll(typical as u64 * 2) as i64 * MS;
        let fetched = leased + (3 + dice.roll(60) as i64) * MS;
        let ran = fetched + duration;
        let finished = ran + (2 + dice.roll(40) as i64) * MS;
        free[slot] = finished;
        run.origin = Origin::Executed.into();
        run.worker = format!("kiln-worker-{}", slot / 4 + 1);
        run.exit_code = i32::from(mnemonic == "TestRunner" && dice.roll(9) == 0);
        if dice.roll(30) == 0 {
            run.origin = Origin::Merged.into();
        }
        run.timeline = Some(Timeline {
            received,
            queued: received + MS,
            leased,
            input_fetch_start: leased + MS,
            input_fetch_end: fetched,
            run_start: fetched,
            run_end: ran,
            upload_start: ran,
            upload_end: finished - MS,
            finished,
        });
        events.publish(run);
    }
}
