//! A server's memory after a morning of builds, for tests and for looking at the pages.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use kiln_cas::access::Everybody;
use kiln_cas::events::Events;
use kiln_cas::logs::LogStreams;
use kiln_cas::stores::{Clock, MemoryActionCache, MemoryBlobStore, MemoryRecords, StorageSnapshot};
use kiln_cas::{ActionKey, Digest, DigestFunction, SharedActionCache, SharedBlobStore};
use kiln_protos::events::execution::Origin;
use kiln_protos::events::{self, Execution, Timeline};
use kiln_protos::reapi;
use kiln_scheduler::api::Unavailable;
use kiln_scheduler::hermeticity::Checker;
use kiln_scheduler::journal::{Journal, JournalConfig};
use kiln_scheduler::queue::Counters;
use kiln_scheduler::snapshot::{OperationView, PropertySetView, WorkerView};
use kiln_scheduler::{NoEstimates, Parts, Scheduler, SchedulerConfig, Snapshot};
use prost::Message;

use crate::web::format::now;
use crate::web::{QueueView, WebState};

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
    let scheduler = Scheduler::start(
        SchedulerConfig::default(),
        Parts {
            blobs: blobs.clone(),
            actions: actions.clone(),
            logs: logs.clone(),
            events: events.clone(),
            estimator: Arc::new(NoEstimates),
            access: Arc::new(Everybody { write_results: false }),
            invocations: Default::default(),
            quotas: Default::default(),
        },
    );
    let records = Arc::new(MemoryRecords::default());
    let hermeticity = Checker::new(&scheduler, journal.clone(), records);
    let storage = StorageSnapshot {
        blobs: 182_344,
        used_bytes: 14_900_000_000,
        max_bytes: 50 << 30,
        ..StorageSnapshot::default()
    };
    let state = WebState {
        blobs,
        actions,
        logs,
        journal,
        hermeticity,
        queue: Arc::new(FixedQueue(snapshot)),
        storage: Arc::new(move || storage),
        shared: None,
        base_url: "http://build.example.com:8980".into(),
        version: "0.1.0",
        started: SystemTime::now() - Duration::from_secs(11_640),
    };
    (state, events)
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
    Sample { state, failed, failed_operation, last_build }
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

async fn put(state: &WebState, data: Vec<u8>) -> Digest {
    let digest = FUNCTION.digest(&data);
    state.blobs.write(&digest, Bytes::from(data)).await.expect("the store has room");
    digest
}

async fn file(state: &WebState, name: &str, text: &str) -> reapi::FileNode {
    let digest = put(state, text.as_bytes().to_vec()).await;
    reapi::FileNode {
        name: name.to_owned(),
        digest: Some(digest.to_wire()),
        is_executable: name.ends_with(".sh"),
        node_properties: None,
    }
}

async fn input_root(state: &WebState, source: &str) -> Digest {
    let directory = reapi::Directory {
        files: vec![
            file(state, "log.cc", source).await,
            file(state, "log.h", "#pragma once\nvoid append(const char*);\n").await,
            file(state, "log_test.cc", "#include \"log.h\"\nint main() { append(0); }\n").await,
        ],
        ..Default::default()
    };
    let storage = put(state, directory.encode_to_vec()).await;
    let root = reapi::Directory {
        files: vec![file(state, "WORKSPACE", "workspace(name = \"example\")\n").await],
        directories: vec![reapi::DirectoryNode {
            name: "storage".into(),
            digest: Some(storage.to_wire()),
        }],
        symlinks: vec![reapi::SymlinkNode {
            name: "external".into(),
            target: "../external".into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    put(state, root.encode_to_vec()).await
}

/// Two runs of one target with different inputs, the second of which failed.
async fn failed_action(
    state: &WebState,
    events: &Events,
    earlier: &str,
    invocation: &str,
) -> (Digest, String) {
    let (_, first) = action(state, "int append_count = 0;\n", "-O2").await;
    let (result, second) = action(state, "int append_count = 1;\n", "-O1").await;
    let finished = now() - 14 * SECOND;
    let runs = [(&first, 0, finished - 600 * SECOND, earlier), (&second, 1, finished, invocation)];
    for (number, (digests, exit_code, at, invocation)) in runs.into_iter().enumerate() {
        let wire =
            |digest: &Digest| events::Digest { hash: digest.hex(), size_bytes: digest.size as i64 };
        events.publish(Execution {
            id: format!("operations/failed-{number}"),
            origin: Origin::Executed.into(),
            digest_function: 1,
            action: Some(wire(&digests[0])),
            command: Some(wire(&digests[1])),
            input_root: Some(wire(&digests[2])),
            invocation_id: invocation.to_owned(),
            target_id: "//storage/log:log_test".into(),
            mnemonic: "TestRunner".into(),
            configuration_id: "k8-fastbuild".into(),
            tool_name: "bazel".into(),
            tool_version: "8.4.2".into(),
            worker: "kiln-worker-2".into(),
            attempts: 1,
            exit_code,
            expected_ms: 2_900,
            timeline: Some(Timeline {
                received: at - 4_213 * MS,
                queued: at - 4_212 * MS,
                leased: at - 3_600 * MS,
                input_fetch_start: at - 3_599 * MS,
                input_fetch_end: at - 3_410 * MS,
                run_start: at - 3_400 * MS,
                run_end: at - 160 * MS,
                upload_start: at - 159 * MS,
                upload_end: at - 20 * MS,
                finished: at,
            }),
            action_result: result.encode_to_vec().into(),
            ..Execution::default()
        });
    }
    let key = ActionKey { instance: "".into(), action: first[0] };
    state.actions.put(&key, result.encode_to_vec().into()).await.expect("the cache has room");
    (second[0], "operations/failed-1".to_owned())
}

async fn action(state: &WebState, source: &str, level: &str) -> (reapi::ActionResult, [Digest; 3]) {
    let variable = |name: &str, value: &str| reapi::command::EnvironmentVariable {
        name: name.into(),
        value: value.into(),
    };
    let command = reapi::Command {
        arguments: [
            "external/bazel_tools/tools/test/test-setup.sh",
            "storage/log/log_test",
            level,
            "-fdiagnostics-color",
            "--gtest_filter=Log.*:-Log.Slow*",
            "--name=it's <b>quoted</b>",
        ]
        .map(Into::into)
        .to_vec(),
        environment_variables: vec![
            variable("PATH", "/bin:/usr/bin"),
            variable("TEST_TIMEOUT", "300"),
            variable("TZ", "UTC"),
        ],
        output_paths: vec!["test.log".into(), "test.outputs".into(), "test.xml".into()],
        ..Default::default()
    };
    let command = put(state, command.encode_to_vec()).await;
    let root = input_root(state, source).await;
    let action = reapi::Action {
        command_digest: Some(command.to_wire()),
        input_root_digest: Some(root.to_wire()),
        platform: Some(reapi::Platform {
            properties: vec![reapi::platform::Property {
                name: "OSFamily".into(),
                value: "linux".into(),
            }],
        }),
        ..Default::default()
    };
    let action = put(state, action.encode_to_vec()).await;
    (result(state).await, [action, command, root])
}

async fn result(state: &WebState) -> reapi::ActionResult {
    let log = "[==========] Running 3 tests from 1 test suite.\n[ RUN      ] Log.AppendsInOrder\n\
        storage/log/log_test.cc:42: Failure\nExpected equality of these values:\n  reader.next()\n    \
        Which is: <script>alert(1)</script>\n  \"second\"\n\u{1b}[0;31m[  FAILED  ]\u{1b}[m Log.AppendsInOrder (812 ms)\n";
    let log = put(state, log.as_bytes().to_vec()).await;
    let tree = reapi::Tree {
        root: Some(reapi::Directory {
            files: vec![file(state, "core.txt", "nothing\n").await],
            ..Default::default()
        }),
        children: Vec::new(),
    };
    let tree = put(state, tree.encode_to_vec()).await;
    reapi::ActionResult {
        output_files: vec![reapi::OutputFile {
            path: "test.log".into(),
            digest: Some(log.to_wire()),
            ..Default::default()
        }],
        output_directories: vec![reapi::OutputDirectory {
            path: "test.outputs".into(),
            tree_digest: Some(tree.to_wire()),
            ..Default::default()
        }],
        exit_code: 1,
        stdout_digest: Some(log.to_wire()),
        stderr_raw: b"external/bazel_tools/tools/test/test-setup.sh: exit 1\n".as_slice().into(),
        ..Default::default()
    }
}

fn busy() -> Snapshot {
    let worker = |number: u32, occupied: u32| WorkerView {
        id: format!("kiln-worker-{number}"),
        host_name: format!("builder-{number}.example.com"),
        version: "0.1.0".into(),
        slots: 4,
        occupied,
        draining: false,
        paused: (number == 3).then(|| "the disk is full: /var/kiln has 3 MiB left".into()),
        last_seen_ms: 320 * u64::from(number),
        properties: vec![("OSFamily".into(), "linux".into()), ("Arch".into(), "x86_64".into())],
        not_enforced: Vec::new(),
    };
    let operation = |i: u64, target: &str, worker: &str| OperationView {
        name: format!("operations/live-{i}"),
        instance: String::new(),
        action: FUNCTION.digest(&i.to_le_bytes()).to_string(),
        target: target.into(),
        mnemonic: "CppCompile".into(),
        invocation: "5f3c1e1a-7a7e-4c0e-a8fd-0b1a6a0d94b2".into(),
        for_ms: 400 + i * 730,
        expected_ms: (i != 2).then_some(2_100),
        worker: worker.into(),
        attempt: 1,
        waiters: 1,
        properties: vec![("OSFamily".into(), "linux".into())],
        streams: [format!("logstreams/live-{i}/stdout"), format!("logstreams/live-{i}/stderr")],
    };
    let set = |name: &str, queued, running, served| PropertySetView {
        properties: vec![("OSFamily".into(), name.into())],
        queued,
        running,
        slots_wanted: queued + running,
        served,
    };
    Snapshot {
        workers: vec![worker(1, 4), worker(2, 3)],
        queue_depth: 3,
        running_count: 7,
        slots: 8,
        oldest_queued_ms: Some(1_860),
        queued: (7..10).map(|i| operation(i, "//net/quic:quic_impl", "")).collect(),
        running: (0..7)
            .map(|i| {
                operation(
                    i,
                    "//storage/index:index",
                    if i < 4 { "kiln-worker-1" } else { "kiln-worker-2" },
                )
            })
            .collect(),
        property_sets: vec![set("linux", 2, 7, true), set("macos", 1, 0, false)],
        draining: false,
        counters: Counters { merged: 41, ..Counters::default() },
        cache_hits: 0,
        completed: Default::default(),
    }
}
