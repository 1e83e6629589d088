//! Workers lose their connection to the fleet while they run something.

use std::time::Duration;

use kiln_test_servers::slow::Way;

use crate::rig::{
    Asked, Detour, NETWORK, Shared, Worker, answer, await_counter, await_status, count, counter,
    expect_answer,
};
use crate::support::balancer::Balancer;
use crate::support::bazel::Bazel;
use crate::support::client;
use crate::support::server::Server;

#[test]
fn what_a_worker_runs_is_not_run_again_when_its_frontend_is_killed() {
    let (Some(binary), Some(shared)) = (client("KILN_BAZEL"), Shared::start()) else { return };
    let [one, two] = ["one", "two"].map(|name| shared.frontend(name));
    let balancer = Balancer::start(vec![one.address.clone(), two.address.clone()]);
    let servers = [one.url(), two.url()].join(",");
    let _worker = Worker::start(&servers, &shared.dir.path().join("w"), "w", &[NETWORK]);
    await_counter(&shared.redis, "c.workers_joined", 1);
    let (asked, bazel) = (Asked::start(), Bazel::new(binary, "tests/workspace"));
    let build = asked.build(&bazel, &balancer.address);
    let run = asked.next_run();
    one.kill();
    await_counter(&shared.redis, "c.workers_joined", 2);
    answer(run, "the only run");
    expect_answer(&bazel, build, "the only run");
    asked.expect_no_more();
    assert_eq!(counter(&shared.redis, "c.dispatched"), 1);
    assert_eq!(counter(&shared.redis, "c.retries"), 0);
    drop(two);
}

#[test]
fn a_worker_that_was_cut_off_answers_too_late_and_serves_again() {
    let (Some(binary), Some(shared)) = (client("KILN_BAZEL"), Shared::start()) else { return };
    let frontend = shared.frontend("one");
    let detour = Detour::start(port(&frontend), Duration::ZERO);
    let far = format!("http://127.0.0.1:{}", detour.proxy.port());
    let _far = Worker::start(&far, &shared.dir.path().join("far"), "far", &[NETWORK]);
    await_counter(&shared.redis, "c.workers_joined", 1);
    let (asked, bazel) = (Asked::start(), Bazel::new(binary, "tests/workspace"));
    let build = asked.build(&bazel, &frontend.address);
    let first = asked.next_run();
    let near = Worker::start(&frontend.url(), &shared.dir.path().join("near"), "near", &[NETWORK]);
    await_counter(&shared.redis, "c.workers_joined", 2);
    detour.proxy.cut(Way::Refused);
    // The first worker's lease has ended, so the action runs anew on the other worker.
    let second = asked.next_run();
    answer(first, "too late");
    detour.proxy.set(Way::Through);
    await_counter(&shared.redis, "c.workers_joined", 3);
    await_counter(&shared.redis, "c.stale_results", 1);
    assert_eq!(counter(&shared.redis, "c.published"), 0);
    answer(second, "in time");
    expect_answer(&bazel, build, "in time");
    assert_eq!(counter(&shared.redis, "c.dispatched"), 2);
    drop(near);
    await_status(&frontend.address, "one worker", |status| count(status, "/workers") == 1);
    // The new server has another port, which makes this another action.
    let asked = Asked::start();
    let build = asked.build(&bazel, &frontend.address);
    answer(asked.next_run(), "served again");
    expect_answer(&bazel, build, "served again");
}

fn port(server: &Server) -> u16 {
    let (_, port) = server.address.rsplit_once(':').unwrap();
    port.parse().unwrap()
}
