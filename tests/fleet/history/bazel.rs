//! Bazel executes a build's actions at a server and sends the same server its build events.

use std::path::PathBuf;

use super::seen::{attempts, await_attempts, texts};
use crate::support::bazel::{Bazel, Run};
use crate::support::client;
use crate::support::server::Server;

/// Two tests of the workspace that end by themselves, unlike `slow_test`.
const SHARDED: &str = "//flaky:sharded_test";
const FAILING: &str = "//flaky:failing_test";

struct Rig {
    bazel: Bazel,
    server: Server,
    _data: tempfile::TempDir,
}

impl Rig {
    fn new(binary: PathBuf) -> Self {
        let data = tempfile::tempdir().unwrap();
        let server = Server::start(data.path(), &[]);
        Self { bazel: Bazel::new(binary, "tests/workspace"), server, _data: data }
    }

    fn test(&self, more: &[&str]) -> Run {
        let backend = format!("--bes_backend=grpc://{}", self.server.address);
        let mut arguments = vec!["test", &backend, "--keep_going"];
        arguments.extend(more);
        let run = self.bazel.remote(&self.server.address, &arguments);
        assert!(!run.text.contains("Build Event Protocol upload failed"), "{}", run.text);
        run
    }
}

fn is_joined(source: &str) -> bool {
    source == "executed+reported"
}

fn executions_and_events_are_one_history(rig: &Rig) {
    let run = rig.test(&["--build_metadata=COMMIT_SHA=c0ffee", SHARDED, FAILING]);
    assert_eq!(run.code, 3, "{}", run.text);
    let address = &rig.server.address;
    let shards =
        await_attempts(address, SHARDED, 6, |it| is_joined(it["source"].as_str().unwrap()));
    let numbers: Vec<_> = shards.iter().map(|it| it["shard"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    for shard in &shards {
        assert_eq!(
            (&shard["outcome"], &shard["shards"]),
            (&"passed".into(), &6.into()),
            "{shard:#}"
        );
        assert_eq!((&shard["run"], &shard["attempt"]), (&1.into(), &1.into()), "{shard:#}");
        assert!(
            shard["duration_ms"].as_u64().is_some() && shard["action"].is_object(),
            "{shard:#}"
        );
        assert!(!shard["worker"].as_str().unwrap().is_empty(), "{shard:#}");
    }
    let failed =
        await_attempts(address, FAILING, 1, |it| is_joined(it["source"].as_str().unwrap()));
    assert_eq!(texts(&failed, "outcome"), ["failed"]);
    assert!(failed[0]["log"].is_object(), "{failed:#?}");
}

/// A test that is answered from the cache was run for another build, so it counts as no new attempt.
fn what_is_cached_is_no_attempt(rig: &Rig) {
    rig.bazel.clean();
    let run = rig.test(&[SHARDED]).expect_success();
    assert_eq!(run.processes("remote"), 0, "{}", run.text);
    assert!(run.processes("remote cache hit") >= 6, "{}", run.text);
    // When Bazel has ended, all events of the build are on the disk.
    assert_eq!(attempts(&rig.server.address, SHARDED).len(), 6);
}

/// A retry is an attempt of its own, although its action is the same.
fn retries_are_attempts(rig: &Rig) {
    let before = attempts(&rig.server.address, FAILING).len();
    let run = rig.test(&["--flaky_test_attempts=3", "--nocache_test_results", FAILING]);
    assert_eq!(run.code, 3, "{}", run.text);
    let all = await_attempts(&rig.server.address, FAILING, before + 3, |it| {
        is_joined(it["source"].as_str().unwrap())
    });
    let newest = all.iter().map(|it| it["invocation_id"].as_str().unwrap());
    let mut builds: Vec<_> = newest.collect();
    builds.sort_unstable();
    builds.dedup();
    assert_eq!(builds.len(), 2);
    let mut numbers: Vec<_> = all.iter().map(|it| it["attempt"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 1, 2, 3]);
}

/// The server knows of tests that ran elsewhere only from the client's build events.
fn what_ran_at_the_client_is_told_by_it(rig: &Rig) {
    let before = attempts(&rig.server.address, FAILING).len();
    let run = rig.test(&["--spawn_strategy=local", "--nocache_test_results", FAILING]);
    assert_eq!(run.code, 3, "{}", run.text);
    let all = attempts(&rig.server.address, FAILING);
    assert_eq!(all.len(), before + 1);
    assert_eq!(all.iter().filter(|it| it["source"] == "reported").count(), 1);
}

fn all_of(variable: &str) {
    let Some(binary) = client(variable) else { return };
    let rig = Rig::new(binary);
    executions_and_events_are_one_history(&rig);
    what_is_cached_is_no_attempt(&rig);
    retries_are_attempts(&rig);
    what_ran_at_the_client_is_told_by_it(&rig);
}

#[test]
fn bazel_4_makes_history() {
    all_of("KILN_BAZEL");
}
