//! A real server tells flaky tests of a real Bazel from broken ones: with shadow runs, gates, `kiln ci run` and the
//! quarantine.

#![allow(clippy::panic)]

mod alone;
mod crash;
mod oracle;
mod proxy;
use crate::support;
mod webhook;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use oracle::Oracle;
use serde_json::Value;
use support::bazel::{Bazel, Run};
use support::client;
use support::server::{Server, command, get_json};
use tempfile::TempDir;

/// How long the tests wait for something at most. On a busy machine Bazel alone takes minutes to start.
const PATIENCE: Duration = Duration::from_secs(180);

/// How often a test has to pass before the server knows it well.
const CLEAN_RUNS: u32 = 20;
/// The option with which Bazel runs tests again that have passed.
const ANEW: &str = "--nocache_test_results";

struct Rig {
    server: Server,
    bazel: Bazel,
    oracle: Oracle,
    workspace: TempDir,
    _data: TempDir,
}

impl Rig {
    fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// Starts the rig's server with these environment variables, as pairs of name and value. Returns `None` if there
    /// is no Bazel.
    fn start_with(settings: &[(&str, &str)]) -> Option<Self> {
        let binary = client("KILN_BAZEL")?;
        let data = tempfile::tempdir().expect("a temporary directory");
        let mut serve = command("127.0.0.1:0", data.path(), &["--workers", "4"]);
        serve.env("KILN_TESTS_WINDOW", "1s").env("KILN_WORKERS_ALLOW_NETWORK", "true");
        serve.envs(settings.iter().copied());
        let server = Server::spawn(serve, data.path());
        let workspace = workspace();
        let path = workspace.path().to_str().expect("a plain path").to_owned();
        let bazel = Bazel::new(binary, &path);
        Some(Self { server, bazel, oracle: Oracle::start(), workspace, _data: data })
    }

    fn break_test(&self) {
        let path = self.workspace.path().join("broken_test.sh");
        std::fs::write(path, "#!/bin/sh\necho it is broken\nexit 1\n").expect("it is written");
    }

    fn flags(&self) -> [String; 4] {
        let address = &self.server.address;
        [
            "--config=kiln".to_owned(),
            format!("--remote_executor=grpc://{address}"),
            format!("--bes_backend=grpc://{address}"),
            format!("--test_env=ORACLE={}", self.oracle.port),
        ]
    }

    fn test(&self, arguments: &[&str]) -> Run {
        let flags = self.flags();
        let mut all = vec!["test"];
        all.extend(flags.iter().map(String::as_str));
        all.extend(arguments);
        Run::of(self.bazel.command(&all).output().expect("Bazel runs"))
    }

    /// Runs `kiln ci run OPTIONS -- bazel test ARGUMENTS`. Returns the exit code and all that it printed.
    fn ci(&self, options: &[&str], arguments: &[&str]) -> Run {
        Run::of(self.ci_command(options, arguments).output().expect("kiln runs"))
    }

    /// The same as the check of a merge queue, which reads in `file` what failed.
    fn ci_naming(&self, file: &Path, arguments: &[&str]) -> Run {
        let mut kiln = self.ci_command(&[], arguments);
        Run::of(kiln.env("KILN_QUEUE_FAILED", file).output().expect("kiln runs"))
    }

    fn ci_command(&self, options: &[&str], arguments: &[&str]) -> Command {
        let flags = self.flags();
        let mut all = vec!["test"];
        all.extend(flags.iter().map(String::as_str));
        all.extend(arguments);
        let bazel = self.bazel.command(&all);
        let mut kiln = self.kiln(&["ci", "run", "--wait", "60s"]);
        kiln.args(options).arg("--").arg(bazel.get_program()).args(bazel.get_args());
        kiln.env("LC_ALL", "C.UTF-8").current_dir(self.workspace.path());
        // A merge queue may run these tests.
        kiln.env_remove("KILN_QUEUE_FAILED");
        kiln
    }

    fn kiln(&self, arguments: &[&str]) -> Command {
        let mut kiln = Command::new(env!("CARGO_BIN_EXE_kiln"));
        kiln.args(["--server", &self.server.url()]).args(arguments);
        kiln
    }

    fn asked(&self, arguments: &[&str]) -> (i32, String) {
        said(self.kiln(arguments).output().expect("kiln runs"))
    }
}

fn said(output: Output) -> (i32, String) {
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// Makes a copy of the workspace, which a test may change.
fn workspace() -> TempDir {
    let copy = TempDir::with_prefix("kiln-verdicts-").expect("a temporary directory");
    let from = support::root().join("tests/ci/verdicts/workspace");
    for entry in std::fs::read_dir(from).expect("a workspace") {
        let path: PathBuf = entry.expect("an entry").path();
        let name = path.file_name().expect("a name");
        std::fs::copy(&path, copy.path().join(name)).expect("it is copied");
    }
    // WORKSPACE names directories of Kiln's sources by relative paths, which have to become absolute ones in the
    // copy.
    let path = copy.path().join("WORKSPACE");
    let text = std::fs::read_to_string(&path).expect("it is there");
    let root = format!("{}/", support::root().display());
    std::fs::write(&path, text.replace("../../../", &root)).expect("it is written");
    copy
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn finding<'a>(gate: &'a Value, label: &str) -> &'a Value {
    let failures = gate["failures"].as_array().expect("failures");
    let found =
        failures.iter().find(|it| it["label"].as_str().is_some_and(|it| it.ends_with(label)));
    found.unwrap_or_else(|| panic!("{label} is not in {gate}"))
}

#[test]
fn flaky_failures_are_masked_and_broken_ones_are_not() {
    let Some(rig) = Rig::start() else { return };
    // The server judges a test at once if it knows it well. All runs have the same flags, because others would make
    // another configuration of the test.
    for _ in 0..CLEAN_RUNS {
        let first = rig.test(&[ANEW, "//:broken_test"]);
        assert_eq!(first.code, 0, "{}", first.text);
    }
    let first = rig.test(&[ANEW, "//..."]);
    assert_eq!(first.code, 0, "{}", first.text);

    // If a flaky test alone fails, Bazel ends with 3, and Kiln lets the build pass.
    rig.oracle.fail(1);
    let alone = rig.ci(&[], &[ANEW, "//..."]);
    assert_eq!(alone.code, 0, "{}", alone.text);
    assert!(alone.text.contains("green: 1 of 1 failures masked"), "{}", alone.text);
    assert!(alone.text.contains("flaky: passed once with equal inputs since"), "{}", alone.text);

    // If the change edits the flaky test, Kiln does not mask the same failure.
    rig.oracle.fail(1);
    let list = rig.workspace.path().join("changed");
    std::fs::write(&list, "flaky_test.sh\n").expect("it is written");
    let options = ["--changed-files", list.to_str().expect("a plain path")];
    let edited = rig.ci(&options, &[ANEW, "//:flaky_test"]);
    assert_eq!(edited.code, 3, "{}", edited.text);
    assert!(edited.text.contains("the change edits this test"), "{}", edited.text);

    // If a broken test fails beside the flaky one, Kiln masks only the flaky one's failure.
    rig.break_test();
    rig.oracle.fail(1);
    let id = "8a0a8e2c-3f0f-4d0a-9d56-0f3c5ad1c001";
    let named = rig.workspace.path().join("failed");
    let both = rig.ci_naming(&named, &["--invocation_id", id, ANEW, "//..."]);
    assert_eq!(both.code, 3, "{}", both.text);
    assert!(both.text.contains("red: 1 of 2 failures masked"), "{}", both.text);
    // A merge queue is told about the failure that counts, and not about the other one.
    let named = std::fs::read_to_string(named).expect("it is written");
    assert!(named.ends_with("//:broken_test\n") && named.lines().count() == 1, "{named}");

    // `kiln tests gate` comes to the same verdict later, from the build events.
    let (code, text) = rig.asked(&["tests", "gate", "--invocation", "8a0a8e2c", "--json"]);
    assert_eq!(code, 1, "{text}");
    let gate = json(&text);
    assert_eq!((&gate["verdict"], &gate["invocation"]), (&"red".into(), &id.into()), "{gate}");
    assert_eq!(finding(&gate, ":broken_test")["finding"], "broken", "{gate}");
    assert_eq!(finding(&gate, ":broken_test")["masked"], false, "{gate}");
    assert_eq!(finding(&gate, ":flaky_test")["finding"], "proven", "{gate}");

    // The server neither lists its shadow runs as builds nor publishes their results, so the next run of the broken
    // test fails again.
    let builds = get_json(&rig.server.address, "/api/v1/builds").to_string();
    assert!(!builds.contains("shadow"), "{builds}");
    assert!(rig.oracle.asked() >= 7, "the flaky test ran {} times", rig.oracle.asked());
    let again = rig.test(&[ANEW, "//:broken_test"]);
    assert_eq!(again.code, 3, "{}", again.text);
}

#[test]
fn what_does_not_complete_is_passed_on() {
    let Some(rig) = Rig::start() else { return };
    std::fs::write(rig.workspace.path().join("BUILD"), "sh_test(name = \"a\"").expect("written");
    let garbled = rig.ci(&[], &["//..."]);
    assert_eq!(garbled.code, 1, "{}", garbled.text);
    let none = rig.ci(&[], &["--", "-//..."]);
    assert_ne!(none.code, 0, "{}", none.text);
    let (code, text) = rig.asked(&["tests", "gate", "--invocation", "nobody", "--wait", "0s"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("error: no invocation nobody is known\nhint: "), "{text}");
}

#[test]
fn people_quarantine_tests_for_a_reason_that_is_kept() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(data.path(), &["--workers", "0"]);
    let kiln = |arguments: &[&str]| {
        let mut kiln = Command::new(env!("CARGO_BIN_EXE_kiln"));
        said(kiln.args(["--server", &server.url()]).args(arguments).output().expect("kiln runs"))
    };
    let (code, text) = kiln(&["tests", "quarantine", "add", "//a:t", "--reason", " "]);
    assert_eq!(code, 2, "{text}");
    let added =
        kiln(&["tests", "quarantine", "add", "//a:t", "--reason", "known", "--owner", "@a"]);
    assert!(added.1.starts_with("//a:t is in quarantine until "), "{added:?}");
    let list = kiln(&["tests", "quarantine", "list", "--json"]).1;
    let entry = &json(&list)["entries"][0];
    assert_eq!((&entry["label"], &entry["owner"]), (&"//a:t".into(), &"@a".into()), "{list}");
    let export = |format| kiln(&["tests", "quarantine", "export", "--format", format]).1;
    assert_eq!(export("bazel"), "-//a:t\n");
    assert!(export("bazel-attempts").starts_with("--flaky_test_attempts=^"));
    assert!(export("nextest").starts_with("all()\nleft out: //a:t: "));
    let removed = kiln(&["tests", "quarantine", "remove", "//a:t", "--reason", "mended"]);
    assert_eq!(removed, (0, "//a:t is out of quarantine\n".to_owned()));
    let (code, text) = kiln(&["tests", "quarantine", "remove", "//a:t", "--reason", "again"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("//a:t is not in quarantine"), "{text}");

    let log = json(&kiln(&["audit", "log", "--json"]).1);
    let actions: Vec<_> = log["entries"].as_array().expect("entries").iter().collect();
    let of = |at: usize, key: &str| actions[at][key].as_str().unwrap_or_default().to_owned();
    assert_eq!(actions.len(), 2, "{log}");
    assert_eq!(
        (of(1, "action"), of(0, "action")),
        ("tests.quarantine.enter".into(), "tests.quarantine.leave".into())
    );
    assert_eq!(actions[1]["details"]["reason"], "known", "{log}");
    assert_eq!(kiln(&["audit", "log", "--check"]).0, 0);
}

#[test]
fn with_too_much_in_quarantine_every_test_runs() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let owners = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(owners.path(), "/a/ @team-a\n").expect("it is written");
    let mut serve = command("127.0.0.1:0", data.path(), &["--workers", "0"]);
    serve.env("KILN_TESTS_CODEOWNERS", owners.path());
    let server = Server::spawn(serve, data.path());
    let quarantine = |arguments: &[&str]| {
        let mut kiln = Command::new(env!("CARGO_BIN_EXE_kiln"));
        kiln.args(["--server", &server.url(), "tests", "quarantine"]).args(arguments);
        let (code, text) = said(kiln.output().expect("kiln runs"));
        assert_eq!(code, 0, "{text}");
        text
    };
    let export = |format| quarantine(&["export", "--format", format]);
    let add = |number: usize| quarantine(&["add", &format!("//a:t{number}"), "--reason", "known"]);
    (0..5).for_each(|number| drop(add(number)));
    assert!(export("bazel").starts_with("-//a:t0\n-//a:t1\n"), "{}", export("bazel"));
    // Whose they are is known without being said, and what is said stays.
    quarantine(&["add", "//a:t0", "--reason", "known", "--owner", "@ann"]);
    add(0);
    let list = json(&quarantine(&["list", "--json"]));
    let owner = |at: usize| list["entries"][at]["owner"].clone();
    assert_eq!((owner(0), owner(1)), ("@ann".into(), "@team-a".into()), "{list}");
    // Five always may be, and no test is known of which more would be a part.
    add(5);
    let text = export("bazel");
    assert_eq!(text.matches("more tests are in quarantine than may be").count(), 6, "{text}");
    assert!(!text.lines().any(|line| line.starts_with('-')), "{text}");
    // To try a test again hides nothing.
    assert_eq!(export("bazel-attempts").lines().count(), 6);
}

#[test]
fn an_entry_ends_while_no_server_runs() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let run = |server: &Server, arguments: &[&str]| {
        let mut kiln = Command::new(env!("CARGO_BIN_EXE_kiln"));
        said(kiln.args(["--server", &server.url()]).args(arguments).output().expect("kiln runs"))
    };
    let server = Server::start(data.path(), &["--workers", "0"]);
    let add = ["tests", "quarantine", "add", "//a:t", "--reason", "soon over", "--stay", "1s"];
    assert_eq!(run(&server, &add).0, 0);
    let entries = |server: &Server| {
        let list = run(server, &["tests", "quarantine", "list", "--json"]).1;
        json(&list)["entries"].as_array().map(Vec::len)
    };
    wait_until("its time is up", || entries(&server) == Some(0));
    let noted = |server: &Server| {
        run(server, &["audit", "log", "--json"]).1.contains("tests.quarantine.expire")
    };
    assert!(!noted(&server), "nobody has looked yet");
    assert!(server.terminate().success());
    // Nobody looked at the quarantine when the entry ended, so the next server notes the end when it looks first.
    let server = Server::start(data.path(), &["--workers", "0"]);
    wait_until("its end was noted", || noted(&server));
    assert_eq!(entries(&server), Some(0));
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        kiln_test_servers::pause();
    }
}
