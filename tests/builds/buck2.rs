//! Requests as Buck2 sends them, replayed against the whole server. They are derived from the source of Buck2's
//! open-source client, because Buck2 itself cannot be had everywhere the tests run.

// Buck2 sets the platform on the Command, which the protocol has deprecated, and nowhere else.
#![allow(deprecated, clippy::panic, clippy::unwrap_used)]

pub mod action;
mod channel;
pub mod client;
pub mod line;
use crate::support;

use std::time::Duration;

use self::action::{Action, Inputs, Node, OutputPaths, platform};
use self::client::{Buck2, Outcome, Settings, digest};
use self::line::long_line;
use kiln_protos::{protobuf, reapi};
use prost::Message;
use support::server::Server;
use tonic::Code;

const OUT: &str = "buck-out/v2/gen/root/0123456789abcdef/__rule__";
const SCRATCH: &str = "buck-out/v2/tmp/root/0123456789abcdef/__rule__/run";

struct House {
    server: Server,
    _data: tempfile::TempDir,
}

impl House {
    fn new(arguments: &[&str]) -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let arguments = [&["--workers", "2"], arguments].concat();
        Self { server: Server::start(data.path(), &arguments), _data: data }
    }

    async fn buck2(&self, settings: Settings) -> Buck2 {
        Buck2::connect(&format!("grpc://{}", self.server.address), settings).await
    }

    async fn usual(&self) -> Buck2 {
        self.buck2(Settings { instance_name: Some("example-buck2"), ..Default::default() }).await
    }
}

/// Makes an action that reads a file, runs an input, follows links and uses the scratch directory. It leaves a file,
/// a program, a directory and a symlink.
fn example(kind: OutputPaths) -> Action {
    let script = r#"
        cat src/input.txt src/link > "$1/file"
        tools/run.sh "$1/program"
        echo scratch > "$BUCK_SCRATCH_PATH/note"
        mkdir -p "$1/tree/a/b"
        cp "$BUCK_SCRATCH_PATH/note" "$1/tree/a/b/deep"
        ln -s a/b/deep "$1/tree/link"
        ln -s file "$1/symlink"
        echo out
        echo err >&2
    "#;
    let tool = "#!/bin/sh\nprintf '#!/bin/sh\\n' > \"$1\"\nchmod +x \"$1\"\n";
    let inputs = Inputs::default()
        .with("src/input.txt", Node::file("input\n"))
        .with("src/empty", Node::file(""))
        .with("src/link", Node::Symlink("input.txt".into()))
        .with("src/outside", Node::Symlink("/usr/bin/env".into()))
        .with("tools/run.sh", Node::program(tool))
        .with("lib/some/directory/file", Node::file("deep\n"))
        .with(SCRATCH, Node::empty_directory());
    let outputs =
        ["file", "never-made", "program", "symlink", "tree"].map(|o| format!("{OUT}/{o}"));
    let outputs = outputs.each_ref().map(String::as_str);
    let arguments = ["/bin/sh", "-eu", "-c", script, "sh", OUT];
    Action::new(&arguments, &[("BUCK_SCRATCH_PATH", SCRATCH)], &inputs, (kind, &outputs), None)
}

async fn is_the_example(buck2: &Buck2, outcome: &Outcome) {
    assert_eq!(outcome.exit_code, 0, "{}", buck2.text(&outcome.stderr).await);
    let files: Vec<_> = outcome.files.iter().map(|(path, (_, run))| (path.clone(), *run)).collect();
    assert_eq!(files, [(format!("{OUT}/file"), false), (format!("{OUT}/program"), true)]);
    let file = &outcome.files[&format!("{OUT}/file")].0;
    assert_eq!(buck2.download(file).await, b"input\ninput\n");
    assert_eq!(outcome.symlinks, [(format!("{OUT}/symlink"), "file".to_owned())].into());
    let trees: Vec<_> = outcome.directories.iter().collect();
    let [(path, tree)] = trees[..] else { panic!("{trees:?}") };
    assert_eq!(*path, format!("{OUT}/tree"));
    let tree = buck2.directory(tree).await;
    let expected = [("a/b/deep", "scratch\n"), ("link", "-> a/b/deep")];
    assert_eq!(tree, expected.map(|(path, what)| (path.to_owned(), what.to_owned())).into());
    assert_eq!(buck2.text(&outcome.stdout).await, "out\n");
    assert_eq!(buck2.text(&outcome.stderr).await, "err\n");
    timestamps_tell_how_long_it_took(&outcome.metadata);
}

/// Buck2 computes the time of execution from these timestamps and reads a timestamp that is not set as 1970.
fn timestamps_tell_how_long_it_took(metadata: &reapi::ExecutedActionMetadata) {
    let steps = [
        metadata.queued_timestamp,
        metadata.worker_start_timestamp,
        metadata.input_fetch_start_timestamp,
        metadata.input_fetch_completed_timestamp,
        metadata.execution_start_timestamp,
        metadata.execution_completed_timestamp,
        metadata.output_upload_start_timestamp,
        metadata.output_upload_completed_timestamp,
        metadata.worker_completed_timestamp,
    ];
    let steps = steps.map(|step| step.map(|step| (step.seconds, step.nanos)).unwrap());
    assert!(steps.is_sorted(), "{steps:?}");
    assert!(steps[0].0 > 1_700_000_000 && !metadata.worker.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_runs_and_the_next_one_hits_the_cache() {
    let house = House::new(&[]);
    for settings in [
        Settings { instance_name: Some("example-buck2"), ..Default::default() },
        Settings { compressed_batches: true, ..Default::default() },
        Settings {
            instance_name: Some("without/capabilities"),
            without_capabilities: true,
            ..Default::default()
        },
    ] {
        let buck2 = house.buck2(settings).await;
        let example = example(OutputPaths::OutputPaths);
        assert!(buck2.cached(&example.digest).await.is_none());
        let ran = example.run(&buck2).await.unwrap();
        is_the_example(&buck2, &ran).await;
        assert_eq!(example.upload(&buck2).await.unwrap(), 0, "every input is there");
        // The next daemon of Buck2 looks the action up in the cache. One that skips the look-up executes, and the
        // server answers that from the cache as well.
        let next = house.buck2(settings).await;
        assert_eq!(next.cached(&example.digest).await.as_ref(), Some(&ran));
        assert_eq!(next.execute(&example.digest).await.unwrap(), ran);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_are_declared_as_file_and_as_directory_may_become_either() {
    let house = House::new(&[]);
    let buck2 = house.usual().await;
    let ran = example(OutputPaths::Compatibility).run(&buck2).await.unwrap();
    is_the_example(&buck2, &ran).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_blobs_travel_compressed_in_messages_of_the_advertised_size() {
    let house = House::new(&[]);
    let large = noise(9_000_000, 1);
    let inputs = Inputs::default().with("large", Node::file(large.clone()));
    let arguments = ["/bin/sh", "-eu", "-c", "cat large large > out"];
    let outputs = (OutputPaths::OutputPaths, &["out"][..]);
    let action = Action::new(&arguments, &[], &inputs, outputs, None);
    let settings = Settings { instance_name: Some("a/b"), ..Default::default() };
    for settings in [settings, Settings { without_capabilities: true, ..settings }] {
        let buck2 = house.buck2(settings).await;
        assert!(large.len() > 2 * buck2.max_total_batch_size);
        assert_eq!(buck2.zstd, !settings.without_capabilities);
        let outcome = action.run(&buck2).await.unwrap();
        let out = &outcome.files["out"].0;
        assert_eq!(out.size_bytes, 18_000_000);
        assert!(buck2.download(out).await == [large.clone(), large.clone()].concat());
        // Buck2 remembers that a blob was missing, and then sends it again with every action that reads it.
        buck2.write(&large).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_may_be_filled_with_tiny_blobs_up_to_the_advertised_size() {
    let house = House::new(&[]);
    let buck2 = house.usual().await;
    // Each digest is larger on the wire than the blob that it names, so the message is much larger than the sum of
    // the sizes.
    let blobs: Vec<Vec<u8>> =
        (0..30_000).map(|i| format!("blob {i} {}", "x".repeat(85)).into_bytes()).collect();
    let total: usize = blobs.iter().map(Vec::len).sum();
    assert!((2_800_000..buck2.max_total_batch_size).contains(&total), "{total}");
    buck2.upload(&blobs).await.unwrap();
    let digests: Vec<_> = blobs.iter().map(|blob| digest(blob)).collect();
    assert!(buck2.missing(&digests).await.is_empty());
}

/// Buck2 remembers for 12 hours that a blob was missing, and sends it anew with every action that reads it. The
/// server answers before it has read the whole upload, so the rest arrives for a stream that no longer exists, and
/// the connection has to survive that.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_outlives_uploads_of_blobs_that_are_there() {
    const ROUNDS: usize = 60;
    const AT_A_TIME: usize = 50;
    let house = House::new(&[]);
    let settings = Settings { max_total_batch_size: Some(64 << 10), ..Default::default() };
    let line = long_line(house.server.address.clone(), Duration::from_millis(10)).await;
    let buck2 = Buck2::connect(&line, settings).await;
    let blob = noise(1 << 20, 2);
    buck2.write(&blob).await.unwrap();
    for _ in 0..ROUNDS {
        let uploads = (0..AT_A_TIME).map(|_| buck2.write(&blob));
        for upload in futures_util::future::join_all(uploads).await {
            upload.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_action_is_a_result_with_its_outputs_and_is_not_cached() {
    let house = House::new(&[]);
    let buck2 = house.usual().await;
    let script = "echo said; echo why >&2; echo part > log; exit 3";
    let action = Action::shell(script, &["log", "out"], None);
    let outcome = action.run(&buck2).await.unwrap();
    assert_eq!(outcome.exit_code, 3);
    assert_eq!(buck2.text(&outcome.stdout).await, "said\n");
    assert_eq!(buck2.text(&outcome.stderr).await, "why\n");
    assert_eq!(buck2.download(&outcome.files["log"].0).await, b"part\n");
    assert!(buck2.cached(&action.digest).await.is_none());
}

/// Buck2 runs tests with a timeout, and sends pings while the server says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_is_a_failed_action_with_its_log_and_the_connection_stays() {
    let house = House::new(&[]);
    let buck2 = house.usual().await;
    let began = std::time::Instant::now();
    let script = "echo before; echo part > log; sleep 60";
    let action = Action::shell(script, &["log"], Some(4));
    // Buck2 would report any error status as an internal error, and not show what the action printed.
    let failed = action.run(&buck2).await.unwrap();
    assert_eq!(failed.exit_code, 124);
    assert_eq!(buck2.text(&failed.stdout).await, "before\n");
    let stderr = buck2.text(&failed.stderr).await;
    assert!(stderr.contains("timeout of 4s"), "{stderr}");
    assert_eq!(buck2.download(&failed.files["log"].0).await, b"part\n");
    assert!(buck2.cached(&action.digest).await.is_none());
    assert!((Duration::from_secs(4)..Duration::from_secs(30)).contains(&began.elapsed()));
    let passed = Action::shell("true", &[], Some(600)).run(&buck2).await.unwrap();
    assert_eq!(passed.exit_code, 0);
}

/// Buck2 names neither the target nor the mnemonic of an action: Kiln reads both from the paths of its outputs and of
/// its scratch directory.
#[tokio::test(flavor = "multi_thread")]
async fn actions_and_hits_are_named_by_their_target() {
    let house = House::new(&[]);
    let buck2 = house.usual().await;
    let output = "buck-out/v2/gen/root/904931f735703749/app/__main__/src/lib.cc.o";
    let scratch = "buck-out/v2/tmp/root/904931f735703749/cxx_compile/lib.cc";
    let script = format!("echo made > {output}");
    let arguments = ["sh", "-eu", "-c", &script];
    let variables = [("BUCK_SCRATCH_PATH", scratch)];
    let output = [output];
    let outputs = (OutputPaths::OutputPaths, output.as_slice());
    let action = Action::new(&arguments, &variables, &Inputs::default(), outputs, None);
    assert_eq!(action.run(&buck2).await.unwrap().exit_code, 0);
    // This call stands for a client that skips its own look-up and executes at once.
    assert_eq!(buck2.execute(&action.digest).await.unwrap().exit_code, 0);
    let executions =
        || support::server::get_json(&house.server.address, "/api/v1/executions?limit=10");
    // The journal records both executions only a moment after the answers.
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let listed = loop {
        assert!(std::time::Instant::now() < deadline, "{}", executions());
        let listed = executions()["executions"].as_array().cloned().unwrap_or_default();
        if listed.len() == 2 {
            break listed;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    for run in &listed {
        assert_eq!(run["target_id"], "root//app:main", "{run}");
        assert_eq!(run["mnemonic"], "cxx_compile", "{run}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_is_refused_with_a_reason() {
    let house = House::new(&[]);
    let buck2 = house.usual().await;
    let action = Action::shell("true", &[], None);
    let failed = buck2.execute(&action.digest).await.unwrap_err();
    assert_eq!(failed.code, Code::FailedPrecondition, "{}", failed.message);
    assert!(failed.message.contains("not in the store"), "{}", failed.message);
}

/// Where callers may write results, Buck2 first writes a result to check that it is allowed, and then uploads the
/// results of actions that it ran itself.
#[tokio::test(flavor = "multi_thread")]
async fn results_of_local_runs_are_uploaded_where_that_is_allowed() {
    let house = House::new(&["--allow-cache-updates"]);
    let buck2 = house.usual().await;
    let (blobs, check) = permission_check();
    buck2.upload(&blobs).await.unwrap();
    buck2.write_result(&check, result(Vec::new())).await.unwrap();

    let action = Action::shell("echo local > out", &["out"], None);
    // This uploads everything that the action names. The content of its output is still missing.
    action.upload(&buck2).await.unwrap();
    let output = reapi::OutputFile {
        path: "out".into(),
        digest: Some(digest(b"local\n")),
        ..Default::default()
    };
    let refused = buck2.write_result(&action.digest, result(vec![output.clone()])).await;
    assert_eq!(refused.unwrap_err().code, Code::FailedPrecondition);
    buck2.upload(&[b"local\n".to_vec()]).await.unwrap();
    let stored = buck2.write_result(&action.digest, result(vec![output])).await.unwrap();
    assert_eq!(stored.files["out"].0, digest(b"local\n"));
    assert_eq!(buck2.cached(&action.digest).await, Some(stored));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_write_results_is_told_so() {
    let house = House::new(&[]);
    let buck2 = house.usual().await;
    let (blobs, check) = permission_check();
    buck2.upload(&blobs).await.unwrap();
    let failed = buck2.write_result(&check, result(Vec::new())).await.unwrap_err();
    assert_eq!(failed.code, Code::PermissionDenied);
    assert!(failed.message.contains("may not write"), "{}", failed.message);
}

/// Makes the action whose result Buck2 writes to see whether it may. It has no input root, and nobody ever runs it.
/// Returns its blobs and its digest.
fn permission_check() -> (Vec<Vec<u8>>, reapi::Digest) {
    let arguments = ["/command", "-to", "check", "permission"].map(str::to_owned).to_vec();
    let command = reapi::Command { arguments, platform: Some(platform()), ..Default::default() };
    let command = command.encode_to_vec();
    let action = reapi::Action { command_digest: Some(digest(&command)), ..Default::default() };
    let action = action.encode_to_vec();
    let name = digest(&action);
    (vec![command, action], name)
}

/// Makes the result of an action that Buck2 ran itself. Most of its times are those of 1970, because Buck2 measured
/// only the execution, and no content is inline.
fn result(output_files: Vec<reapi::OutputFile>) -> reapi::ActionResult {
    let unset = Some(protobuf::Timestamp::default());
    let metadata = reapi::ExecutedActionMetadata {
        queued_timestamp: unset,
        worker_start_timestamp: unset,
        worker_completed_timestamp: unset,
        input_fetch_start_timestamp: unset,
        input_fetch_completed_timestamp: unset,
        execution_start_timestamp: Some(protobuf::Timestamp { seconds: 1_800_000_000, nanos: 5 }),
        execution_completed_timestamp: Some(protobuf::Timestamp {
            seconds: 1_800_000_001,
            nanos: 5,
        }),
        virtual_execution_duration: Some(protobuf::Duration { seconds: 1, nanos: 0 }),
        output_upload_start_timestamp: unset,
        output_upload_completed_timestamp: unset,
        ..Default::default()
    };
    reapi::ActionResult { output_files, execution_metadata: Some(metadata), ..Default::default() }
}

/// Returns `length` bytes that do not compress, the same for the same `seed`.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(state.to_le_bytes())
    });
    next.flatten().take(length).collect()
}
