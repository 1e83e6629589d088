//! A worker and a scripted scheduler.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use kiln_executor::runner::{Runner, Runners};
use kiln_executor::sandbox::{CommandSpec, Finished, OutputStream};
use kiln_executor::session::SessionEnd;
use kiln_executor::{Failure, Worker};
use kiln_protos::worker::worker_failure::Kind as FailureKind;
use kiln_protos::worker::{Drain, Stage, Welcome, scheduler_message, worker_message};
use kiln_protos::{protobuf, reapi};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::common::{
    self, FUNCTION, directory, executable, file, get, memory_store, put, put_action,
    put_action_with, put_message, put_tree, shell,
};
use crate::scheduler::{Scheduler, config, lease};

#[tokio::test]
async fn an_action_goes_through_all_stages_and_leaves_its_outputs_in_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let root = put_tree(
        &store,
        &directory([
            ("in", directory([("data", file("content"))])),
            ("tool", executable("#!/bin/sh\ncat in/data\necho warned >&2\n")),
        ]),
    )
    .await;
    let script = "./tool > deep/out && echo said && mkdir -p tree/sub && echo x > tree/sub/f";
    let action = put_action(&store, &shell(script, &["deep/out", "missing", "tree"]), root).await;
    let mut scheduler = Scheduler::start(config(dir.path(), 1), store.clone()).await;
    assert_eq!(scheduler.hello.worker_id, "worker-1");
    assert_eq!(scheduler.hello.slots, 1);
    scheduler.lease("l", action).await;
    for expected in [Stage::FetchingInputs, Stage::Running, Stage::UploadingOutputs] {
        match scheduler.next().await {
            worker_message::Kind::Progress(progress) => {
                assert_eq!((progress.lease_id.as_str(), progress.stage()), ("l", expected));
                assert!(progress.at > 0);
            }
            other => panic!("{other:?} instead of {expected:?}"),
        }
    }
    let (id, response) = scheduler.completed().await;
    let response = response.unwrap();
    assert_eq!((id.as_str(), response.status.unwrap().code), ("l", 0));
    let result = response.result.unwrap();
    assert_eq!(result.exit_code, 0);
    assert_eq!(result.stdout_raw, b"said\n");
    assert_eq!(get(&store, result.stderr_digest.as_ref().unwrap()).await, "warned\n");
    assert_eq!(result.output_files.len(), 1);
    assert_eq!(result.output_files[0].path, "deep/out");
    assert!(!result.output_files[0].is_executable);
    assert_eq!(get(&store, result.output_files[0].digest.as_ref().unwrap()).await, "content");
    assert_eq!(result.output_directories[0].path, "tree");
    let metadata = result.execution_metadata.unwrap();
    assert_eq!(metadata.worker, "worker-1");
    assert_eq!(metadata.queued_timestamp.unwrap().seconds, 1);
    assert!(metadata.execution_completed_timestamp.is_some());
}

#[tokio::test]
async fn everything_that_is_missing_is_reported_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let absent = FUNCTION.digest(b"absent file");
    let directory = FUNCTION.digest(b"absent directory");
    let root = reapi::Directory {
        files: vec![reapi::FileNode {
            name: "f".into(),
            digest: Some(absent.to_wire()),
            ..Default::default()
        }],
        directories: vec![reapi::DirectoryNode {
            name: "d".into(),
            digest: Some(directory.to_wire()),
        }],
        ..Default::default()
    };
    let command = FUNCTION.digest(b"absent command");
    let action = reapi::Action {
        command_digest: Some(command.to_wire()),
        input_root_digest: Some(put_message(&store, &root).await.to_wire()),
        ..Default::default()
    };
    let action = put_message(&store, &action).await;
    let mut scheduler = Scheduler::start(config(dir.path(), 1), store).await;
    let failure = scheduler.execute(action).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::MissingInputs);
    let mut missing: Vec<_> = failure.missing.into_iter().map(|digest| digest.hash).collect();
    missing.sort();
    let mut expected = [absent, directory, command].map(|digest| digest.hex());
    expected.sort();
    assert_eq!(missing, expected);
    let failure = scheduler.execute(FUNCTION.digest(b"no action")).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::MissingInputs);
}

#[tokio::test]
async fn malformed_actions_are_invalid_and_say_where() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let empty = FUNCTION.digest(b"");
    let unsorted = reapi::Directory {
        symlinks: ["b", "a"]
            .map(|name| reapi::SymlinkNode {
                name: name.into(),
                target: "x".into(),
                ..Default::default()
            })
            .to_vec(),
        ..Default::default()
    };
    let unsorted = put_message(&store, &unsorted).await;
    let actions = [
        (put(&store, "noise\u{1}").await, "not an Action"),
        (
            put_message(&store, &reapi::Action { do_not_cache: true, ..Default::default() }).await,
            "Action.command_digest",
        ),
        (put_action(&store, &reapi::Command::default(), empty).await, "command.arguments"),
        (put_action(&store, &shell("true", &["../out"]), empty).await, "command.output_paths[0]"),
        (put_action(&store, &shell("true", &[]), unsorted).await, "symlinks[1].name"),
    ];
    let mut scheduler = Scheduler::start(config(dir.path(), 1), store).await;
    for (action, said) in actions {
        let failure = scheduler.execute(action).await.unwrap_err();
        assert_eq!(failure.kind(), FailureKind::InvalidAction, "{}", failure.message);
        assert!(failure.message.contains(said), "{:?} lacks {said:?}", failure.message);
    }
}

#[tokio::test]
async fn a_timeout_is_a_result_with_what_was_printed() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let timeout = Some(protobuf::Duration { seconds: 0, nanos: 300_000_000 });
    let rest = reapi::Action { timeout, ..Default::default() };
    let command = shell("echo begun; echo half > out; exec sleep 60", &["out"]);
    let action = put_action_with(&store, &command, FUNCTION.digest(b""), rest).await;
    let mut scheduler = Scheduler::start(config(dir.path(), 1), store).await;
    let response = scheduler.execute(action).await.unwrap();
    let status = response.status.unwrap();
    assert_eq!(status.code, 4);
    assert!(status.message.contains("300ms"), "{}", status.message);
    let result = response.result.unwrap();
    assert_ne!(result.exit_code, 0);
    assert_eq!(result.stdout_raw, b"begun\n");
    assert_eq!(result.output_files.len(), 1);
}

#[tokio::test]
async fn a_cancelled_lease_is_reported_and_its_slot_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let empty = FUNCTION.digest(b"");
    let long = put_action(&store, &shell("echo up; exec sleep 60", &[]), empty).await;
    let short = put_action(&store, &shell("exit 3", &[]), empty).await;
    let mut scheduler = Scheduler::start(config(dir.path(), 1), store).await;
    let streamed = kiln_protos::worker::Lease { stream_output: true, ..lease("long", long) };
    scheduler.send(scheduler_message::Kind::Lease(streamed)).await;
    loop {
        if let worker_message::Kind::Output(output) = scheduler.next().await {
            assert_eq!((output.offset, &output.data[..]), (0, b"up\n".as_slice()));
            break;
        }
    }
    scheduler.lease("refused", short).await;
    let (id, refused) = scheduler.completed().await;
    assert_eq!(id, "refused");
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), FailureKind::Refused);
    assert_eq!(refused.held_lease_ids, ["long"]);
    scheduler.cancel("long").await;
    let (id, cancelled) = scheduler.completed().await;
    assert_eq!(id, "long");
    assert_eq!(cancelled.unwrap_err().kind(), FailureKind::Cancelled);
    assert_eq!(scheduler.execute(short).await.unwrap().result.unwrap().exit_code, 3);
}

#[tokio::test]
async fn faults_in_a_row_pause_the_worker_until_a_trial_goes_well() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let empty = FUNCTION.digest(b"");
    let panics = reapi::Command { arguments: vec!["panic!".into()], ..Default::default() };
    let panics = put_action(&store, &panics, empty).await;
    let fine = put_action(&store, &shell("exit 4", &[]), empty).await;
    let mut scheduler = Scheduler::start(config(dir.path(), 1), store).await;
    for _ in 0..3 {
        assert_eq!(
            scheduler.execute(panics).await.unwrap_err().kind(),
            FailureKind::Infrastructure
        );
    }
    let paused = |message| match message {
        worker_message::Kind::Paused(paused) => Some(paused.reason),
        _ => None,
    };
    let reason = loop {
        if let Some(reason) = paused(scheduler.next().await) {
            break reason;
        }
    };
    assert!(reason.contains("a runner that panics"), "{reason}");
    // The worker tries the runner by itself, and then says that it takes leases again.
    loop {
        if let Some(reason) = paused(scheduler.next().await) {
            assert_eq!(reason, "");
            break;
        }
    }
    assert_eq!(scheduler.execute(fine).await.unwrap().result.unwrap().exit_code, 4);
}

#[tokio::test]
async fn a_panic_costs_one_lease_and_not_the_worker() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let empty = FUNCTION.digest(b"");
    let panics = reapi::Command { arguments: vec!["panic!".into()], ..Default::default() };
    let panics = put_action(&store, &panics, empty).await;
    let fine = put_action(&store, &shell("kill -9 $$", &[]), empty).await;
    let mut scheduler = Scheduler::start(config(dir.path(), 1), store).await;
    let failure = scheduler.execute(panics).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Infrastructure);
    assert!(failure.message.contains("a runner that panics"), "{}", failure.message);
    assert_eq!(scheduler.execute(fine).await.unwrap().result.unwrap().exit_code, 137);
}

#[tokio::test]
async fn heartbeats_name_the_leases_that_run() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let long = put_action(&store, &shell("exec sleep 60", &[]), FUNCTION.digest(b"")).await;
    let mut scheduler = Scheduler::start(config(dir.path(), 2), store).await;
    let welcome = Welcome { heartbeat_interval_ms: 50 };
    scheduler.send(scheduler_message::Kind::Welcome(welcome)).await;
    scheduler.lease("a", long).await;
    let mut seen = Vec::new();
    while seen.last() != Some(&vec!["a".to_owned()]) {
        if let worker_message::Kind::Heartbeat(heartbeat) = scheduler.next().await {
            seen.push(heartbeat.lease_ids);
        }
    }
}

#[tokio::test]
async fn a_drained_worker_finishes_what_it_runs_and_takes_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let empty = FUNCTION.digest(b"");
    let action = put_action(&store, &shell("sleep 0.3; exit 5", &[]), empty).await;
    let mut scheduler = Scheduler::start(config(dir.path(), 2), store).await;
    scheduler.lease("first", action).await;
    scheduler.send(scheduler_message::Kind::Drain(Drain {})).await;
    while !matches!(scheduler.next().await, worker_message::Kind::Draining(_)) {}
    scheduler.lease("late", action).await;
    let (id, late) = scheduler.completed().await;
    assert_eq!(id, "late");
    let late = late.unwrap_err();
    assert_eq!(late.kind(), FailureKind::Draining);
    assert!(late.message.contains("takes nothing more"), "{}", late.message);
    let (id, first) = scheduler.completed().await;
    assert_eq!((id.as_str(), first.unwrap().result.unwrap().exit_code), ("first", 5));
    let (_, end) = scheduler.session.await.unwrap();
    assert_eq!(end, SessionEnd::Drained);
    assert!(scheduler.from_worker.recv().await.is_none());
}

#[tokio::test]
async fn what_still_runs_when_the_drain_time_is_over_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let long = put_action(&store, &shell("exec sleep 60", &[]), FUNCTION.digest(b"")).await;
    let config = kiln_executor::WorkerConfig {
        drain_timeout: Duration::from_millis(200),
        ..config(dir.path(), 1)
    };
    let mut scheduler = Scheduler::start(config, store).await;
    scheduler.lease("long", long).await;
    while !matches!(scheduler.next().await, worker_message::Kind::Progress(_)) {}
    scheduler.shutdown.cancel();
    let (_, given_back) = scheduler.completed().await;
    assert_eq!(given_back.unwrap_err().kind(), FailureKind::Draining);
    assert_eq!(scheduler.session.await.unwrap().1, SessionEnd::Drained);
}

#[tokio::test]
async fn a_work_directory_has_one_worker() {
    let dir = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start(config(dir.path(), 1), memory_store()).await;
    let runners = Arc::new(common::PlainRunners { directory: dir.path().into() });
    let second =
        kiln_executor::Worker::with_runners(config(dir.path(), 1), memory_store(), runners).await;
    let error = second.err().expect("the directory is in use").to_string();
    assert!(error.contains("in use by another worker"), "{error}");
    drop(scheduler);
}

#[tokio::test]
async fn large_output_streams_reach_the_store_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let script = "head -c 3000000 /dev/zero; head -c 2000000 /dev/zero > out";
    let action = put_action(&store, &shell(script, &["out"]), FUNCTION.digest(b"")).await;
    let mut scheduler = Scheduler::start(config(dir.path(), 1), store.clone()).await;
    let result = scheduler.execute(action).await.unwrap().result.unwrap();
    assert!(result.stdout_raw.is_empty());
    assert_eq!(get(&store, result.stdout_digest.as_ref().unwrap()).await, vec![0; 3_000_000]);
    assert_eq!(
        get(&store, result.output_files[0].digest.as_ref().unwrap()).await,
        vec![0; 2_000_000]
    );
}

/// A slot that still removes what an earlier action left, and notes when it has done so.
struct Untidy {
    plain: common::PlainRunners,
    tidied: Arc<Mutex<Option<SystemTime>>>,
}

struct UntidyRunner {
    plain: Box<dyn Runner>,
    tidied: Arc<Mutex<Option<SystemTime>>>,
}

#[async_trait]
impl Runners for Untidy {
    async fn start(&self, slot: u32) -> Result<Box<dyn Runner>, Failure> {
        let plain = self.plain.start(slot).await?;
        Ok(Box::new(UntidyRunner { plain, tidied: self.tidied.clone() }))
    }

    fn not_enforced(&self) -> Vec<String> {
        self.plain.not_enforced()
    }
}

#[async_trait]
impl Runner for UntidyRunner {
    async fn ready(&mut self, _cancel: &CancellationToken) -> Result<(), Failure> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        *self.tidied.lock().unwrap() = Some(SystemTime::now());
        Ok(())
    }

    async fn run(
        &mut self,
        spec: &CommandSpec,
        output: mpsc::Sender<(OutputStream, Bytes)>,
        cancel: CancellationToken,
    ) -> Result<Finished, Failure> {
        self.plain.run(spec, output, cancel).await
    }

    async fn stop(self: Box<Self>) {
        self.plain.stop().await;
    }
}

#[tokio::test]
async fn what_an_earlier_action_left_is_removed_before_an_action_begins() {
    let dir = tempfile::tempdir().unwrap();
    let (store, tidied) = (memory_store(), Arc::<Mutex<Option<SystemTime>>>::default());
    let plain = common::PlainRunners { directory: dir.path().join("plain") };
    let runners = Arc::new(Untidy { plain, tidied: tidied.clone() });
    let action = put_action(&store, &shell("true", &[]), FUNCTION.digest(b"")).await;
    let worker = Worker::with_runners(config(dir.path(), 1), store, runners).await.unwrap();
    let mut scheduler = Scheduler::resume(worker).await;
    let result = scheduler.execute(action).await.unwrap().result.unwrap();
    let began = result.execution_metadata.unwrap().execution_start_timestamp.unwrap();
    let began = Duration::new(began.seconds as u64, began.nanos as u32);
    let tidied = tidied.lock().unwrap().expect("it was waited for");
    assert!(SystemTime::UNIX_EPOCH + began >= tidied);
}
