//! Bazel in setups that `tests/builds/bazel.rs` does not cover: with Kiln as a cache only, without the right to
//! write, and in several instances. ccache is here as well.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod ccache;
use crate::support;

use support::bazel::{Bazel, Run};
use support::client;
use support::server::Server;

const PROGRAMS: &str = "//greet/...";
/// Packages of the workspace in which Bazel has nothing to compile.
const TEXTS: &str = "//text/...";

/// Builds on this machine after `bazel clean`, with the cache that `options` describe.
fn build_here(bazel: &Bazel, targets: &str, options: &[&str]) -> Run {
    bazel.clean();
    let mut arguments = vec!["build"];
    arguments.extend(options);
    arguments.push(targets);
    bazel.local(&arguments)
}

#[test]
fn a_cache_alone_serves_over_grpc_and_http() {
    let Some(binary) = client("KILN_BAZEL") else { return };
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(data.path(), &["--allow-cache-updates", "--workers", "0"]);
    let bazel = Bazel::new(binary, "examples/bazel");
    for scheme in ["grpc", "http"] {
        let cache = format!("--remote_cache={scheme}://{}", server.address);
        let first = build_here(&bazel, PROGRAMS, &[&cache]).expect_success();
        let ran = first.processes("local");
        assert!(ran > 5, "{}", first.text);
        assert_eq!(first.processes("remote cache hit"), 0, "the two are apart: {}", first.text);
        let second = build_here(&bazel, PROGRAMS, &[&cache]).expect_success();
        assert_eq!(second.processes("remote cache hit"), ran, "{}", second.text);
        assert_eq!(second.processes("local"), 0, "{}", second.text);
    }
    let elsewhere = format!("--remote_cache=http://{}/another/instance", server.address);
    let first = build_here(&bazel, PROGRAMS, &[&elsewhere]).expect_success();
    assert_eq!(first.processes("remote cache hit"), 0, "{}", first.text);
}

#[test]
fn whoever_may_not_write_results_is_told_and_can_build() {
    let Some(binary) = client("KILN_BAZEL") else { return };
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(data.path(), &["--workers", "0"]);
    let bazel = Bazel::new(binary, "examples/bazel");
    let cache = format!("--remote_cache=grpc://{}", server.address);
    let refused = build_here(&bazel, TEXTS, &[&cache]);
    assert_ne!(refused.code, 0, "{}", refused.text);
    assert!(refused.text.contains("not authorized to write local results"), "{}", refused.text);
    build_here(&bazel, TEXTS, &[&cache, "--noremote_upload_local_results"]).expect_success();

    let cache = format!("--remote_cache=http://{}", server.address);
    let warned = build_here(&bazel, TEXTS, &[&cache]).expect_success();
    assert!(warned.text.contains("clients may not write action results here"), "{}", warned.text);
}

#[test]
fn instances_share_blobs_but_not_results() {
    let Some(binary) = client("KILN_BAZEL") else { return };
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(data.path(), &[]);
    let bazel = Bazel::new(binary, "examples/bazel");
    let build = |instance: &str| {
        bazel.clean();
        let instance = format!("--remote_instance_name={instance}");
        bazel.remote(&server.address, &["build", &instance, TEXTS]).expect_success()
    };
    let first = build("team/main");
    let ran = first.processes("remote");
    assert!(ran > 5, "{}", first.text);
    assert_eq!(build("team/main").processes("remote cache hit"), ran);
    assert_eq!(build("team/release").processes("remote"), ran);
}

#[test]
fn what_no_worker_offers_fails_with_the_reason() {
    let Some(binary) = client("KILN_BAZEL") else { return };
    let data = tempfile::tempdir().expect("a temporary directory");
    let mut command = support::server::command("127.0.0.1:0", data.path(), &[]);
    command.env("KILN_SCHEDULER_WORKER_GRACE", "100ms");
    let server = Server::spawn(command, data.path());
    let bazel = Bazel::new(binary, "examples/bazel");
    let properties = "--remote_default_exec_properties=gpu=1";
    let run = bazel.remote(&server.address, &["build", properties, TEXTS]);
    assert_ne!(run.code, 0, "{}", run.text);
    assert!(run.text.contains("no worker offers gpu=1"), "{}", run.text);
}
