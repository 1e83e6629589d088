//! Bazel's persistent workers with real Bazel: against a server that runs actions, and in a fleet's
//! `kiln worker`.

use crate::support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::bazel::Bazel;
use support::client;
use support::server::{Server, command, get_text};

const TARGETS: [&str; 2] = ["//persistent:json", "//persistent:proto"];
/// How many actions there are for each of the two protocols.
const ACTIONS: usize = 8;

/// The sum of the samples of a metric whose labels contain `label`.
fn metric(server: &Server, name: &str, label: &str) -> f64 {
    let text = get_text(&server.address, "/metrics");
    let samples = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn outputs(bazel: &Bazel) -> Vec<String> {
    let place = bazel.bin().join("persistent");
    let names = ["json", "proto"].into_iter();
    let names =
        names.flat_map(|kind| (0..ACTIONS).map(move |number| format!("{kind}{number}.txt")));
    names.map(|name| std::fs::read_to_string(place.join(name)).expect("an output")).collect()
}

fn build(bazel: &Bazel, address: &str) -> Vec<String> {
    let mut arguments = vec!["build"];
    arguments.extend(TARGETS);
    let run = bazel.remote(address, &arguments).expect_success();
    assert_eq!(run.processes("local"), 0, "{}", run.text);
    let outputs = outputs(bazel);
    bazel.clean();
    outputs
}

fn expected() -> Vec<String> {
    let texts = (0..ACTIONS).map(|number| format!("THIS IS TEXT {number}\n"));
    texts.clone().chain(texts).collect()
}

fn server(data: &Path, tools: &str) -> Server {
    let mut serve = command("127.0.0.1:0", data, &["--workers", "1"]);
    serve.env("KILN_WORKERS_PERSISTENT", tools);
    Server::spawn(serve, data)
}

#[test]
fn one_process_serves_many_actions_of_a_build_with_the_same_outputs() {
    let Some(binary) = client("KILN_BAZEL") else { return };
    let data = tempfile::tempdir().expect("a temporary directory");
    let with = server(&data.path().join("with"), "2");
    let bazel = Bazel::new(binary, "tests/workspace");
    assert_eq!(build(&bazel, &with.address), expected());
    let requests = |label| metric(&with, "kiln_persistent_worker_requests_total", label);
    assert_eq!(requests(""), 2.0 * ACTIONS as f64);
    assert_eq!(metric(&with, "kiln_persistent_workers_started_total", ""), 2.0);
    assert_eq!(requests("reused=\"true\""), 2.0 * (ACTIONS - 1) as f64);
    assert_eq!(metric(&with, "kiln_persistent_worker_fallbacks_total", ""), 0.0);
    assert_eq!(metric(&with, "kiln_persistent_workers ", ""), 2.0);

    // A server that keeps no tools runs each action as a process of its own, and gets the same outputs.
    let without = server(&data.path().join("without"), "0");
    assert_eq!(build(&bazel, &without.address), expected());
    assert_eq!(metric(&without, "kiln_persistent_workers_started_total", ""), 0.0);

    let tools = tools_of(with.id());
    assert_eq!(tools.len(), 2);
    assert!(with.terminate().success());
    await_gone(&tools);
}

/// Returns the ids of the tool processes that are still running and that descend from `ancestor`.
fn tools_of(ancestor: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("it is there").flatten();
    let all = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    let stays = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("persistent/tool.py") && line.contains("--persistent_worker")
    };
    all.filter(stays).filter(|pid| descends(*pid, ancestor)).collect()
}

fn descends(mut pid: u32, ancestor: u32) -> bool {
    while pid > 1 && pid != ancestor {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        pid = parent.and_then(|parent| parent.parse().ok()).unwrap_or(0);
    }
    pid == ancestor
}

fn await_gone(pids: &[u32]) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while pids.iter().any(|pid| std::fs::exists(format!("/proc/{pid}")).expect("it is there")) {
        assert!(Instant::now() < deadline, "{pids:?} outlive their worker");
        kiln_test_servers::pause();
    }
}

/// A tool from outside Kiln: npm's @bazel/worker, which turns programs in Node into persistent workers.
const NODE_TOOL: &str = r#"#!/usr/bin/node
const worker = require("./node_modules/@bazel/worker");
const fs = require("fs");
let count = 0;
function work(args, inputs) {
  worker.log(`request ${++count} of ${Object.keys(inputs || {}).length} inputs`);
  fs.writeFileSync(args[1], fs.readFileSync(args[0], "utf8").toUpperCase());
  return true;
}
if (worker.runAsWorker(process.argv)) worker.runWorkerLoop(work);
"#;
const NODE_RULE: &str = r#"
def _capitals(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".txt")
    flags = ctx.actions.args()
    flags.use_param_file("@%s", use_always = True)
    flags.set_param_file_format("multiline")
    flags.add(ctx.file.src)
    flags.add(out)
    ctx.actions.run(
        executable = ctx.executable.tool,
        tools = ctx.files.modules,
        inputs = [ctx.file.src],
        outputs = [out],
        arguments = [flags],
        execution_requirements = {"supports-workers": "1"},
    )
    return [DefaultInfo(files = depset([out]))]

capitals = rule(
    implementation = _capitals,
    attrs = {
        "src": attr.label(allow_single_file = True),
        "tool": attr.label(allow_single_file = True, executable = True, cfg = "host"),
        "modules": attr.label(cfg = "host"),
    },
)
"#;
const NODE_BUILD: &str = r#"
load(":rules.bzl", "capitals")

filegroup(name = "modules", srcs = glob(["tools/node_modules/**"]))

[capitals(
    name = "n%d" % number,
    src = "text/%d" % number,
    exec_properties = {
        "kiln-tool-inputs": "tools/tool.js,tools/node_modules",
        "persistentWorkerKey": "node",
    },
    modules = ":modules",
    tool = "tools/tool.js",
) for number in range(6)]
"#;

fn write_node_workspace(place: &Path, modules: &Path) {
    for directory in ["tools", "text"] {
        std::fs::create_dir(place.join(directory)).expect("mkdir");
    }
    let rc = "build:kiln --spawn_strategy=remote\nbuild --color=no --curses=no\n";
    for (path, text) in [
        ("WORKSPACE", ""),
        (".bazelrc", rc),
        ("rules.bzl", NODE_RULE),
        ("BUILD", NODE_BUILD),
        ("tools/tool.js", NODE_TOOL),
    ] {
        std::fs::write(place.join(path), text).expect("write");
    }
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(place.join("tools/tool.js"), executable).expect("chmod");
    for number in 0..6 {
        std::fs::write(place.join(format!("text/{number}")), format!("t{number}")).expect("write");
    }
    let copy = Command::new("cp").arg("-r").args([modules, &place.join("tools")]).status();
    assert!(copy.expect("cp runs").success());
}

#[test]
fn a_tool_made_for_bazel_by_others_works() {
    let (Some(binary), Some(modules)) = (client("KILN_BAZEL"), client("KILN_NODE_WORKER")) else {
        return;
    };
    let data = tempfile::tempdir().expect("a temporary directory");
    let workspace = tempfile::tempdir().expect("a temporary directory");
    write_node_workspace(workspace.path(), &modules);
    let server = server(data.path(), "1");
    let bazel = Bazel::new(binary, &workspace.path().display().to_string());
    let run = bazel.remote(&server.address, &["build", "//:all"]).expect_success();
    // The tool does nothing without --persistent_worker, so one process has answered all of these requests.
    for number in 0..6 {
        let output = std::fs::read_to_string(bazel.bin().join(format!("n{number}.txt")));
        assert_eq!(output.expect("an output"), format!("T{number}"));
        assert!(run.text.contains(&format!("request {} of ", number + 1)), "{}", run.text);
    }
    assert_eq!(metric(&server, "kiln_persistent_workers_started_total", ""), 1.0);
}

struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_worker_in_its_own_process_keeps_tools_and_they_die_with_it() {
    let Some(binary) = client("KILN_BAZEL") else { return };
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&data.path().join("server"), &["--workers", "0"]);
    let worker = Command::new(env!("CARGO_BIN_EXE_kiln"))
        .args(["worker", "--slots", "1", "--server", &server.url(), "--data-dir"])
        .arg(data.path().join("worker"))
        .env("KILN_WORKERS_MEMORY", "1GiB")
        .env("KILN_LOG_FILTER", "info,kiln_executor=debug")
        .stdout(Stdio::null())
        .spawn()
        .expect("kiln worker starts");
    let worker = Worker(worker);
    let bazel = Bazel::new(binary, "tests/workspace");
    assert_eq!(build(&bazel, &server.address), expected());
    // With one slot the first protocol's tool had to end before the other's could start, so only the latter is left.
    let tools = tools_of(worker.0.id());
    assert_eq!(tools.len(), 1);
    drop(worker);
    await_gone(&tools);
}
