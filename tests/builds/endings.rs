//! Real Bazel is held against docs/endings.md, row by row: what it shows of each way in which an action ends, and how
//! often the action runs for that.

#![allow(clippy::panic)]

use crate::support;

use support::bazel::{Bazel, Run};
use support::client;
use support::server::{self, Server, get_json};

/// Returns what Bazel printed about a genrule that failed, from the line with its name up to the next message.
fn told<'a>(run: &'a Run, name: &str) -> &'a str {
    let head = format!("//endings:{name} failed");
    let begin = run.text.find(&head).unwrap_or_else(|| panic!("{name} did not fail: {}", run.text));
    let rest = &run.text[begin..];
    let ends = ["\nERROR: ", "\nINFO: ", "\nTarget "];
    let end = ends.iter().filter_map(|end| rest.find(end)).min().unwrap_or(rest.len());
    &rest[..end]
}

/// Asserts that Bazel reports the failure of a genrule with all of `words` and a link to its page. `how` is Bazel's
/// wording of the exit code.
fn failed_with(run: &Run, name: &str, how: &str, words: &[&str]) {
    let told = told(run, name);
    assert!(told.contains(&format!("({how})")), "{name}: {told}");
    for words in words {
        assert!(told.contains(words), "{name} lacks {words:?}: {told}");
    }
    assert!(told.contains("/actions/sha256/"), "{name} lacks the link: {told}");
}

/// Returns how many executions of the target the server's journal lists.
fn runs(server: &Server, target: &str) -> usize {
    let executions = get_json(&server.address, "/api/v1/executions?limit=200");
    let executions = executions["executions"].as_array().expect("executions");
    let label = format!("//endings:{target}");
    executions.iter().filter(|run| run["target_id"] == label.as_str()).count()
}

#[test]
fn whatever_an_action_does_is_its_outcome_once() {
    let Some(binary) = client("KILN_BAZEL") else { return };
    let data = tempfile::tempdir().expect("a temporary directory");
    let mut command = server::command("127.0.0.1:0", data.path(), &["--workers", "2"]);
    command
        .env("KILN_WORKERS_DISK", "128MiB")
        .env("KILN_WORKERS_PROCESSES", "100")
        .env("KILN_WORKERS_OUTPUT", "512KiB")
        .env("KILN_SCHEDULER_WORKER_GRACE", "1s");
    let server = Server::spawn(command, data.path());
    let bazel = Bazel::new(binary, "tests/workspace");
    let build = ["build", "-k", "//endings:all"];
    let run = bazel.remote(&server.address, &build);
    // Bazel ends with 34 because Kiln could not execute some of the actions at all.
    assert_eq!(run.code, 34, "{}", run.text);

    failed_with(&run, "fails", "Exit 7", &["its own words"]);
    failed_with(&run, "signalled", "Segmentation fault", &[]);
    failed_with(&run, "absent", "Exit 127", &["/no/such/program"]);
    let limit = "kiln: the action met a limit of its worker: ";
    failed_with(&run, "disk", "Exit 1", &[limit, "disk: ", "workers.disk"]);
    failed_with(&run, "talks", "Exit 5", &["workers.output"]);
    // Bazel prints what actions wrote to stdout separately from its own lines.
    let mut rest = run.text.as_str();
    for words in ["the first words\n", "bytes are left out here", "the last words\n"] {
        let found = rest.find(words).unwrap_or_else(|| panic!("no {words:?} in its turn"));
        rest = &rest[found..];
    }
    failed_with(&run, "talks_for_ever", "Killed", &[limit, "output: ", "workers.output"]);
    failed_with(&run, "a_directory", "Exit 1", &["kiln: output", "is a directory"]);
    failed_with(&run, "a_pipe", "Exit 1", &["kiln: output", "a named pipe"]);
    failed_with(&run, "holes", "Exit 1", &["kiln: the outputs have more than", "of holes"]);
    failed_with(&run, "many", "Exit 1", &["kiln: the outputs are 20000", "in one answer"]);
    for name in ["nothing_offered", "an_image", "the_network"] {
        failed_with(&run, name, "Exit 34", &["Failed Precondition: the action can run nowhere: "]);
    }
    for name in ["closed", "talks_and_ends_well"] {
        assert!(!run.text.contains(&format!("//endings:{name} failed")), "{}", run.text);
    }
    let enforced = |what: &str| {
        let workers = get_json(&server.address, "/api/v1/workers").to_string();
        !workers.contains(&format!("{what} limit: "))
    };
    let nothing = "memory: in 1 bytes nothing can be started";
    failed_with(&run, "no_memory", "Exit 126", &[limit, nothing]);
    if enforced("memory") {
        failed_with(&run, "memory", "Killed", &["its own words", limit, "memory: ", "kiln-memory"]);
    }
    if enforced("process") {
        failed_with(&run, "processes", "Exit 2", &[limit, "processes: ", "workers.processes"]);
    }
    let once = [
        "fails",
        "signalled",
        "absent",
        "memory",
        "no_memory",
        "disk",
        "processes",
        "talks",
        "talks_for_ever",
        "a_directory",
        "a_pipe",
        "holes",
        "many",
        "nothing_offered",
    ];
    for name in once {
        assert_eq!(runs(&server, name), 1, "{name} ran more than once");
    }

    // Kiln caches neither a failure nor a success whose log is incomplete.
    let again =
        bazel.remote(&server.address, &["build", "-k", "//endings:fails", "//endings:talks"]);
    failed_with(&again, "fails", "Exit 7", &["its own words"]);
    bazel.clean();
    let again = bazel
        .remote(&server.address, &["build", "//endings:talks_and_ends_well", "//endings:closed"]);
    let again = again.expect_success();
    assert_eq!(
        (again.processes("remote"), again.processes("remote cache hit")),
        (1, 1),
        "{}",
        again.text
    );

    let tests = ["test", "-k", "--test_timeout=5", "//endings:all", "--build_tests_only"];
    let tested = bazel.remote(&server.address, &tests);
    assert_eq!(tested.code, 3, "{}", tested.text);
    let log = |name: &str| {
        let path = bazel.testlogs().join("endings").join(name).join("test.log");
        std::fs::read_to_string(path).expect("the log of a test")
    };
    assert!(tested.text.contains("TIMEOUT in"), "{}", tested.text);
    let slow = log("slow_test");
    assert!(slow.contains("printed before the timeout"), "{slow}");
    assert!(slow.contains("kiln: the action ran into its timeout of 5s"), "{slow}");
    if enforced("memory") {
        assert!(tested.text.contains("FAILED in"), "{}", tested.text);
        let eats = log("eats_test");
        assert!(eats.contains("printed before the limit"), "{eats}");
        assert!(eats.contains(limit) && eats.contains("/actions/sha256/"), "{eats}");
    }
}
