//! Real Bazel, 4.2.3 and 2.1.0, building and testing through `kiln serve`.

use crate::flaky::first_attempt_fails;
use crate::support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use support::bazel::Bazel;
use support::client;
use support::server::Server;

/// Reads everything below a directory. Returns for each path below it the mode and the bytes of the file, or the
/// target of the link.
fn contents(directory: &Path) -> BTreeMap<String, String> {
    fn visit(base: &Path, directory: &Path, all: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(directory).expect("a readable directory") {
            let path = entry.expect("a readable entry").path();
            let name = path.strip_prefix(base).expect("below the base").display().to_string();
            // Bazel writes these files to keep its books on the local machine. No action makes them, so they may
            // differ.
            if name.ends_with(".runfiles_manifest")
                || name.contains(".runfiles")
                || name.ends_with(".params")
            {
                continue;
            }
            let metadata = path.symlink_metadata().expect("metadata");
            if metadata.is_symlink() {
                let target = path.read_link().expect("a link");
                // Bazel itself may add absolute links into its output base.
                if !target.is_absolute() {
                    all.insert(name, format!("-> {}", target.display()));
                }
            } else if metadata.is_dir() {
                visit(base, &path, all);
            } else {
                let bytes = std::fs::read(&path).expect("a readable file");
                let executable = metadata.permissions().mode() & 0o100 != 0;
                let digest = kiln_cas::DigestFunction::Sha256.digest(&bytes);
                all.insert(name, format!("{digest} executable={executable}"));
            }
        }
    }
    let mut all = BTreeMap::new();
    visit(directory, directory, &mut all);
    all
}

fn assert_same(left: &BTreeMap<String, String>, right: &BTreeMap<String, String>, what: &str) {
    let names: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
    let differ: Vec<_> = names
        .into_iter()
        .filter(|name| left.get(*name) != right.get(*name))
        .map(|name| (name, left.get(name), right.get(name)))
        .collect();
    assert!(differ.is_empty(), "{what}: {differ:#?}");
}

/// Returns the patterns of all targets, without those of `tests/builds/endings.rs`, which are made to fail.
fn everything(bazel: &Bazel) -> Vec<&'static str> {
    let mut targets = vec!["--", "//..."];
    if bazel.workspace().join("endings").is_dir() {
        targets.push("-//endings/...");
    }
    targets
}

fn builds_tests_and_hits(variable: &str, workspace: &str, tests: &[&str]) {
    let Some(binary) = client(variable) else { return };
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(data.path(), &[]);
    let bazel = Bazel::new(binary.clone(), workspace);

    let everything = everything(&bazel);
    let build = [&["build"], everything.as_slice()].concat();
    let first = bazel.remote(&server.address, &build).expect_success();
    assert!(first.processes("remote") > 20, "{}", first.text);
    assert_eq!(first.processes("local"), 0, "{}", first.text);
    let remote_outputs = contents(&bazel.bin());

    bazel.clean();
    let second = bazel.remote(&server.address, &build).expect_success();
    assert_eq!(second.processes("remote"), 0, "{}", second.text);
    assert_eq!(
        second.processes("remote cache hit"),
        first.processes("remote") + first.processes("remote cache hit"),
        "{}",
        second.text
    );
    assert_same(&contents(&bazel.bin()), &remote_outputs, "downloaded from the cache");

    bazel.clean();
    let mut arguments = vec!["build"];
    arguments.extend(minimal_download(variable));
    // Bazel itself refuses links in outputs that it does not download.
    arguments.extend(&everything);
    if bazel.workspace().join("links").is_dir() {
        arguments.push("-//links/...");
    }
    let minimal = bazel.remote(&server.address, &arguments).expect_success();
    assert_eq!(minimal.processes("remote"), 0, "{}", minimal.text);

    let mut arguments = vec!["test"];
    arguments.extend(tests);
    bazel.remote(&server.address, &arguments).expect_success();

    bazel.clean();
    bazel.local(&build).expect_success();
    assert_same(&contents(&bazel.bin()), &remote_outputs, "built locally and built remotely");
}

fn minimal_download(variable: &str) -> &'static [&'static str] {
    match variable {
        "KILN_BAZEL_2" => &[
            "--experimental_remote_download_outputs=minimal",
            "--experimental_inmemory_jdeps_files",
            "--experimental_inmemory_dotd_files",
        ],
        _ => &["--remote_download_minimal"],
    }
}

#[test]
fn the_example_builds_tests_and_hits() {
    builds_tests_and_hits("KILN_BAZEL", "examples/bazel", &["//..."]);
}

#[test]
fn the_example_builds_tests_and_hits_with_bazel_2() {
    builds_tests_and_hits("KILN_BAZEL_2", "examples/bazel", &["//..."]);
}

#[test]
fn odd_names_links_and_shards() {
    builds_tests_and_hits("KILN_BAZEL", "tests/workspace", &["//cpp/...", "//flaky:sharded_test"]);
}

#[test]
fn odd_names_links_and_shards_with_bazel_2() {
    builds_tests_and_hits(
        "KILN_BAZEL_2",
        "tests/workspace",
        &["//cpp/...", "//flaky:sharded_test"],
    );
}

#[test]
fn what_fails_is_reported_as_it_is() {
    let Some(binary) = client("KILN_BAZEL") else { return };
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(data.path(), &[]);
    let bazel = Bazel::new(binary, "tests/workspace");

    let broken = bazel.remote(&server.address, &["build", "//cpp:broken"]);
    assert_eq!(broken.code, 1, "{}", broken.text);
    assert!(broken.text.contains("undeclared_name"), "{}", broken.text);

    let failing = bazel.remote(&server.address, &["test", "//flaky:failing_test"]);
    assert_eq!(failing.code, 3, "{}", failing.text);
    assert!(failing.text.contains("this is stdout"), "{}", failing.text);
    assert!(failing.text.contains("this is stderr"), "{}", failing.text);

    let again = bazel.remote(&server.address, &["test", "//flaky:failing_test"]);
    assert_eq!(again.code, 3, "a failure is never cached: {}", again.text);

    let slow = bazel.remote(&server.address, &["test", "--test_timeout=2", "//flaky:slow_test"]);
    assert_eq!(slow.code, 3, "{}", slow.text);
    assert!(slow.text.contains("TIMEOUT"), "{}", slow.text);
    let log = bazel.testlogs().join("flaky/slow_test/test.log");
    let log = std::fs::read_to_string(log).expect("a log of the test that timed out");
    assert!(log.contains("printed before the timeout"), "{log}");
}

#[test]
fn a_flaky_test_passes_on_a_later_attempt() {
    let Some(binary) = client("KILN_BAZEL") else { return };
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(data.path(), &[]);
    let bazel = Bazel::new(binary, "tests/workspace");
    bazel.remote(&server.address, &["build", "//flaky:flaky_test"]).expect_success();

    let run = first_attempt_fails(|ready| {
        let attempts = "--flaky_test_attempts=10";
        let test = ["test", ready, attempts, "//flaky:flaky_test"];
        bazel.remote(&server.address, &test).expect_success()
    });
    assert!(run.text.contains("FLAKY"), "{}", run.text);
}
