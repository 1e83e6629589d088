//! Processes crash in the middle of real builds: each build has to finish or to end with a clear error.

#![allow(clippy::panic)]

use crate::support;

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::bazel::{Bazel, Run};
use support::client;
use support::reapi::{Client, Spec};
use support::server::{Server, command, get_json, get_status};

const WITHIN: Duration = Duration::from_secs(60);

/// Asks for the server's status until `condition` holds for it. Panics, naming `what`, if that takes too long.
fn await_status(server: &Server, what: &str, condition: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + WITHIN;
    loop {
        let status = get_json(&server.address, "/api/v1/status");
        if condition(&status) {
            return;
        }
        assert!(Instant::now() < deadline, "{what} did not happen; status: {status:#}");
        kiln_test_servers::pause();
    }
}

fn count(status: &Value, pointer: &str) -> u64 {
    status
        .pointer(pointer)
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("status has no number at {pointer}: {status:#}"))
}

const COMPLETED: &str = "/journal/since_start/executed";
const QUEUED: &str = "/queued";
const RUNNING: &str = "/running";

#[test]
fn a_build_survives_a_killed_and_restarted_server() {
    let Some(binary) = client("KILN_BAZEL") else { return };
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(data.path(), &[]);
    let bazel = Bazel::new(binary, "tests/workspace");
    let build = bazel.start_remote(&server.address, &["build", "--remote_retries=20", "//cpp/..."]);
    await_status(&server, "five finished actions", |status| count(status, COMPLETED) >= 5);

    let address = server.kill();
    let server = Server::start_on(&address, data.path(), &[]);
    Run::of(build.wait_with_output().expect("Bazel ends")).expect_success();

    bazel.clean();
    let again = bazel.remote(&server.address, &["build", "//cpp/..."]).expect_success();
    assert_eq!(again.processes("remote"), 0, "all results are kept: {}", again.text);
}

struct Worker(std::process::Child);

impl Worker {
    fn start(server: &Server, data: &std::path::Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_kiln"))
            .args(["worker", "--server", &server.url(), "--slots", "2", "--data-dir"])
            .arg(data)
            .spawn()
            .expect("kiln worker starts");
        Self(child)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_build_survives_a_killed_worker() {
    let Some(binary) = client("KILN_BAZEL") else { return };
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&data.path().join("server"), &["--workers", "0"]);
    let first = Worker::start(&server, &data.path().join("first"));
    let _second = Worker::start(&server, &data.path().join("second"));
    await_status(&server, "both workers", |status| count(status, "/workers") == 2);
    let bazel = Bazel::new(binary, "tests/workspace");
    let build = bazel.start_remote(&server.address, &["build", "//cpp/..."]);
    await_status(&server, "five finished actions", |status| count(status, COMPLETED) >= 5);
    drop(first);
    Run::of(build.wait_with_output().expect("Bazel ends")).expect_success();
}

#[test]
fn work_that_nobody_waits_for_is_cancelled() {
    let Some(binary) = client("KILN_BAZEL") else { return };
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(data.path(), &[]);
    let bazel = Bazel::new(binary, "tests/workspace");
    bazel.remote(&server.address, &["build", "//flaky:slow_test"]).expect_success();
    let output_base = bazel.info("output_base");
    let mut build = bazel.start_remote(
        &server.address,
        &["test", "--test_timeout=600", "--runs_per_test=5", "//flaky:slow_test"],
    );
    await_status(&server, "a running action", |status| count(status, RUNNING) >= 1);
    // The client process only passes messages on. The build lives in Bazel's own server, which has to be killed.
    let pid = std::fs::read_to_string(output_base.join("server/server.pid.txt"))
        .expect("Bazel's server says its process id");
    build.kill().expect("the client can be killed");
    let killed = Command::new("kill").args(["-9", pid.trim()]).status().expect("kill runs");
    assert!(killed.success());
    let _ = build.wait();
    await_status(&server, "an empty queue", |status| {
        count(status, RUNNING) == 0 && count(status, QUEUED) == 0
    });
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(data.path(), &[]);
    let output = command("127.0.0.1:0", data.path(), &[]).output().expect("kiln runs");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&server.id().to_string()), "names the other process: {text}");
}

#[test]
fn a_public_address_needs_insecure() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let output = command("0.0.0.0:0", data.path(), &[]).output().expect("kiln runs");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("--insecure"), "{text}");
}

#[test]
fn sigterm_drains_and_exits_cleanly() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(data.path(), &[]);
    assert!(server.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drains_is_alive_and_not_ready() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(data.path(), &[]);
    let address = server.address.clone();
    let both = || ["/healthz", "/readyz"].map(|path| get_status(&address, path));
    assert_eq!(both(), [200, 200]);
    let url = server.url();
    let health = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.args(["health", "--server", &url]).args(arguments);
        command.output().expect("kiln runs").status.code()
    };
    assert_eq!(health(&[]), Some(0));
    let client = Client::connect(&server.url()).await;
    let running = tokio::spawn(async move {
        client.execute(&Spec::shell("sleep 3; echo done > out", &["out"])).await
    });
    await_status(&server, "the action", |status| count(status, RUNNING) == 1);
    let terminating = tokio::task::spawn_blocking(move || server.terminate());
    while both() != [200, 503] {
        kiln_test_servers::pause();
    }
    assert_eq!((health(&[]), health(&["--live"])), (Some(1), Some(0)));
    let response = running.await.expect("no panic").expect("what runs is finished");
    assert_eq!(response.result.expect("a result").exit_code, 0);
    assert!(terminating.await.expect("no panic").success());
}
