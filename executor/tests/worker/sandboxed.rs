//! The worker with the real sandbox.

use std::path::Path;
use std::time::{Duration, Instant};

use kiln_cas::SharedBlobStore;
use kiln_executor::{Worker, WorkerConfig};
use kiln_protos::reapi::{self, ExecuteResponse};
use kiln_protos::worker::Stage;
use kiln_protos::worker::worker_failure::Kind as FailureKind;
use kiln_protos::worker::worker_message::Kind;

use crate::common::{
    FUNCTION, Node, directory, executable, file, get, memory_store, put_action, put_action_with,
    put_tree, shell,
};
use crate::scheduler::{Scheduler, config};

async fn start_with(config: WorkerConfig, store: &SharedBlobStore) -> Scheduler {
    let zygote_command = vec![env!("CARGO_BIN_EXE_kiln-zygote").into()];
    let config = WorkerConfig { zygote_command, ..config };
    Scheduler::resume(Worker::start(config, store.clone()).await.unwrap()).await
}

async fn start(dir: &Path, store: &SharedBlobStore) -> Scheduler {
    start_with(config(dir, 1), store).await
}

async fn stop(scheduler: Scheduler) {
    scheduler.shutdown.cancel();
    let (worker, _) = scheduler.session.await.unwrap();
    worker.stop().await;
}

async fn run(
    scheduler: &mut Scheduler,
    store: &SharedBlobStore,
    script: &str,
    outputs: &[&str],
    inputs: Node,
) -> ExecuteResponse {
    let root = put_tree(store, &inputs).await;
    let action = put_action(store, &shell(script, outputs), root).await;
    scheduler.execute(action).await.unwrap()
}

fn code(response: &ExecuteResponse) -> (i32, i32) {
    let status = response.status.as_ref().unwrap();
    (status.code, response.result.as_ref().unwrap().exit_code)
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_are_readable_outputs_are_stored_and_nothing_of_the_machine_leaks() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let mut scheduler = start(dir.path(), &store).await;
    let inputs = directory([
        ("in", directory([("data", file("content")), ("link", Node::Symlink("data".into()))])),
        ("tool", executable("#!/bin/sh\ncat in/link\n")),
    ]);
    let script = "./tool > a/b/out; mkdir -p tree/x; echo 1 > tree/x/y; chmod 0 tree/x/y; env; pwd";
    let response = run(&mut scheduler, &store, script, &["a/b/out", "tree"], inputs.clone()).await;
    assert_eq!(code(&response), (0, 0));
    let result = response.result.unwrap();
    let out = result.output_files[0].digest.as_ref().unwrap();
    assert_eq!(get(&store, out).await, "content");
    assert_eq!(result.output_directories.len(), 1);
    let stdout = String::from_utf8(result.stdout_raw).unwrap();
    let mut lines: Vec<&str> = stdout.lines().collect();
    lines.retain(|line| {
        !line.starts_with("PWD=") && !line.starts_with("_=") && !line.starts_with("SHLVL=")
    });
    assert_eq!(lines.len(), 2, "PATH and the directory: {stdout}");
    assert!(lines.iter().any(|line| line.starts_with("PATH=/usr/local/sbin:")), "{stdout}");

    // The same again: nothing of the first run is left, and the inputs are as they were.
    let script = "echo changed > in/data; rm tool; cat in/data; ls > list";
    let response = run(&mut scheduler, &store, script, &["list"], inputs.clone()).await;
    assert_eq!(code(&response).0, 0);
    let response = run(&mut scheduler, &store, "ls; cat in/data", &[], inputs).await;
    assert_eq!(response.result.unwrap().stdout_raw, b"in\ntool\ncontent");
    stop(scheduler).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn misbehaving_outputs_harm_nobody_and_say_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let mut scheduler = start(dir.path(), &store).await;
    let none = directory([]);
    let response =
        run(&mut scheduler, &store, "ln -s /etc/passwd out", &["out"], none.clone()).await;
    let result = response.result.unwrap();
    assert_eq!(result.output_symlinks[0].target, "/etc/passwd");
    assert!(result.output_files.is_empty());

    let script = "echo said; mkfifo out";
    let response = run(&mut scheduler, &store, script, &["out"], none.clone()).await;
    assert_eq!(code(&response), (0, 1));
    assert!(response.message.contains("\"out\" is a named pipe"), "{}", response.message);
    assert_eq!(response.result.unwrap().stdout_raw, b"said\n");

    let script = "rmdir d/etc && ln -s /etc d/etc";
    let response = run(&mut scheduler, &store, script, &["d/etc/passwd"], none.clone()).await;
    assert_eq!(code(&response), (0, 1));
    assert!(response.message.contains("leads out of the input root"), "{}", response.message);

    let response = run(&mut scheduler, &store, "exit 4", &["gone"], none).await;
    assert_eq!(code(&response), (0, 4));
    stop(scheduler).await;
}

/// A slot is taken as long as anything reads what its action left, and no longer than anybody wants it.
#[tokio::test(flavor = "multi_thread")]
async fn what_takes_for_ever_to_hash_holds_its_slot_until_it_is_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let mut config = config(dir.path(), 1);
    config.outputs.hole_bytes = u64::MAX;
    let mut scheduler = start_with(config, &store).await;
    let root = put_tree(&store, &directory([])).await;
    let long = put_action(&store, &shell("truncate -s 8T out", &["out"]), root).await;
    let next = put_action(&store, &shell("echo well", &[]), root).await;
    scheduler.lease("long", long).await;
    loop {
        let Kind::Progress(progress) = scheduler.next().await else { continue };
        if progress.stage == Stage::UploadingOutputs as i32 {
            break;
        }
    }
    scheduler.lease("early", next).await;
    let (id, refused) = scheduler.completed().await;
    assert_eq!(id, "early");
    assert!(refused.unwrap_err().message.contains("no free slot"));
    scheduler.cancel("long").await;
    let (id, ended) = scheduler.completed().await;
    assert_eq!((id.as_str(), ended.unwrap_err().kind()), ("long", FailureKind::Cancelled));
    assert_eq!(code(&scheduler.execute(next).await.unwrap()), (0, 0));
    stop(scheduler).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_end_an_action_with_the_reason_and_what_it_printed() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let mut config = config(dir.path(), 1);
    config.limits.output_bytes = Some(1 << 20);
    let mut scheduler = start_with(config, &store).await;
    let none = directory([]);
    let response = run(&mut scheduler, &store, "echo begin; yes", &[], none).await;
    assert_eq!(code(&response), (0, 137));
    let reason =
        "the action met a limit of its worker: output: it printed more than 16777216 bytes";
    assert!(response.message.starts_with(reason), "{}", response.message);
    let result = response.result.unwrap();
    let stdout = get(&store, &result.stdout_digest.unwrap()).await;
    assert!(stdout.starts_with(b"begin\ny\n") && stdout.ends_with(b"y\n"));
    assert!(String::from_utf8_lossy(&stdout).contains("bytes are left out here"));
    assert!(stdout.len() < (1 << 20) + 200, "{}", stdout.len());
    let stderr = String::from_utf8(result.stderr_raw).unwrap();
    assert!(stderr.starts_with(&format!("kiln: {reason}")), "{stderr}");

    let timeout = Some(kiln_protos::protobuf::Duration { seconds: 0, nanos: 200_000_000 });
    let rest = reapi::Action { timeout, ..Default::default() };
    let stubborn = shell("trap '' TERM; echo here; while :; do sleep 1; done", &[]);
    let action = put_action_with(&store, &stubborn, FUNCTION.digest(b""), rest).await;
    let response = scheduler.execute(action).await.unwrap();
    assert_eq!(code(&response), (4, 124));
    assert_eq!(response.result.unwrap().stdout_raw, b"here\n");
    stop(scheduler).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_root_of_several_layers_is_one_tree_to_an_action() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let mut scheduler = start(dir.path(), &store).await;
    let many: std::collections::BTreeMap<String, Node> =
        (0..200).map(|n| (format!("f{n:03}"), file(&n.to_string()))).collect();
    let lib = |own: &str| {
        let many = Node::Directory(many.clone());
        directory([("lib", directory([("many", many), ("own", file(own))])), ("top", file("t"))])
    };
    for own in ["first", "second"] {
        let script = "ls lib/many | wc -l; cat lib/many/f042 lib/own top; ls lib; \
                      echo new > lib/many/out; rm lib/many/f000; ls lib/many | wc -l";
        let response = run(&mut scheduler, &store, script, &["lib/many"], lib(own)).await;
        assert_eq!(code(&response), (0, 0));
        let result = response.result.unwrap();
        let expected = format!("200\n42{own}tmany\nown\n200\n");
        assert_eq!(String::from_utf8(result.stdout_raw).unwrap(), expected);
        let tree = get(&store, result.output_directories[0].tree_digest.as_ref().unwrap()).await;
        let tree = <reapi::Tree as prost::Message>::decode(tree).unwrap();
        let names: Vec<_> = tree.root.unwrap().files.into_iter().map(|file| file.name).collect();
        assert_eq!((names.len(), names[0].as_str(), names[199].as_str()), (200, "f001", "out"));
    }
    stop(scheduler).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_root_has_no_shell() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let mut scheduler = start(dir.path(), &store).await;
    let properties =
        vec![reapi::platform::Property { name: "kiln-root".into(), value: "strict".into() }];
    let platform = Some(reapi::Platform { properties });
    let rest = reapi::Action { platform, ..Default::default() };
    let action = put_action_with(&store, &shell("true", &[]), FUNCTION.digest(b""), rest).await;
    let response = scheduler.execute(action).await.unwrap();
    assert_ne!(response.result.unwrap().exit_code, 0);
    stop(scheduler).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints how long actions take"]
async fn measure() {
    const RUNS: usize = 300;
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let mut scheduler = start(dir.path(), &store).await;
    let many = (0..200).map(|n| (format!("f{n}"), file(&format!("input {n}")))).collect();
    for (what, inputs) in [("no inputs", directory([])), ("200 files", Node::Directory(many))] {
        let root = put_tree(&store, &inputs).await;
        let mut took = Vec::new();
        let mut steps = Vec::new();
        for n in 0..RUNS {
            let command = shell(&format!("echo {n} > out"), &["out"]);
            let action = put_action(&store, &command, root).await;
            let start = Instant::now();
            let response = scheduler.execute(action).await.unwrap();
            took.push(start.elapsed());
            let metadata = response.result.unwrap().execution_metadata.unwrap();
            let at = |stamp: &Option<kiln_protos::protobuf::Timestamp>| {
                let stamp = stamp.as_ref().unwrap();
                Duration::new(stamp.seconds as u64, stamp.nanos as u32)
            };
            steps.push([
                at(&metadata.input_fetch_completed_timestamp)
                    - at(&metadata.input_fetch_start_timestamp),
                at(&metadata.execution_completed_timestamp)
                    - at(&metadata.execution_start_timestamp),
                at(&metadata.output_upload_completed_timestamp)
                    - at(&metadata.output_upload_start_timestamp),
            ]);
        }
        took.sort();
        let median = |step: usize| {
            let mut all: Vec<_> = steps.iter().map(|steps| steps[step]).collect();
            all.sort();
            all[RUNS / 2]
        };
        println!(
            "{what}: p50 {:?}, p95 {:?}; fetch {:?}, run {:?}, outputs {:?}",
            took[RUNS / 2],
            took[RUNS * 95 / 100],
            median(0),
            median(1),
            median(2)
        );
    }
    stop(scheduler).await;
}
