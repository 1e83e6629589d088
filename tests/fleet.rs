//! Several frontends and workers on one Redis and one S3, and the loss of each of them.

#![allow(clippy::panic, clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use kiln_test_servers::proxy::{Fault, Proxy};
use kiln_test_servers::redis::RedisServer;
use kiln_test_servers::s3::Weed;
use serde_json::Value;
use support::balancer::Balancer;
use support::bazel::{Bazel, Run};
use support::client;
use support::server::{Server, command, get_json, get_text};

const WITHIN: Duration = Duration::from_secs(90);

/// What a fleet shares.
struct Shared {
    redis: RedisServer,
    weed: Weed,
    dir: tempfile::TempDir,
}

impl Shared {
    /// `None`: a server is lacking here, and that is allowed.
    fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        Some(Self { redis: RedisServer::start()?, weed: Weed::start()?, dir })
    }

    fn command(&self, name: &str, endpoint: &str, arguments: &[&str]) -> Command {
        let mut command = command("127.0.0.1:0", &self.dir.path().join(name), arguments);
        let credentials = self.weed.credentials();
        command
            .args(["--redis", &self.redis.url()])
            .args(["--s3", &format!("s3://{}/kiln", self.weed.bucket())])
            .env("KILN_S3_ENDPOINT", endpoint)
            .env("AWS_ACCESS_KEY_ID", credentials.access_key)
            .env("AWS_SECRET_ACCESS_KEY", credentials.secret_key)
            .env("AWS_REGION", "us-east-1");
        command
    }

    fn frontend(&self, name: &str) -> Server {
        self.serve(name, &self.weed.endpoint(), &["--workers", "0"])
    }

    fn serve(&self, name: &str, endpoint: &str, arguments: &[&str]) -> Server {
        Server::spawn(self.command(name, endpoint, arguments), &self.dir.path().join(name))
    }

    fn worker(&self, name: &str, server: &str) -> Worker {
        Worker::start(server, &self.dir.path().join(name), name)
    }
}

struct Worker(Child);

impl Worker {
    fn start(server: &str, data: &Path, name: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_kiln"))
            .args(["worker", "--server", server, "--slots", "2", "--data-dir"])
            .arg(data)
            .env("KILN_WORKERS_MEMORY", "1GiB")
            .env("HOSTNAME", name)
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

fn count(status: &Value, pointer: &str) -> u64 {
    status.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

fn await_status(address: &str, what: &str, condition: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + WITHIN;
    loop {
        let status = get_json(address, "/api/v1/status");
        if condition(&status) {
            return;
        }
        assert!(Instant::now() < deadline, "{what} did not happen; status: {status:#}");
    }
}

/// Actions that the fleet has finished.
fn published(redis: &RedisServer) -> u64 {
    let count = redis.command(&["HGET", "{kiln:queue}:m", "c.published"]);
    count.parse().unwrap_or(0)
}

fn await_published(redis: &RedisServer, count: u64) {
    let deadline = Instant::now() + WITHIN;
    while published(redis) < count {
        assert!(Instant::now() < deadline, "{count} actions did not finish");
    }
}

/// Two frontends behind a balancer, and two workers that come through it.
struct Fleet {
    shared: Shared,
    frontends: Vec<Server>,
    workers: Vec<Worker>,
    balancer: Balancer,
}

impl Fleet {
    fn start() -> Option<Self> {
        let shared = Shared::start()?;
        let frontends: Vec<Server> =
            ["one", "two"].iter().map(|name| shared.frontend(name)).collect();
        let backends = frontends.iter().map(|server| server.address.clone()).collect();
        let balancer = Balancer::start(backends);
        let workers =
            ["w1", "w2"].iter().map(|name| shared.worker(name, &balancer.url())).collect();
        let fleet = Self { shared, frontends, workers, balancer };
        await_status(&fleet.frontends[0].address, "both workers", |status| {
            count(status, "/workers") == 2
        });
        Some(fleet)
    }
}

#[test]
fn a_build_is_run_by_the_fleet_and_the_next_one_is_all_hits_at_any_frontend() {
    let (Some(binary), Some(fleet)) = (client("KILN_BAZEL"), Fleet::start()) else { return };
    let bazel = Bazel::new(binary, "tests/workspace");
    let build = ["build", "//cpp/...", "//links/...", "//paths/..."];
    let first = bazel.remote(&fleet.balancer.address, &build).expect_success();
    assert!(first.processes("remote") > 5, "{}", first.text);
    for frontend in &fleet.frontends {
        bazel.clean();
        let again = bazel.remote(&frontend.address, &build).expect_success();
        assert_eq!(again.processes("remote"), 0, "{}", again.text);
    }
    let stats = fleet.shared.redis.command(&["HGET", "{kiln:queue}:m", "c.retries"]);
    assert_ne!(stats, "1", "something had to be tried again");
    drop(fleet.workers);
}

/// Requests that the only build is known to have made.
fn requests_of_the_build(frontend: &Server) -> u64 {
    let builds = get_json(&frontend.address, "/api/v1/builds");
    assert!(builds["builds"].as_array().unwrap().len() <= 1, "{builds:#}");
    let of = |what: &str| count(&builds, &format!("/builds/0/{what}"));
    of("executed") + of("merged") + of("cache_hits")
}

#[test]
fn a_build_through_the_balancer_is_whole_on_the_pages_of_each_frontend() {
    let (Some(binary), Some(mut fleet)) = (client("KILN_BAZEL"), Fleet::start()) else { return };
    let bazel = Bazel::new(binary, "tests/workspace");
    let arguments = ["build", "//cpp/...", "//paths/..."];
    let build = bazel.remote(&fleet.balancer.address, &arguments).expect_success();
    let actions = build.processes("remote") as u64;
    assert!(actions > 5, "{}", build.text);
    let expect_whole = |frontend: &Server| {
        await_status(&frontend.address, "the whole build", |_| {
            requests_of_the_build(frontend) >= actions
        });
        assert_eq!(requests_of_the_build(frontend), actions);
        let builds = get_json(&frontend.address, "/api/v1/builds");
        let id = builds["builds"][0]["invocation_id"].as_str().unwrap();
        let listed = format!("/api/v1/executions?limit=500&invocation={id}");
        let listed = get_json(&frontend.address, &listed);
        let ids = listed["executions"].as_array().unwrap().iter().map(|one| one["id"].as_str());
        assert_eq!(ids.collect::<BTreeSet<_>>().len() as u64, actions);
        let page = get_text(&frontend.address, &format!("/builds/{id}"));
        assert!(page.contains("CppCompile"), "{page}");
    };
    fleet.frontends.iter().for_each(expect_whole);
    // Nothing of it was kept by the one that goes.
    fleet.frontends.remove(0).kill();
    fleet.frontends.iter().for_each(expect_whole);
}

#[test]
fn a_build_survives_the_loss_of_a_frontend() {
    let (Some(binary), Some(mut fleet)) = (client("KILN_BAZEL"), Fleet::start()) else { return };
    let bazel = Bazel::new(binary, "tests/workspace");
    let build =
        bazel.start_remote(&fleet.balancer.address, &["build", "--remote_retries=20", "//cpp/..."]);
    await_published(&fleet.shared.redis, 5);
    fleet.frontends.remove(0).kill();
    Run::of(build.wait_with_output().expect("Bazel ends")).expect_success();
}

#[test]
fn a_build_survives_the_loss_of_a_worker() {
    let (Some(binary), Some(mut fleet)) = (client("KILN_BAZEL"), Fleet::start()) else { return };
    let bazel = Bazel::new(binary, "tests/workspace");
    let build = bazel.start_remote(&fleet.balancer.address, &["build", "//cpp/..."]);
    await_published(&fleet.shared.redis, 5);
    drop(fleet.workers.remove(0));
    Run::of(build.wait_with_output().expect("Bazel ends")).expect_success();
}

#[test]
fn a_build_survives_a_restart_of_redis() {
    let (Some(binary), Some(mut fleet)) = (client("KILN_BAZEL"), Fleet::start()) else { return };
    let bazel = Bazel::new(binary, "tests/workspace");
    let build =
        bazel.start_remote(&fleet.balancer.address, &["build", "--remote_retries=20", "//cpp/..."]);
    await_published(&fleet.shared.redis, 5);
    fleet.shared.redis.restart();
    Run::of(build.wait_with_output().expect("Bazel ends")).expect_success();
    bazel.clean();
    let again = bazel.remote(&fleet.balancer.address, &["build", "//cpp/..."]).expect_success();
    assert!(again.processes("remote") <= 2, "what was cached is kept: {}", again.text);
}

#[test]
fn one_server_with_workers_builds_while_s3_fails_in_bursts() {
    let (Some(binary), Some(shared)) = (client("KILN_BAZEL"), Shared::start()) else { return };
    let proxy = Proxy::start(&shared.weed.address());
    // One request in five: slow down, broken, cut off in the middle, in turn.
    proxy.plan(|request| match request.number % 15 {
        2 => Some(Fault::Status(503, "SlowDown")),
        7 => Some(Fault::Status(500, "InternalError")),
        12 => Some(Fault::Truncate(100)),
        _ => None,
    });
    let server = shared.serve("alone", &proxy.endpoint(), &[]);
    let bazel = Bazel::new(binary, "tests/workspace");
    bazel.remote(&server.address, &["build", "//cpp/..."]).expect_success();
    bazel.clean();
    let again = bazel.remote(&server.address, &["build", "//cpp/..."]).expect_success();
    assert_eq!(again.processes("remote"), 0, "{}", again.text);
    assert!(proxy.log().len() > 15, "S3 was used");
}

#[test]
fn an_index_that_was_lost_is_rebuilt_from_s3() {
    let (Some(binary), Some(shared)) = (client("KILN_BAZEL"), Shared::start()) else { return };
    let server = shared.serve("alone", &shared.weed.endpoint(), &[]);
    let bazel = Bazel::new(binary, "tests/workspace");
    bazel.remote(&server.address, &["build", "//cpp/..."]).expect_success();
    // What is written behind is in S3 when the server has ended.
    assert!(server.terminate().success());
    shared.redis.command(&["FLUSHALL"]);
    let index = |what: &str| {
        let mut command = shared.command("unused", &shared.weed.endpoint(), &[]);
        let environment: Vec<_> =
            command.get_envs().map(|(k, v)| (k.to_owned(), v.unwrap().to_owned())).collect();
        command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.args(["index", what, "--json", "--redis", &shared.redis.url()]);
        command.args(["--s3", &format!("s3://{}/kiln", shared.weed.bucket())]).envs(environment);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    assert_eq!(count(&index("show"), "/blobs"), 0);
    let rebuilt = index("rebuild");
    assert!(count(&rebuilt, "/blobs") > 20, "{rebuilt}");
    let shown = index("show");
    assert_eq!(shown["blobs"], rebuilt["blobs"]);
    assert_eq!(shown["pending"], 0);
    // Results are lost, inputs are not: nothing is uploaded twice, and the build runs again.
    let server = shared.serve("alone", &shared.weed.endpoint(), &[]);
    bazel.clean();
    let again = bazel.remote(&server.address, &["build", "//cpp/..."]).expect_success();
    assert!(again.processes("remote") > 5, "{}", again.text);
}

#[test]
fn redis_without_s3_and_passwords_on_the_command_line_are_refused() {
    let data = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str], word: &str| {
        let output = command("127.0.0.1:0", data.path(), arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(text.contains(word), "{text}");
    };
    refused(&["--redis", "redis://localhost"], "--s3");
    refused(&["--redis", "redis://:secret@localhost", "--s3", "s3://bucket"], "KILN_REDIS_URL");
    refused(&["--redis", "http://localhost", "--s3", "s3://bucket"], "redis://");
    refused(&["--redis", "redis://localhost", "--s3", "bucket"], "s3://BUCKET");
}
