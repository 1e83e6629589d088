//! Builds and tests in which nothing is lost.

use super::support::server::get_status;
use super::{Rig, Run};
use crate::flaky::first_attempt_fails;

/// How many actions of each of the two protocols, JSON and protobuf, `//tools:all` holds.
const TOOLED: usize = 6;

/// Reads four sums from the server's metrics: the requests that it sent to tools, how many of these went to a tool
/// that had answered before, the tools that it started, and the actions that it ran without a tool.
fn tool_counts(rig: &Rig) -> [f64; 4] {
    let requests = "kiln_persistent_worker_requests_total";
    [
        rig.metric(requests, &[]),
        rig.metric(requests, &[("reused", "true")]),
        rig.metric("kiln_persistent_workers_started_total", &[]),
        rig.metric("kiln_persistent_worker_fallbacks_total", &[]),
    ]
}

pub fn marks(rig: &Rig) {
    let build = |targets: &str| {
        let arguments = ["build", "--experimental_remote_mark_tool_inputs", targets];
        rig.remote("marks", &arguments).expect_success()
    };
    let right = || {
        for protocol in ["json", "proto"] {
            for number in 0..TOOLED {
                let output = rig.output(format!("tools/{protocol}{number}.txt"));
                assert_eq!(output, format!("THIS IS TEXT {number}\n").as_bytes());
            }
        }
    };
    let first = build("//tools:all");
    // Besides the two protocols' actions, as many again write the files that the tool reads.
    assert_eq!(first.processes("remote"), 3 * TOOLED, "{}", first.text);
    right();
    let counts = tool_counts(rig);
    assert_eq!(counts[0], 2.0 * TOOLED as f64, "{counts:?}");
    assert_eq!(counts[3], 0.0, "{counts:?}");
    // The server has two slots, and each starts at most one tool for each of the two protocols.
    assert!((2.0..=4.0).contains(&counts[2]), "{counts:?}");
    assert_eq!(counts[1], counts[0] - counts[2], "{counts:?}");

    // Another tool is another process, although its arguments are the same.
    let tool = rig.bazel.workspace().join("tools/tool.py");
    let text = std::fs::read_to_string(&tool).expect("the tool");
    rig.write("tools/tool.py", &text.replace(".upper()", ".upper().replace('TEXT', 'WORD')"));
    let second = build("//tools:all");
    assert_eq!(second.processes("remote"), 2 * TOOLED, "{}", second.text);
    assert_eq!(rig.output("tools/json0.txt"), b"THIS IS WORD 0\n");
    let others = tool_counts(rig);
    assert!(others[2] >= counts[2] + 2.0, "{others:?}");
    assert_eq!(others[3], 0.0, "{others:?}");

    // A tool that speaks JSON without declaring it cannot answer the server, which runs the action by itself instead.
    build("//tools:unsaid");
    assert_eq!(rig.output("tools/unsaid.txt"), b"THIS IS WORD 0\n");
    assert_eq!(rig.metric("kiln_persistent_worker_fallbacks_total", &[("reason", "died")]), 1.0);
    rig.write("tools/tool.py", &text);
}

/// Returns the paths of the actions' pages whose addresses a build has printed.
fn pages<'a>(rig: &Rig, run: &'a Run) -> Vec<&'a str> {
    let lines = run.text.lines().map(str::trim);
    let url = rig.server.url();
    lines
        .filter_map(|line| line.strip_prefix(url.as_str()))
        .filter(|path| path.starts_with("/actions/"))
        .collect()
}

pub fn messages(rig: &Rig) {
    let arguments = ["build", "--remote_print_execution_messages=all", "//chain:all"];
    let run = rig.remote("messages", &arguments).expect_success();
    let pages = pages(rig, &run);
    assert_eq!(pages.len(), 2, "one link for each action: {}", run.text);
    for page in pages {
        assert_eq!(get_status(&rig.server.address, page), 200, "{page}");
    }
}

pub fn blake3(rig: &Rig) {
    let arguments =
        ["build", "--remote_print_execution_messages=all", "//chain:all", "//names:all"];
    let first = rig.remote("blake3", &arguments).expect_success();
    assert_eq!(first.processes("remote"), 5, "{}", first.text);
    let pages = pages(rig, &first);
    assert!(pages.len() == 5 && pages.iter().all(|page| page.contains("/blake3/")), "{pages:?}");
    rig.bazel.clean();
    let second = rig.remote("blake3", &arguments).expect_success();
    assert_eq!(second.processes("remote cache hit"), 5, "{}", second.text);
    assert_eq!(rig.output("chain/sum.txt"), sum("text\n"));
}

/// Returns the bytes that the action `//chain:sum` writes when `text` is its source.
pub fn sum(text: &str) -> Vec<u8> {
    let numbers: usize = (1..=200_000).map(|number: u32| number.to_string().len() + 1).sum();
    format!("{text}{}\n", "seed\n".len() + numbers).into_bytes()
}

pub fn disk_cache(rig: &Rig) {
    let disk = rig.directory.path().join("disk cache");
    let cache = format!("--disk_cache={}", disk.display());
    let build = |options: &[&str]| {
        rig.bazel.clean();
        let arguments = [&["build"], options, &["//chain:all"]].concat();
        rig.remote("disk", &arguments).expect_success()
    };
    let first = build(&[&cache]);
    assert_eq!(first.processes("remote"), 2, "{}", first.text);
    let second = build(&[&cache]);
    assert_eq!(second.processes("disk cache hit"), 2, "{}", second.text);
    std::fs::remove_dir_all(&disk).expect("a disk cache");
    let third = build(&[&cache]);
    assert_eq!(third.processes("remote cache hit"), 2, "{}", third.text);
    // Bazel has stored in its disk cache what the server gave it in the third build.
    let fourth = build(&[&cache]);
    assert_eq!(fourth.processes("disk cache hit"), 2, "{}", fourth.text);
    assert_eq!(rig.output("chain/sum.txt"), sum("text\n"));
}

pub fn asynchronous_uploads(rig: &Rig) {
    let build = || {
        rig.bazel.clean();
        let arguments = ["build", "--experimental_remote_cache_async", "//chain:all"];
        rig.cached("async", &arguments).expect_success()
    };
    let first = build();
    assert_eq!(first.processes("local"), 2, "{}", first.text);
    assert!(!first.text.contains("Remote Cache:"), "an upload failed: {}", first.text);
    let second = build();
    assert_eq!(second.processes("remote cache hit"), 2, "{}", second.text);
    assert_eq!(rig.output("chain/sum.txt"), sum("text\n"));
}

pub fn compression(rig: &Rig) {
    let calls = rig.directory.path().join("calls");
    let log = format!("--remote_grpc_log={}", calls.display());
    let build = |instance: &str| {
        rig.bazel.clean();
        let arguments = ["build", "--remote_cache_compression", &log, "//chain:all"];
        rig.remote(instance, &arguments).expect_success()
    };
    let first = build("compressed");
    assert_eq!(first.processes("remote"), 2, "{}", first.text);
    let second = build("compressed");
    assert_eq!(second.processes("remote cache hit"), 2, "{}", second.text);
    let calls = std::fs::read(&calls).expect("a log of calls");
    let compressed = String::from_utf8_lossy(&calls).contains("compressed/compressed-blobs/zstd/");
    assert!(compressed, "nothing was asked for in zstd");
    assert_eq!(rig.output("chain/sum.txt"), sum("text\n"));
    let numbers = rig.output("chain/numbers.txt");
    assert!(numbers.starts_with(b"seed\n1\n2\n") && numbers.ends_with(b"\n200000\n"));
}

pub fn tests(rig: &Rig) {
    let attempts = "--flaky_test_attempts=//checks:flaky@10";
    let run = first_attempt_fails(|ready| {
        let test = ["test", "--keep_going", ready, attempts, "--test_timeout=3", "//checks:all"];
        rig.remote("tests", &test)
    });
    assert_eq!(run.code, 3, "{}", run.text);
    let outcome = |test: &str| {
        let line = run
            .text
            .lines()
            .find(|line| line.starts_with(&format!("//checks:{test} ")) && line.contains(" in "));
        line.unwrap_or_else(|| panic!("no outcome of {test}: {}", run.text))
    };
    assert!(outcome("flaky_test").contains("FLAKY, failed in"), "{}", run.text);
    assert!(outcome("sharded_test").contains("PASSED"), "{}", run.text);
    assert!(outcome("slow_test").contains("TIMEOUT"), "{}", run.text);
    let logs = rig.bazel.testlogs().join("checks");
    for shard in 1..=3 {
        let log = logs.join(format!("sharded_test/shard_{shard}_of_3/test.log"));
        let log = std::fs::read_to_string(log).expect("a log of each shard");
        assert!(log.contains(&format!("shard {} of 3", shard - 1)), "{log}");
    }
    let log = std::fs::read_to_string(logs.join("slow_test/test.log")).expect("a log");
    assert!(log.contains("printed before the timeout"), "{log}");
    assert!(log.contains("ran into its timeout of 3s"), "{log}");
}
