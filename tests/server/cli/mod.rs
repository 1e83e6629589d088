//! The client commands against a real server.

mod blobs;
mod counts;
mod running;
use crate::support;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use kiln_protos::reapi;
use serde_json::Value;
use support::reapi::{Client, Spec};
use support::server::Server;

struct Kiln {
    server: String,
}

struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Kiln {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.env("KILN_SERVER", &self.server).env("KILN_INSTANCE", "e2e/tests").args(arguments);
        command.stdin(Stdio::null());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("kiln runs")
    }

    fn run(&self, arguments: &[&str]) -> Said {
        let output = self.output(arguments);
        Said {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a command that has to succeed, and returns what it printed to stdout.
    fn says(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}{}", said.stdout, said.stderr);
        said.stdout
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.push("--json");
        serde_json::from_str(&self.run(&all).stdout).expect("JSON")
    }
}

struct Setting {
    kiln: Kiln,
    client: Client,
    directory: tempfile::TempDir,
    _server: Server,
}

async fn setting() -> Setting {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&directory.path().join("kiln"), &[]);
    let client = Client::connect(&server.url()).await;
    Setting { kiln: Kiln { server: server.url() }, client, directory, _server: server }
}

fn text(digest: &reapi::Digest) -> String {
    format!("{}/{}", digest.hash, digest.size_bytes)
}

fn metadata(target: &str, invocation: &str) -> reapi::RequestMetadata {
    reapi::RequestMetadata {
        tool_details: Some(reapi::ToolDetails {
            tool_name: "bazel".into(),
            tool_version: "9.9".into(),
        }),
        tool_invocation_id: invocation.into(),
        target_id: target.into(),
        action_mnemonic: "Genrule".into(),
        ..Default::default()
    }
}

/// Makes an action that prints and copies its one input. It has one variable and one further argument.
fn spec(client_input: &reapi::Digest, variable: &str, argument: &str) -> Spec {
    let mut spec = Spec::shell("echo said; cat input.txt > out.txt", &["out.txt"]);
    spec.command.arguments.push(argument.to_owned());
    spec.command
        .environment_variables
        .push(reapi::command::EnvironmentVariable { name: "LEVEL".into(), value: variable.into() });
    spec.input_root.files.push(reapi::FileNode {
        name: "input.txt".into(),
        digest: Some(client_input.clone()),
        ..Default::default()
    });
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_and_builds_are_shown_and_compared() {
    let setting = setting().await;
    let Setting { kiln, client, .. } = &setting;
    let (one, two) = (client.put(b"one\n").await, client.put(b"two\n").await);
    let first = client.prepare(&spec(&one, "debug", "-a")).await;
    client.execute_with(first.clone(), &metadata("//app:gen", "build-1")).await.expect("it runs");
    let second = client.prepare(&spec(&two, "release", "-b")).await;
    client.execute_with(second.clone(), &metadata("//app:gen", "build-2")).await.expect("it runs");

    // The journal writes only after the server has answered, so the test waits for its counts.
    while kiln.json(&["status"])["journal"]["executions"].as_u64() < Some(2) {
        kiln_test_servers::pause();
    }

    let shown = kiln.says(&["action", "show", &text(&second)]);
    for part in
        ["//app:gen Genrule: executed", "LEVEL=release", "out.txt", "  said", "request to answer"]
    {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let list = |arguments: &[&str]| kiln.says(&[&["action", "list"][..], arguments].concat());
    assert!(list(&["--invocation", "last"]).contains(&text(&second)));
    assert!(list(&["--invocation", "build-1"]).contains(&text(&first)));
    assert_eq!(list(&["--mnemonic", "Genrule"]).lines().count(), 3);
    assert_eq!(list(&["--mnemonic", "Genrule", "--limit", "1"]).lines().count(), 2);
    assert_eq!(list(&["--mnemonic", "CppLink"]), "no runs\n");
    let cold = kiln.json(&["action", "list", "--mnemonic", "Genrule", "--limit", "1"]);
    assert_eq!(cold["executions"].as_array().map(Vec::len), Some(1), "{cold}");
    let greet = kiln.run(&["action", "list", "--target", "greet"]);
    assert_eq!(greet.code, 2, "{}", greet.stdout);
    assert!(greet.stderr.contains("\"greet\" is no label"), "{}", greet.stderr);
    for empty in
        [&["build", "show", ""][..], &["action", "show", ""], &["action", "list", "--target", ""]]
    {
        let said = kiln.run(empty);
        assert_eq!(said.code, 2, "{empty:?}: {}", said.stderr);
    }
    let health = kiln.json(&["health"]);
    assert_eq!(health["ready"], true, "{health}");
    let value = kiln.json(&["action", "show", &text(&second)]);
    assert_eq!(value["execution"]["invocation_id"], "build-2");
    assert_eq!(value["result"]["output_files"][0]["path"], "out.txt");
    assert_eq!(value["is_cached"], true);

    // Kiln says why the second action did not hit the first one's result, and says the same when both are named.
    for arguments in [vec!["action", "diff"], vec!["action", "diff", "FIRST"]] {
        let (first, second) = (text(&first), text(&second));
        let mut arguments: Vec<&str> =
            arguments.iter().map(|&word| if word == "FIRST" { &first } else { word }).collect();
        arguments.push(&second);
        let said = kiln.run(&arguments);
        assert_eq!(said.code, 1, "{}", said.stderr);
        for part in [
            "input changed: input.txt: ",
            "environment variable changed: LEVEL: debug -> release",
            "argument removed: -a",
            "argument added: -b",
        ] {
            assert!(said.stdout.contains(part), "{part} is not in {}", said.stdout);
        }
    }
    let same = kiln.run(&["action", "diff", &text(&first), &text(&first)]);
    assert_eq!((same.code, same.stdout.trim()), (0, "Command, inputs and settings are the same."));

    let builds = kiln.says(&["build", "list"]);
    assert!(builds.contains("build-1") && builds.contains("build-2"), "{builds}");
    let build = kiln.says(&["build", "show", "last"]);
    assert!(build.contains("build build-2") && build.contains("bazel 9.9"), "{build}");
    assert_eq!(kiln.json(&["build", "show", "build-1"])["executions"][0]["target_id"], "//app:gen");
    let listed = kiln.says(&["action", "list", "--target", "//app:gen"]);
    assert_eq!(listed.lines().count(), 3, "{listed}");
    let status = kiln.says(&["status"]);
    assert!(status.contains("2 executed"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_shown_with_the_end_of_their_logs_by_whatever_name() {
    let setting = setting().await;
    let Setting { kiln, client, .. } = &setting;
    let script = "for i in $(seq 9000); do echo line $i of a long log; done; \
                  printf '\\033[1;31mwrong\\033[0m\\n'; exit 7";
    let failing = client.prepare(&Spec::shell(script, &[])).await;
    let metadata = metadata("//app:app_test", "build-1");
    client.execute_with(failing.clone(), &metadata).await.expect("it runs");
    let shown =
        running::says_soon(kiln, &["build", "show", "last", "--failed"], "//app:app_test Genrule");
    for part in ["exit code 7", "line 9000 of a long log", "    wrong\n"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    assert!(!shown.contains("line 8000 of"), "{shown}");
    let action = kiln.json(&["action", "show", &text(&failing)]);
    let page = format!(
        "{}?operation={}",
        action["page"].as_str().expect("an address"),
        action["execution"]["id"].as_str().expect("a name").replace('/', "%2F")
    );
    for name in [&page, "//app:app_test", &failing.hash[..12], &text(&failing)] {
        let shown = kiln.says(&["action", "show", name]);
        assert!(shown.contains("exit code 7") && shown.contains("kiln cas get"), "{shown}");
        assert!(shown.contains("wrong\n") && !shown.contains("line 1 of"), "{name}: {shown}");
    }
    // The page shows only a part of the log, but the digest leads to all of it.
    let digest = &action["stdout"]["digest"];
    let digest = format!("{}/{}", digest["hash"].as_str().expect("a hash"), digest["size_bytes"]);
    assert!(kiln.says(&["cas", "get", &digest]).starts_with("line 1 of a long log\n"));
    // Times in JSON are RFC 3339 in UTC.
    let build = kiln.json(&["build", "show", &format!("{}/builds/build-1", kiln.server)]);
    for at in [&build["first_at"], &build["executions"][0]["timeline"]["run_start"]] {
        let at = at.as_str().expect("text");
        assert!(at.starts_with("20") && at.contains('T') && at.ends_with('Z'), "{at}");
    }
    let unknown = kiln.run(&["action", "show", "//app:none"]);
    assert_eq!(unknown.code, 1, "{}", unknown.stderr);
    assert!(unknown.stderr.contains("nothing is known of //app:none"), "{}", unknown.stderr);
    let watched = kiln
        .command(&["status", "--watch", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kiln runs");
    let mut watched = Ended(watched);
    let lines = std::io::BufReader::new(watched.0.stdout.take().expect("stdout is piped"));
    for line in std::io::BufRead::lines(lines).take(2) {
        let status: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        assert_eq!(status["workers"], 1);
    }
}

/// A child process that is killed when the value is dropped, because it would not end by itself.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_ran_again_says_why() {
    let setting = setting().await;
    let Setting { kiln, client, .. } = &setting;
    let failing = client.prepare(&Spec::shell("exit 7", &[])).await;
    for build in ["build-1", "build-2"] {
        client.execute_with(failing.clone(), &metadata("//app:bad", build)).await.expect("it runs");
    }
    while kiln.json(&["status"])["journal"]["executions"].as_u64() < Some(2) {
        kiln_test_servers::pause();
    }
    let shown = kiln.says(&["action", "show", &text(&failing)]);
    assert!(shown.contains("exit code 7"), "{shown}");
    assert!(shown.contains("failures are not cached"), "{shown}");
    let build = kiln.says(&["build", "show", "build-2", "--failed"]);
    assert!(build.contains("//app:bad Genrule: exit code 7"), "{build}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_says_what_where_and_what_to_do() {
    let setting = setting().await;
    let Setting { kiln, directory, .. } = &setting;
    let unknown = format!("{}/5", "ab".repeat(32));
    let output = directory.path().join("never").to_string_lossy().into_owned();
    for (arguments, code, part) in [
        (vec!["cas", "get", &unknown], 1, "has no blob"),
        (vec!["cas", "get", &unknown, "--output", &output], 1, "has no blob"),
        (vec!["cas", "tree", &unknown], 1, "has no blob"),
        (vec!["cas", "get", "abc/1"], 2, "64 lowercase hexadecimal digits"),
        (vec!["cas", "get", &unknown[..64]], 2, "size is missing"),
        (vec!["cas", "put", "no such file"], 5, "cannot read no such file"),
        (vec!["action", "show", &unknown], 1, "nothing is known of action"),
        (vec!["action", "diff", &unknown, &unknown], 1, "not in the store"),
        (vec!["build", "show", "nonsense"], 1, "no build has this invocation id"),
        (vec!["build", "show", "last"], 1, "has seen no build"),
        (vec!["action", "list", "--limit", "0"], 2, "1..=1000"),
        (vec!["--server", "redis://h:1", "status"], 2, "not supported"),
        (vec!["--server", "http://127.0.0.1:1", "status"], 3, "cannot reach the server"),
        (vec!["--server", "http://127.0.0.1:1", "cas", "stat", &unknown], 3, "cannot reach"),
    ] {
        let said = kiln.run(&arguments);
        assert_eq!(said.code, code, "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.contains(part), "{arguments:?}: {}", said.stderr);
        assert_eq!(said.stdout, "", "{arguments:?}");
    }
    assert!(!Path::new(&output).exists());

    // The bytes of this file are neither a Directory nor any other message.
    let file = directory.path().join("text");
    std::fs::write(&file, "no message at all").expect("a file");
    let digest = kiln.says(&["cas", "put", &file.to_string_lossy()]);
    let said = kiln.run(&["cas", "tree", digest.split_whitespace().next().expect("a digest")]);
    assert_eq!(said.code, 4, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("is no Directory: failed to decode"), "{}", said.stderr);
}

#[test]
fn every_command_has_help_with_examples() {
    let kiln = Kiln { server: String::new() };
    for command in ["serve", "worker", "status", "health", "build", "action", "cas", "config"] {
        let help = kiln.says(&[command, "--help"]);
        assert!(help.contains("Examples:\n  kiln "), "{command}: {help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(kiln.says(&["completions", shell]).contains("kiln"), "{shell}");
    }
}
