//! A fleet on a Redis Cluster.

use kiln_test_servers::redis::RedisCluster;

use crate::rig::{Shared, await_published};
use crate::support::bazel::{Bazel, Run};
use crate::support::client;

#[test]
fn a_build_survives_the_loss_of_the_master_that_holds_the_queue() {
    let (Some(binary), Some(mut shared)) = (client("KILN_BAZEL"), Shared::start()) else { return };
    let Some(mut cluster) = RedisCluster::start_with(RedisCluster::MASTERS) else { return };
    shared.redis_url = cluster.url();
    let server = shared.serve("alone", &[]);
    let bazel = Bazel::new(binary, "tests/workspace");
    let arguments = ["build", "--remote_retries=20", "//cpp/..."];
    let build = bazel.start_remote(&server.address, &arguments);
    let owner = (0..RedisCluster::MASTERS)
        .find(|number| holds(&cluster, *number))
        .expect("a master holds the queue");
    await_published(&cluster.masters[owner], 5);
    cluster.fail_over(owner);
    Run::of(build.wait_with_output().expect("Bazel ends")).expect_success();
    bazel.clean();
    let again = bazel.remote(&server.address, &["build", "//cpp/..."]).expect_success();
    assert!(again.processes("remote") <= 2, "what was cached is kept: {}", again.text);
}

/// Returns whether a node holds the queue's key. A node that does not hold a key answers which other one does.
fn holds(cluster: &RedisCluster, number: usize) -> bool {
    let answer = cluster.masters[number].command(&["HGET", "{kiln:queue}:m", "beat"]);
    !answer.starts_with("-MOVED")
}
