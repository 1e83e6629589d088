//! A server dies after it has received build events and before it has acknowledged them.

use std::process::Stdio;

use super::proxy::Proxy;
use super::*;
use crate::support::server::get_status;

const ID: &str = "8a0a8e2c-3f0f-4d0a-9d56-0f3c5ad1c009";

#[test]
fn what_was_received_and_not_acknowledged_counts_once() {
    let Some(rig) = Rig::start() else { return };
    let Rig { server, bazel, oracle, workspace: _workspace, _data } = rig;
    let proxy = Proxy::to(&server.address);
    let written = tempfile::NamedTempFile::new().expect("a temporary file");
    let silence = oracle.silence();
    // The test runs locally, so the server knows of it from build events only.
    let arguments = [
        "test".to_owned(),
        format!("--bes_backend=grpc://{}", proxy.address),
        format!("--invocation_id={ID}"),
        format!("--build_event_json_file={}", written.path().display()),
        format!("--test_env=ORACLE={}", oracle.port),
        "--bes_timeout=60s".to_owned(),
        "--spawn_strategy=local".to_owned(),
        "//:flaky_test".to_owned(),
    ];
    let mut command = bazel.command(&arguments.each_ref().map(String::as_str));
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let build = command.spawn().expect("Bazel starts");
    wait_until("the test runs", || oracle.asked() > 0);
    let page = format!("/api/v1/builds/{ID}");
    let told = |address: &str| match get_status(address, &page) {
        200 => get_json(address, &page)["told"].clone(),
        _ => Value::Null,
    };
    wait_until("the build is known", || !told(&server.address).is_null());
    proxy.withhold(true);
    drop(silence);
    let runs = |address: &str| told(address)["test_runs"].as_array().map_or(0, Vec::len);
    wait_until("the result is durable", || runs(&server.address) == 1);
    let data = server.data.clone();
    let address = server.kill();
    proxy.withhold(false);
    let server = Server::spawn(command_for(&address, &data), &data);
    let ended = Run::of(build.wait_with_output().expect("Bazel runs"));
    assert_eq!(ended.code, 0, "{}", ended.text);

    let told = told(&server.address);
    let lines = std::fs::read_to_string(written.path()).expect("events").lines().count();
    // The stream has one event more than Bazel writes into the file: the one that ends it.
    assert_eq!(told["events"], lines as u64 + 1, "{told:#}");
    assert_eq!((&told["is_complete"], &told["exit_code"]), (&true.into(), &0.into()), "{told:#}");
    assert_eq!(runs(&server.address), 1, "{told:#}");
    let tests = get_json(&server.address, "/api/v1/tests");
    assert_eq!(
        (&tests["total"], &tests["tests"][0]["passed"]),
        (&1.into(), &1.into()),
        "{tests:#}"
    );
}

fn command_for(address: &str, data: &std::path::Path) -> Command {
    let mut serve = command(address, data, &["--workers", "0"]);
    serve.env("KILN_TESTS_WINDOW", "1s");
    serve
}
