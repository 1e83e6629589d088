//! Workers are told to end while they run something.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kiln_test_servers::redis::RedisServer;

use crate::rig::{
    Asked, NETWORK, Shared, WITHIN, Worker, answer, await_counter, await_status, counter,
    expect_answer,
};
use crate::support::bazel::Bazel;
use crate::support::client;
use crate::support::server::get_json;

const SHORT_DRAIN: (&str, &str) = ("KILN_WORKERS_DRAIN", "1s");

fn await_draining(address: &str) {
    let deadline = Instant::now() + WITHIN;
    let draining = || {
        let workers = get_json(address, "/api/v1/workers");
        workers["workers"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one["draining"] == true))
    };
    while !draining() {
        assert!(Instant::now() < deadline, "no worker drains");
        kiln_test_servers::pause();
    }
}

fn expect_counters(redis: &RedisServer, expected: &[(&str, u64)]) {
    for (name, value) in expected {
        assert_eq!(counter(redis, name), *value, "{name}");
    }
}

#[test]
fn a_worker_that_is_told_to_end_finishes_what_it_runs() {
    let (Some(binary), Some(shared)) = (client("KILN_BAZEL"), Shared::start()) else { return };
    let frontend = shared.frontend("one");
    // KILN_SERVER_DRAIN is for a server and the workers inside it. It must not shorten the drain of a worker of its
    // own.
    let environment = [NETWORK, ("KILN_SERVER_DRAIN", "1s")];
    let start = |name: &str| {
        Worker::start(&frontend.url(), &shared.dir.path().join(name), name, &environment)
    };
    let mut busy = start("busy");
    await_counter(&shared.redis, "c.workers_joined", 1);
    let (asked, bazel) = (Asked::start(), Bazel::new(binary, "tests/workspace"));
    let build = asked.build(&bazel, &frontend.address);
    let run = asked.next_run();
    let _idle = start("idle");
    await_counter(&shared.redis, "c.workers_joined", 2);
    assert_eq!(busy.leases(&shared.redis), 1);
    busy.signal("TERM");
    await_draining(&frontend.address);
    asked.expect_no_more_within(Duration::from_secs(4));
    assert!(busy.is_running(), "it did not wait for its action");
    answer(run, "finished where it began");
    assert_eq!(busy.ended(), Some(0));
    expect_answer(&bazel, build, "finished where it began");
    asked.expect_no_more();
    let none = [("c.retries", 0), ("c.workers_lost", 0), ("c.returned", 0)];
    expect_counters(&shared.redis, &none);
    expect_counters(&shared.redis, &[("c.dispatched", 1), ("c.published", 1)]);
}

#[test]
fn an_operator_drains_a_worker_that_is_connected_elsewhere() {
    let (Some(binary), Some(shared)) = (client("KILN_BAZEL"), Shared::start()) else { return };
    let (here, there) = (shared.frontend("here"), shared.frontend("there"));
    let data = shared.dir.path().join("w");
    let mut worker = Worker::start(&there.url(), &data, "w", &[NETWORK]);
    await_counter(&shared.redis, "c.workers_joined", 1);
    let (asked, bazel) = (Asked::start(), Bazel::new(binary, "tests/workspace"));
    let build = asked.build(&bazel, &here.address);
    let run = asked.next_run();
    let workers = get_json(&here.address, "/api/v1/workers");
    let name = workers["workers"][0]["id"].as_str().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.args(["worker", "drain", name, "--wait", "--server", &here.url()]);
    let waits = command.stdout(Stdio::piped()).spawn().unwrap();
    await_draining(&here.address);
    await_draining(&there.address);
    assert!(worker.is_running(), "it did not wait for its action");
    answer(run, "finished where it began");
    assert_eq!(worker.ended(), Some(0));
    let told = waits.wait_with_output().unwrap();
    assert!(told.status.success());
    let told = String::from_utf8_lossy(&told.stdout);
    assert!(told.contains("what runs on 1 slot") && told.contains("is gone"), "{told}");
    expect_answer(&bazel, build, "finished where it began");
    expect_counters(&shared.redis, &[("c.dispatched", 1), ("c.published", 1), ("c.returned", 0)]);
}

#[test]
fn an_action_that_meets_more_drains_than_retries_ends_well() {
    const DRAINS: u64 = 5;
    let (Some(binary), Some(shared)) = (client("KILN_BAZEL"), Shared::start()) else { return };
    let frontend = shared.frontend("one");
    let start = |number: u64| {
        let name = format!("w{number}");
        let data = shared.dir.path().join(&name);
        let worker = Worker::start(&frontend.url(), &data, &name, &[NETWORK, SHORT_DRAIN]);
        await_counter(&shared.redis, "c.workers_joined", number + 1);
        worker
    };
    let mut current = start(0);
    let (asked, bazel) = (Asked::start(), Bazel::new(binary, "tests/workspace"));
    let build = asked.build(&bazel, &frontend.address);
    let mut run = asked.next_run();
    for number in 1..=DRAINS {
        let next = start(number);
        assert_eq!(current.leases(&shared.redis), 1);
        current.signal("TERM");
        // The action runs again as soon as the worker has given its lease back, without a pause before the retry.
        run = asked.next_run();
        assert_eq!(current.ended(), Some(0));
        current = next;
    }
    answer(run, "in the end");
    expect_answer(&bazel, build, "in the end");
    asked.expect_no_more();
    expect_counters(&shared.redis, &[("c.retries", 0), ("c.workers_lost", 0)]);
    expect_counters(&shared.redis, &[("c.returned", DRAINS), ("c.dispatched", DRAINS + 1)]);
    let record = || get_json(&frontend.address, "/api/v1/executions")["executions"][0].clone();
    await_status(&frontend.address, "its record", |_| !record().is_null());
    assert_eq!(record()["attempts"], 1, "{:#}", record());
}

#[test]
fn a_server_that_ends_gives_back_what_its_own_workers_run() {
    let (Some(binary), Some(shared)) = (client("KILN_BAZEL"), Shared::start()) else { return };
    let frontend = shared.frontend("stays");
    let mut command = shared.command("goes", &["--workers", "1"]);
    command.envs([NETWORK, ("KILN_SERVER_DRAIN", "1s")]);
    let goes = shared.spawn(command, "goes");
    await_counter(&shared.redis, "c.workers_joined", 1);
    let (asked, bazel) = (Asked::start(), Bazel::new(binary, "tests/workspace"));
    let build = asked.build(&bazel, &frontend.address);
    let _first = asked.next_run();
    let _worker = Worker::start(&frontend.url(), &shared.dir.path().join("w"), "w", &[NETWORK]);
    await_counter(&shared.redis, "c.workers_joined", 2);
    assert!(goes.terminate().success());
    answer(asked.next_run(), "at the other one");
    expect_answer(&bazel, build, "at the other one");
    expect_counters(&shared.redis, &[("c.retries", 0), ("c.workers_lost", 0), ("c.returned", 1)]);
}

#[test]
fn a_second_signal_ends_a_worker_at_once() {
    let (Some(binary), Some(shared)) = (client("KILN_BAZEL"), Shared::start()) else { return };
    let frontend = shared.frontend("one");
    let (data, log) = (shared.dir.path().join("w"), shared.dir.path().join("log"));
    let mut worker = Worker::start_logged(&frontend.url(), &data, "w", &[NETWORK], &log);
    await_counter(&shared.redis, "c.workers_joined", 1);
    let (asked, bazel) = (Asked::start(), Bazel::new(binary, "tests/workspace"));
    let build = asked.build(&bazel, &frontend.address);
    let first = asked.next_run();
    worker.signal("TERM");
    await_draining(&frontend.address);
    let begun = Instant::now();
    // The worker takes signals within 200 ms of the first one for the same wish, so the test goes on sending them.
    while worker.is_running() {
        worker.signal("TERM");
    }
    assert_eq!(worker.ended(), Some(5));
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    let said = std::fs::read_to_string(&log).unwrap();
    for words in ["draining; a second signal ends at once", "ended before the drain was over"] {
        assert!(said.contains(words), "{said}");
    }
    // The worker has left no process behind, and the fleet counts it as lost, like a worker that is killed.
    expect_closed(first);
    let _next = Worker::start(&frontend.url(), &shared.dir.path().join("n"), "n", &[NETWORK]);
    answer(asked.next_run(), "after all");
    expect_answer(&bazel, build, "after all");
    expect_counters(&shared.redis, &[("c.retries", 1), ("c.workers_lost", 1), ("c.returned", 0)]);
}

/// Asserts that the action at the other end of the connection has ended.
fn expect_closed(mut run: TcpStream) {
    run.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    match run.read(&mut [0; 64]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}: it still runs"),
    }
}
