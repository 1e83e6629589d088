//! Builds on a Redis that is slow, or that fails over to a replica.

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

/// A fleet whose Redis has a replica. The fleet reaches Redis through the detour, which the test can turn to the
/// replica.
struct Replicated {
    fleet: Fleet,
    replica: RedisServer,
    detour: Detour,
    /// How many finished actions the replica knew of when it was promoted.
    kept: u64,
}

impl Replicated {
    fn start() -> Option<Self> {
        let mut shared = Shared::start()?;
        let port = shared.redis.port().to_string();
        let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port])?;
        replica.wait_until(&["INFO", "replication"], |info| info.contains("link_status:up"));
        let detour = Detour::start(shared.redis.port(), Duration::ZERO);
        shared.redis_url = detour.url();
        Some(Self { fleet: Fleet::over(shared), replica, detour, kept: 0 })
    }

    /// Makes the replica a master, which from then on hears nothing of the old one's writes.
    fn promote(&mut self) {
        assert_eq!(self.replica.command(&["REPLICAOF", "NO", "ONE"]), "OK");
        self.kept = published(&self.replica);
    }

    /// Kills the master and turns its address to the replica. Returns how many finished actions are lost with the
    /// master.
    fn switch(&mut self) -> u64 {
        self.detour.proxy.turn_to(self.replica.port());
        let lost = published(&self.fleet.shared.redis) - self.kept;
        self.fleet.shared.redis.kill();
        lost
    }

    /// Asserts that the build ends and that everything it left is whole. The next build makes again what was lost
    /// with the master after the first build had got its answers, and nothing else. The build after that finds all
    /// results. Both download all outputs and check them.
    fn expect_whole(&self, bazel: &Bazel, build: std::process::Child, lost: u64) {
        Run::of(build.wait_with_output().expect("Bazel ends")).expect_success();
        bazel.clean();
        let address = &self.fleet.balancer.address;
        let test = ["test", "--remote_retries=20", "//cpp/..."];
        let again = bazel.remote(address, &test).expect_success();
        let most = lost + SLOTS + OF_THE_TEST;
        let made = again.processes("remote") as u64;
        assert!(made <= most, "{lost} were lost, and {made} made again\n{}", again.text);
        bazel.clean();
        let again = bazel.remote(address, &["build", "//cpp/..."]).expect_success();
        assert_eq!(again.processes("remote"), 0, "{}", again.text);
    }
}

/// How many actions the workers run at the same time. As many may be about to be published when the master is lost.
const SLOTS: u64 = 4;
/// How many actions a test has that no build runs: the test itself, and the one that makes its report.
const OF_THE_TEST: u64 = 2;
const BUILD: [&str; 3] = ["build", "--remote_retries=20", "//cpp/..."];

#[test]
fn a_build_survives_a_failover_to_a_replica() {
    let (Some(binary), Some(mut all)) = (client("KILN_BAZEL"), Replicated::start()) else { return };
    let bazel = Bazel::new(binary, "tests/workspace");
    let build = bazel.start_remote(&all.fleet.balancer.address, &BUILD);
    await_published(&all.fleet.shared.redis, 5);
    all.promote();
    let lost = all.switch();
    all.expect_whole(&bazel, build, lost);
}

#[test]
fn a_build_survives_a_failover_that_takes_the_last_writes_back() {
    let (Some(binary), Some(mut all)) = (client("KILN_BAZEL"), Replicated::start()) else { return };
    let bazel = Bazel::new(binary, "tests/workspace");
    let build = bazel.start_remote(&all.fleet.balancer.address, &BUILD);
    await_published(&all.fleet.shared.redis, 5);
    all.promote();
    await_published(&all.fleet.shared.redis, all.kept + 5);
    let lost = all.switch();
    let deadline = Instant::now() + WITHIN;
    while published(&all.replica) <= all.kept {
        assert!(Instant::now() < deadline, "nothing is published after the failover");
        kiln_test_servers::pause();
    }
    all.expect_whole(&bazel, build, lost);
}
