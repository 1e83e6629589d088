//! Builds whose server, or what lay on it, is gone before they are over.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use kiln_protos::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use kiln_protos::reapi::{BatchUpdateBlobsRequest, batch_update_blobs_request};

use super::builds::sum;
use super::support::reapi::Client;
use super::support::server::{Server, command, metric};
use super::{Rig, Run};

const PATIENCE: Duration = Duration::from_secs(30);

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        kiln_test_servers::pause();
    }
}

fn running(address: &str) -> f64 {
    metric(address, "kiln_operations_running", &[])
}

/// Interrupts Bazel as a user does with Ctrl-C. The process `child` is bubblewrap, and Bazel is its only child.
fn interrupt(child: &Child) {
    let id = child.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    let bazel = children.expect("its children").trim().to_owned();
    let sent = Command::new("kill").args(["-INT", &bazel]).status();
    assert!(sent.expect("kill runs").success());
}

pub fn interrupted(rig: &Rig) {
    // The build gets a server of its own. At the rig's server tests have failed before, so the server might run one
    // of them again in its shadow, and the count of running operations would include it.
    let server = Server::start(&rig.directory.path().join("interrupted"), &[]);
    let address = &server.address;
    let build = rig.bazel.start_remote(address, &["build", "//chain:slow"]);
    wait_until("the action runs", || running(address) == 1.0);
    interrupt(&build);
    let run = Run::of(build.wait_with_output().expect("Bazel runs"));
    assert_eq!(run.code, 8, "{}", run.text);
    // The action would take a minute, so it has ended early only if the server cancelled it.
    let start = Instant::now();
    wait_until("the action is cancelled", || running(address) == 0.0);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let run = rig.bazel.remote_at(&format!("grpc://{address}"), &["build", "//chain:all"]);
    run.expect_success();
}

pub fn local_fallback(rig: &Rig) {
    let data = rig.directory.path().join("lost");
    let server = Server::start(&data, &[]);
    let options = ["build", "--remote_local_fallback", "--remote_retries=1", "//chain:slow"];
    let build = rig.bazel.start_remote(&server.address, &options);
    wait_until("the action runs", || running(&server.address) == 1.0);
    server.kill();
    let run = Run::of(build.wait_with_output().expect("Bazel runs")).expect_success();
    assert_eq!(run.processes("local"), 1, "{}", run.text);
    assert_eq!(rig.output("chain/slow.txt"), b"done\n");
}

/// Starts a server whose store is so small, and promises blobs for so short a time, that it soon evicts them.
fn forgetful(rig: &Rig, name: &str) -> Server {
    let data = rig.directory.path().join(name);
    let mut serve = command("127.0.0.1:0", &data, &["--max-size", "64MiB"]);
    serve.env("KILN_STORAGE_LEASE", "1s").env("KILN_STORAGE_MIN_LEASE", "1s");
    Server::spawn(serve, &data)
}

/// Writes blobs until the server has evicted every blob that it held before.
fn push_out(server: &Server) {
    let count = |name: &str| metric(&server.address, name, &[]);
    let there = count("kiln_storage_blobs") + count("kiln_storage_evicted_blobs_total");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut number = 0_u32;
    wait_until("all is evicted", || {
        number += 1;
        runtime.block_on(write(server, &number.to_le_bytes().repeat(750_000)));
        count("kiln_storage_evicted_blobs_total") >= there
    });
}

/// Writes a blob. The server may refuse it without harm to the test: it then still keeps blobs that it promised less
/// than a second ago, and the next write comes after that promise has ended.
async fn write(server: &Server, data: &[u8]) {
    let request = batch_update_blobs_request::Request {
        digest: Some(kiln_cas::DigestFunction::Sha256.digest(data).to_wire()),
        data: data.to_vec(),
        ..Default::default()
    };
    let request = BatchUpdateBlobsRequest { requests: vec![request], ..Default::default() };
    let channel = Client::connect(&server.url()).await.channel;
    let answer = ContentAddressableStorageClient::new(channel).batch_update_blobs(request).await;
    answer.expect("an answer");
}

const MINIMAL: &str = "--remote_download_minimal";
const AGAIN: &str = "--experimental_remote_cache_eviction_retries=5";

/// The server alone has `//chain:numbers` when `//chain:sum` asks for it, because Bazel has downloaded nothing.
pub fn without_the_bytes(rig: &Rig) {
    rig.bazel.clean();
    let server = forgetful(rig, "minimal");
    let build = |options: &[&str]| {
        let arguments = [&["build", MINIMAL], options, &["//chain:sum"]].concat();
        rig.bazel.remote(&server.address, &arguments)
    };
    build(&[]).expect_success();
    push_out(&server);
    rig.write("chain/text", "other\n");
    let run = build(&[AGAIN]).expect_success();
    assert!(run.text.contains("lost inputs") || run.text.contains("retrying"), "{}", run.text);

    // Without the option to begin anew, the build names the lost inputs and fails, and the next build makes them
    // again.
    push_out(&server);
    rig.write("chain/text", "more\n");
    let run = build(&[]);
    assert_eq!(run.code, 39, "{}", run.text);
    build(&[]).expect_success();
    rig.bazel.remote(&server.address, &["build", "//chain:sum"]).expect_success();
    assert_eq!(rig.output("chain/sum.txt"), sum("more\n"));
    rig.write("chain/text", "text\n");
}

/// Bazel shall download what an earlier build left on the server, but the server has evicted it. Bazel begins a build
/// anew for lost inputs only, so this build fails and the next one makes the outputs again.
pub fn toplevel(rig: &Rig) {
    rig.bazel.clean();
    let server = forgetful(rig, "toplevel");
    rig.bazel.remote(&server.address, &["build", MINIMAL, "//chain:sum"]).expect_success();
    push_out(&server);
    let toplevel = ["build", "--remote_download_toplevel", AGAIN, "//chain:sum"];
    let lost = rig.bazel.remote(&server.address, &toplevel);
    assert!(lost.code == 34 && lost.text.contains("Missing digest"), "{}", lost.text);
    rig.bazel.remote(&server.address, &toplevel).expect_success();
    assert_eq!(rig.output("chain/sum.txt"), sum("text\n"));
}

/// Bazel uploads lost inputs again, within the same build, where it has them on its own disk.
pub fn inputs(rig: &Rig) {
    rig.bazel.clean();
    let server = forgetful(rig, "inputs");
    let all = ["build", "--remote_download_all", "//chain:sum"];
    let build = || rig.bazel.remote(&server.address, &all).expect_success();
    build();
    push_out(&server);
    rig.write("chain/text", "other\n");
    let run = build();
    assert_eq!(run.processes("remote"), 1, "{}", run.text);
    assert_eq!(rig.output("chain/sum.txt"), sum("other\n"));
    rig.write("chain/text", "text\n");
}
