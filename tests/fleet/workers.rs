//! The connection of a worker breaks, or its frontend is lost.

use std::time::{Duration, Instant};

use kiln_protos::reapi::ExecuteResponse;
use kiln_test_servers::redis::RedisServer;
use kiln_test_servers::slow::Way;

use crate::rig::{Detour, Shared, WITHIN, Worker, await_status, count};
use crate::support::reapi::{Client, Spec, output_text};
use crate::support::server::Server;

/// Returns a script that prints a fresh random id, so that two runs differ. In between it sleeps for `nap` seconds, a
/// number by which the test finds the process.
fn long(nap: &str) -> String {
    format!("cat /proc/sys/kernel/random/uuid > out; sleep {nap}; cat out")
}

/// Waits until the script of [`long`] sleeps.
fn await_nap(nap: &str) {
    let deadline = Instant::now() + WITHIN;
    let naps = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.starts_with(b"sleep\0") && line.ends_with(format!("{nap}\0").as_bytes())
    };
    while !std::fs::read_dir("/proc").expect("it is there").flatten().any(naps) {
        assert!(Instant::now() < deadline, "nothing sleeps");
        kiln_test_servers::pause();
    }
}

fn port(server: &Server) -> u16 {
    server.address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

fn dispatched(redis: &RedisServer) -> u64 {
    redis.command(&["HGET", "{kiln:queue}:m", "c.dispatched"]).parse().unwrap_or(0)
}

fn await_dispatched(redis: &RedisServer, leases: u64) {
    let deadline = Instant::now() + WITHIN;
    while dispatched(redis) < leases {
        assert!(Instant::now() < deadline, "{leases} leases are not given");
        kiln_test_servers::pause();
    }
}

fn through(detour: &Detour) -> String {
    format!("http://127.0.0.1:{}", detour.proxy.port())
}

/// Runs the script of [`long`] for a client of `frontend`. The thread returns the action's stdout and the response.
fn execute(
    frontend: &Server,
    nap: &'static str,
) -> std::thread::JoinHandle<(String, ExecuteResponse)> {
    let url = frontend.url();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let client = Client::connect(&url).await;
            let response =
                client.execute(&Spec::shell(&long(nap), &["out"])).await.expect("an answer");
            let result = response.result.clone().expect("a result");
            (output_text(&client, &result).await.0, response)
        })
    })
}

#[test]
fn what_runs_outlives_the_frontend_of_its_worker() {
    let Some(shared) = Shared::start() else { return };
    let (one, two) = (shared.frontend("one"), shared.frontend("two"));
    let detour = Detour::start(port(&one), Duration::ZERO);
    let _worker = shared.worker("w", &through(&detour));
    await_status(&two.address, "the worker", |status| count(status, "/workers") == 1);
    let nap = "5.031";
    let execution = execute(&two, nap);
    await_nap(nap);
    detour.proxy.turn_to(port(&two));
    one.kill();
    let (stdout, response) = execution.join().expect("it ends well");
    assert_eq!(response.result.expect("a result").exit_code, 0);
    assert_eq!(stdout.len(), 37, "{stdout}");
    assert_eq!(dispatched(&shared.redis), 1, "it ran once");
}

#[test]
fn what_runs_outlives_a_connection() {
    let Some(shared) = Shared::start() else { return };
    let one = shared.frontend("one");
    let detour = Detour::start(port(&one), Duration::ZERO);
    let _worker = shared.worker("w", &through(&detour));
    await_status(&one.address, "the worker", |status| count(status, "/workers") == 1);
    let nap = "5.032";
    let execution = execute(&one, nap);
    await_nap(nap);
    detour.proxy.cut(Way::Through);
    let (_, response) = execution.join().expect("it ends well");
    assert_eq!(response.result.expect("a result").exit_code, 0);
    assert_eq!(dispatched(&shared.redis), 1, "it ran once");
}

#[test]
fn a_worker_that_was_cut_off_publishes_nothing_over_its_successor_and_serves_again() {
    let Some(shared) = Shared::start() else { return };
    let one = shared.frontend("one");
    let detour = Detour::start(port(&one), Duration::ZERO);
    // The worker's transfers give up soon, so that the test need not wait for them.
    let absence = [("KILN_WORKERS_ABSENCE", "4s")];
    let place = shared.dir.path().join("first");
    let first = Worker::start(&through(&detour), &place, "first", &absence);
    await_status(&one.address, "the worker", |status| count(status, "/workers") == 1);
    let nap = "5.033";
    let execution = execute(&one, nap);
    await_nap(nap);
    detour.proxy.cut(Way::Refused);
    let second = shared.worker("second", &one.url());
    await_dispatched(&shared.redis, 2);
    let (stdout, response) = execution.join().expect("it ends well");
    let metadata = response.result.expect("a result").execution_metadata.expect("metadata");
    assert!(metadata.worker.ends_with(&second.id().to_string()), "{}", metadata.worker);
    detour.proxy.cut(Way::Through);
    drop(second);
    await_status(&one.address, "the first worker alone", |status| count(status, "/workers") == 1);
    // The published result is that of the second worker, and the first one takes new actions.
    let again = execute(&one, nap).join().expect("it ends well");
    assert!(again.1.cached_result, "published once");
    assert_eq!(again.0, stdout);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let fresh = runtime.block_on(async {
        let client = Client::connect(&one.url()).await;
        client.execute(&Spec::shell("echo new > out", &["out"])).await.expect("an answer")
    });
    let metadata = fresh.result.expect("a result").execution_metadata.expect("metadata");
    assert!(metadata.worker.ends_with(&first.id().to_string()), "{}", metadata.worker);
}
