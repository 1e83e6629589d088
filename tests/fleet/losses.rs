//! Builds that lose a process of the fleet, or what such a process knew.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use kiln_test_servers::redis::RedisServer;
use serde_json::Value;

use crate::rig::{
    Fleet, Shared, WITHIN, Worker, await_counter, await_published, count, counter, metric, signal,
};
use crate::support::balancer::Balancer;
use crate::support::bazel::{Bazel, Run};
use crate::support::client;

/// How long it takes at most until everything that a process sent before it was stopped has arrived.
const SETTLED: Duration = Duration::from_millis(500);

/// Tries one worker after the other until one holds a lease that it cannot give back, because the process that
/// `process` names is stopped. Returns the index of that worker.
fn stop_a_busy_one(
    redis: &RedisServer,
    workers: &[Worker],
    process: impl Fn(&Worker) -> u32,
) -> usize {
    let deadline = Instant::now() + WITHIN;
    loop {
        for (place, worker) in workers.iter().enumerate() {
            if worker.leases(redis) == 0 {
                continue;
            }
            signal(process(worker), "STOP");
            let settled = Instant::now() + SETTLED;
            while worker.leases(redis) > 0 {
                if Instant::now() > settled {
                    return place;
                }
            }
            signal(process(worker), "CONT");
        }
        assert!(Instant::now() < deadline, "no worker holds a lease");
    }
}

/// Waits for the build to succeed, and asserts that `//cpp:all` is a program that finds all of its parts.
fn expect_whole(bazel: &Bazel, build: Child) {
    Run::of(build.wait_with_output().expect("Bazel ends")).expect_success();
    let bin = bazel.bin();
    let ran = Command::new(bin.join("cpp/all")).output().expect("it is a program");
    assert_eq!((ran.status.code(), ran.stdout.as_slice()), (Some(0), b"28\n".as_slice()));
    for number in 0..40 {
        let text = std::fs::read_to_string(bin.join(format!("cpp/gen_{number}.txt"))).unwrap();
        assert_eq!(text.trim_end(), number.to_string());
    }
}

#[test]
fn a_build_survives_the_loss_of_a_frontend() {
    let (Some(binary), Some(shared)) = (client("KILN_BAZEL"), Shared::start()) else { return };
    let [one, two] = ["one", "two"].map(|name| shared.frontend(name));
    let balancer = Balancer::start(vec![one.address.clone(), two.address.clone()]);
    // The first worker's session is at the frontend that the test kills.
    let worker = |name, servers: [String; 2]| {
        Worker::start(&servers.join(","), &shared.dir.path().join(name), name, &[])
    };
    let workers = [worker("w1", [one.url(), two.url()]), worker("w2", [two.url(), one.url()])];
    let redis = &shared.redis;
    await_counter(redis, "c.workers_joined", 2);
    let bazel = Bazel::new(binary, "tests/workspace");
    let build =
        bazel.start_remote(&balancer.address, &["build", "--remote_retries=20", "//cpp/..."]);
    await_published(redis, 5);
    let before = workers[0].seat(redis).expect("it has a session");
    stop_a_busy_one(redis, &workers[..1], |_| one.id());
    one.kill();
    await_counter(redis, "c.workers_joined", 3);
    assert_ne!(workers[0].seat(redis), Some(before), "it has gone to the other frontend");
    expect_whole(&bazel, build);
    assert_eq!(counter(redis, "c.workers_joined"), 3, "the other worker stayed where it was");
}

#[test]
fn a_build_survives_the_loss_of_a_worker() {
    let (Some(binary), Some(mut fleet)) = (client("KILN_BAZEL"), Fleet::start()) else { return };
    let bazel = Bazel::new(binary, "tests/workspace");
    let build = bazel.start_remote(&fleet.balancer.address, &["build", "//cpp/..."]);
    let redis = &fleet.shared.redis;
    await_published(redis, 5);
    let counters = || ["c.workers_lost", "c.retries"].map(|name| counter(redis, name));
    assert_eq!(counters(), [0, 0]);
    let victim = stop_a_busy_one(redis, &fleet.workers, Worker::id);
    let held = fleet.workers[victim].leases(redis);
    drop(fleet.workers.remove(victim));
    expect_whole(&bazel, build);
    assert_eq!(counters(), [1, held]);
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

/// Returns how many calls have uploaded blobs to this server so far.
fn uploads(address: &str) -> f64 {
    let calls = |method| metric(address, "kiln_grpc_requests_total", &[("method", method)]);
    calls("Write") + calls("BatchUpdateBlobs")
}

/// Returns how many requests with this method the server has sent to S3 so far.
fn s3(address: &str, method: &str) -> f64 {
    metric(address, "kiln_s3_requests_total", &[("method", method)])
}

#[test]
fn an_index_that_was_lost_is_rebuilt_from_s3() {
    let (Some(binary), Some(shared)) = (client("KILN_BAZEL"), Shared::start()) else { return };
    let server = shared.serve("alone", &[]);
    let bazel = Bazel::new(binary, "tests/workspace");
    let build = ["build", "//cpp:all", "//links/...", "//paths/..."];
    bazel.remote(&server.address, &build).expect_success();
    assert!(uploads(&server.address) > 0.0);
    let written = s3(&server.address, "PUT");
    // The server writes to S3 in the background and has finished that when it ends.
    assert!(server.terminate().success());
    shared.redis.command(&["FLUSHALL"]);
    let index = |what: &str| {
        let mut command = shared.command("unused", &[]);
        let environment: Vec<_> =
            command.get_envs().map(|(k, v)| (k.to_owned(), v.unwrap().to_owned())).collect();
        command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.args(["index", what, "--json", "--redis", &shared.redis.url()]);
        command.args(["--s3", &format!("s3://{}/kiln", shared.weed.bucket())]).envs(environment);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let json = serde_json::from_slice::<Value>(&output.stdout);
        (output.status.code(), json.unwrap_or_else(|_| panic!("{said}")), said)
    };
    let (code, shown, said) = index("show");
    assert_eq!(
        (code, &shown["complete"], count(&shown, "/blobs")),
        (Some(1), &Value::Bool(false), 0)
    );
    assert!(said.contains("kiln index rebuild"), "{said}");
    let (code, rebuilt, _) = index("rebuild");
    assert_eq!(code, Some(0), "{rebuilt}");
    assert!(count(&rebuilt, "/blobs") > 20, "{rebuilt}");
    let (code, shown, _) = index("show");
    assert_eq!((code, &shown["complete"]), (Some(0), &Value::Bool(true)));
    assert_eq!(shown["blobs"], rebuilt["blobs"]);
    assert_eq!(shown["pending"], 0);
    // The results are lost, but the inputs are not. So the client uploads nothing again, and the build runs anew, on
    // a server that has only what the rebuilt index leads to.
    let server = shared.serve("empty", &[]);
    bazel.clean();
    let again = bazel.remote(&server.address, &build).expect_success();
    assert!(again.processes("remote") > 5, "{}", again.text);
    assert_eq!(uploads(&server.address), 0.0, "the client uploads again what the index knows");
    assert!(s3(&server.address, "GET") > 5.0, "inputs are read where the index says");
    assert_eq!(metric(&server.address, "kiln_shared_healed_blobs_total", &[]), 0.0);
    // The server writes to S3 at most the outputs of the actions that ran again.
    let rewritten = s3(&server.address, "PUT");
    assert!(rewritten < written, "{rewritten} objects after {written}");
}
