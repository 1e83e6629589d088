//! Builds on a Redis that is slow, or fails over to a replica.

use std::time::{Duration, Instant};

use kiln_test_servers::redis::RedisServer;

use crate::rig::{Detour, Fleet, Shared, WITHIN, await_published, published};
use crate::support::bazel::{Bazel, Run};
use crate::support::client;

#[test]
fn a_redis_that_takes_200_ms_for_a_call_costs_time_only() {
    let (Some(binary), Some(mut shared)) = (client("KILN_BAZEL"), Shared::start()) else { return };
    let detour = Detour::start(shared.redis.port(), Duration::from_millis(100));
    shared.redis_url = detour.url();
    let server = shared.serve("alone", &[]);
    let bazel = Bazel::new(binary, "tests/workspace");
    let build = ["build", "//paths/...", "//links/..."];
    let first = bazel.remote(&server.address, &build).expect_success();
    assert!(first.processes("remote") > 3, "{}", first.text);
    bazel.clean();
    let again = bazel.remote(&server.address, &build).expect_success();
    assert_eq!(again.processes("remote"), 0, "{}", again.text);
}

/// A fleet whose Redis has a replica, and reaches Redis where the detour leads.
struct Replicated {
    fleet: Fleet,
    replica: RedisServer,
    detour: Detour,
}

impl Replicated {
    fn start() -> Option<Self> {
        let mut shared = Shared::start()?;
        let port = shared.redis.port().to_string();
        let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port])?;
        replica.wait_until(&["INFO", "replication"], |info| info.contains("link_status:up"));
        let detour = Detour::start(shared.redis.port(), Duration::ZERO);
        shared.redis_url = detour.url();
        Some(Self { fleet: Fleet::over(shared), replica, detour })
    }

    fn promote(&self) {
        assert_eq!(self.replica.command(&["REPLICAOF", "NO", "ONE"]), "OK");
    }

    /// The master is lost, and its address leads to the replica.
    fn switch(&mut self) {
        self.fleet.shared.redis.kill();
        self.detour.proxy.turn_to(self.replica.port());
    }

    /// The build ends, and everything that it left is whole: another one without anything of the
    /// first finds all results, downloads all outputs and checks them.
    fn expect_whole(&self, bazel: &Bazel, build: std::process::Child) {
        Run::of(build.wait_with_output().expect("Bazel ends")).expect_success();
        bazel.clean();
        let address = &self.fleet.balancer.address;
        let test = ["test", "--remote_retries=20", "//cpp:all_test"];
        bazel.remote(address, &test).expect_success();
        bazel.clean();
        let again = bazel.remote(address, &["build", "//cpp/..."]).expect_success();
        assert_eq!(again.processes("remote"), 0, "{}", again.text);
    }
}

const BUILD: [&str; 3] = ["build", "--remote_retries=20", "//cpp/..."];

#[test]
fn a_build_survives_a_failover_to_a_replica() {
    let (Some(binary), Some(mut all)) = (client("KILN_BAZEL"), Replicated::start()) else { return };
    let bazel = Bazel::new(binary, "tests/workspace");
    let build = bazel.start_remote(&all.fleet.balancer.address, &BUILD);
    await_published(&all.fleet.shared.redis, 5);
    all.promote();
    all.switch();
    all.expect_whole(&bazel, build);
}

#[test]
fn a_build_survives_a_failover_that_takes_the_last_writes_back() {
    let (Some(binary), Some(mut all)) = (client("KILN_BAZEL"), Replicated::start()) else { return };
    let bazel = Bazel::new(binary, "tests/workspace");
    let build = bazel.start_remote(&all.fleet.balancer.address, &BUILD);
    await_published(&all.fleet.shared.redis, 5);
    // From now on the replica hears of nothing.
    all.promote();
    let kept = published(&all.replica);
    await_published(&all.fleet.shared.redis, kept + 5);
    all.switch();
    let deadline = Instant::now() + WITHIN;
    while published(&all.replica) <= kept {
        assert!(Instant::now() < deadline, "nothing is published after the failover");
        kiln_test_servers::pause();
    }
    all.expect_whole(&bazel, build);
}
