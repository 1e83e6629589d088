//! docs/sharding.md with real Bazel: the tests have twelve cases and ask Kiln to run them in four parts.

#![allow(clippy::panic)]

use crate::support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::bazel::{Bazel, Run};
use support::client;
use support::server::{self, Server, get_json};

/// A server with one slot for each part, and the Bazel that uses it.
struct Rig {
    bazel: Bazel,
    server: Server,
    _data: tempfile::TempDir,
}

impl Rig {
    fn test(&self, target: &str, more: &[&str]) -> Run {
        let mut arguments = vec!["test", target];
        arguments.extend(more);
        self.bazel.remote(&self.server.address, &arguments)
    }

    fn output(&self, target: &str, name: &str) -> Vec<u8> {
        let path = self.bazel.testlogs().join("fanout").join(target).join(name);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Returns the names of the cases in the target's test report, in their order there.
    fn cases(&self, target: &str) -> Vec<String> {
        let report = String::from_utf8(self.output(target, "test.xml")).expect("UTF-8");
        let names = report.split("name=\"case").skip(1);
        let name = |rest: &str| rest.split('"').next().map(str::to_owned);
        names.filter_map(name).collect()
    }

    /// Returns the executions of a target, newest first: of each the number of its part, or 0 for the whole test, and
    /// its exit code.
    fn runs(&self, target: &str) -> Vec<(u64, i64)> {
        let path = format!("/api/v1/executions?target=//fanout:{target}&limit=100");
        let executions = get_json(&self.server.address, &path);
        let executions = executions["executions"].as_array().expect("executions").clone();
        let is_run = |run: &&Value| run["origin"] == "executed" && run["mnemonic"] == "TestRunner";
        let number = |run: &Value| {
            let number = run["shard"]["number"].as_u64().unwrap_or(0);
            (number, run["exit_code"].as_i64().unwrap_or(-1))
        };
        executions.iter().filter(is_run).map(number).collect()
    }
}

/// How long the history may take to have what ran.
const WITHIN: Duration = Duration::from_secs(60);

impl Rig {
    /// Waits until the history has four parts of a target. Returns how many attempts there are, and of each part its number
    /// and how many cases it ran.
    fn in_history(&self, target: &str) -> (usize, BTreeSet<(u64, usize)>) {
        let length = |of: &Value| of.as_array().map_or(0, Vec::len);
        let start = Instant::now();
        loop {
            let listed =
                get_json(&self.server.address, &format!("/api/v1/tests?q=fanout:{target}"));
            if let Some(id) = listed["tests"][0]["id"].as_str() {
                let test = get_json(&self.server.address, &format!("/api/v1/tests/{id}"));
                if length(&test["parts"]) >= 4 && length(&test["attempts"]) > 0 {
                    let parts = test["parts"].as_array().expect("parts").iter();
                    let part = |it: &Value| {
                        assert_eq!(it["shards"], 4, "{it}");
                        (it["shard"].as_u64().unwrap_or(0), length(&it["cases"]))
                    };
                    return (length(&test["attempts"]), parts.map(part).collect());
                }
            }
            assert!(start.elapsed() < WITHIN, "not in the history: {listed}");
            kiln_test_servers::pause();
        }
    }
}

fn all_cases() -> BTreeSet<String> {
    (0..12).map(|case| case.to_string()).collect()
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let done = work();
    (start.elapsed(), done)
}

#[test]
fn a_test_in_parts_is_the_same_test_sooner() {
    let Some(binary) = client("KILN_BAZEL") else { return };
    let data = tempfile::tempdir().expect("a temporary directory");
    let command = server::command("127.0.0.1:0", data.path(), &["--workers", "4"]);
    let server = Server::spawn(command, data.path());
    let rig = Rig { bazel: Bazel::new(binary, "tests/workspace"), server, _data: data };

    // This build does Bazel's preparations for both tests, so that neither measurement contains them.
    rig.bazel.remote(&rig.server.address, &["build", "//fanout:all"]).expect_success();
    let (whole, run) = timed(|| rig.test("//fanout:whole_test", &[]));
    run.expect_success();
    let (parts, run) = timed(|| rig.test("//fanout:suite_test", &[]));
    run.expect_success();
    println!("whole {whole:?}, in four parts {parts:?}");
    // The four parts need three of the whole test's twelve seconds. The rest of the measured time is Bazel's own.
    assert!(parts + Duration::from_secs(6) < whole, "{parts:?} of {whole:?}");
    let cases = rig.cases("suite_test");
    assert_eq!(cases.len(), 12, "{cases:?}");
    assert_eq!(cases.into_iter().collect::<BTreeSet<_>>(), all_cases());
    let log = String::from_utf8(rig.output("suite_test", "test.log")).expect("UTF-8");
    assert!(log.contains("==== kiln: shard 4 of 4, exit code 0 ===="), "{log}");
    let zip = rig.output("suite_test", "test.outputs/outputs.zip");
    let names = String::from_utf8_lossy(&zip).matches("case-").count();
    assert_eq!(names, 24, "each file has a header of its own and one in the directory");
    let mut numbers: Vec<_> =
        rig.runs("suite_test").into_iter().map(|(number, _)| number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    let expected = BTreeSet::from([(1, 3), (2, 3), (3, 3), (4, 3)]);
    assert_eq!(rig.in_history("suite_test"), (1, expected), "each part beside what counts");
    rig.bazel.clean();
    let cached = rig.test("//fanout:suite_test", &[]).expect_success();
    assert!(cached.text.contains("cached"), "{}", cached.text);

    rig.test("//fanout:ignoring_test", &[]).expect_success();
    assert_eq!(rig.cases("ignoring_test").len(), 12);
    rig.test("//fanout:ignoring_test", &["--nocache_test_results"]).expect_success();
    let runs = rig.runs("ignoring_test");
    let parts = runs.iter().filter(|(number, _)| *number > 0).count();
    assert_eq!((runs.len(), parts), (6, 4), "it is not asked again: {runs:?}");

    let failed = rig.test("//fanout:failing_test", &[]);
    assert_eq!(failed.code, 3, "{}", failed.text);
    assert!(failed.text.contains("shard 4 of 4, exit code 3"), "{}", failed.text);
    let cases = rig.cases("failing_test");
    assert_eq!(cases.into_iter().collect::<BTreeSet<_>>(), all_cases());
}
