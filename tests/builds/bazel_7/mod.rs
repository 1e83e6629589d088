//! Builds with Bazel 7.7.1, and what no older Bazel does. One Bazel server runs all scenarios one after the other,
//! because its start takes longer than most of them.

#![allow(clippy::panic)]

use crate::support;

mod builds;
mod losses;
mod names;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::bazel::{Bazel, Run};
use support::server::{Server, command, metric};

type Scenario = (&'static str, fn(&Rig));

/// A copy of the workspace that scenarios may change, and the Kiln server that executes its actions.
struct Rig {
    bazel: Bazel,
    server: Server,
    directory: tempfile::TempDir,
}

impl Rig {
    fn new(binary: PathBuf) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let workspace = directory.path().join("workspace");
        copy("tests/builds/bazel_7/workspace", &workspace);
        copy("tests/workspace/persistent/tool.py", &workspace.join("tools/tool.py"));
        let data = directory.path().join("kiln");
        let mut serve = command("127.0.0.1:0", &data, &["--workers", "2", "--allow-cache-updates"]);
        serve.env("KILN_WORKERS_PERSISTENT", "4");
        let server = Server::spawn(serve, &data);
        Self { bazel: Bazel::new(binary, &workspace.display().to_string()), server, directory }
    }

    /// Runs Bazel with remote execution in an instance of the scenario's own, where no other scenario has left a
    /// result.
    fn remote(&self, instance: &str, arguments: &[&str]) -> Run {
        let instance = format!("--remote_instance_name={instance}");
        let mut all = arguments.to_vec();
        all.insert(1, &instance);
        self.bazel.remote(&self.server.address, &all)
    }

    /// Runs Bazel so that it executes actions on this machine and uses the server as a cache only.
    fn cached(&self, instance: &str, arguments: &[&str]) -> Run {
        let instance = format!("--remote_instance_name={instance}");
        let cache = format!("--remote_cache=grpc://{}", self.server.address);
        let mut all = arguments.to_vec();
        all.splice(1..1, [instance.as_str(), &cache]);
        self.bazel.local(&all)
    }

    /// Returns the bytes of an action's output, whose `path` is relative to `bazel-bin`. Panics if there is no such
    /// file.
    fn output(&self, path: impl AsRef<Path>) -> Vec<u8> {
        let path = self.bazel.bin().join(path);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Writes `text` into a source file, whose `path` is relative to the workspace.
    fn write(&self, path: &str, text: &str) {
        std::fs::write(self.bazel.workspace().join(path), text).expect("a writable workspace");
    }

    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        metric(&self.server.address, name, labels)
    }
}

fn copy(from: &str, to: &Path) {
    let copied = Command::new("cp").arg("-r").arg(support::root().join(from)).arg(to).status();
    assert!(copied.expect("cp runs").success());
}

#[test]
fn a_newer_bazel_finds_all_that_it_asks_for() {
    // This Bazel comes from Debian sid, which changes often and is not always complete. So it is the one client that
    // may be missing without failing the tests.
    let Some(binary) = std::env::var_os("KILN_BAZEL_7").map(PathBuf::from) else {
        eprintln!("SKIPPED: KILN_BAZEL_7 is not set; scripts/test.sh installs it where it can");
        return;
    };
    let mut rig = Rig::new(binary.clone());
    let scenarios: [Scenario; 12] = [
        ("tools are told by Bazel's own marks", builds::marks),
        ("messages of what succeeds", builds::messages),
        ("names beyond ASCII", names::beyond_ascii),
        ("a disk cache beside the server", builds::disk_cache),
        ("asynchronous uploads", builds::asynchronous_uploads),
        ("compression", builds::compression),
        ("tests that are flaky, in shards, out of time", builds::tests),
        ("an interrupted build", losses::interrupted),
        ("a server that is lost, with local fallback", losses::local_fallback),
        ("intermediate outputs that have gone", losses::without_the_bytes),
        ("a final output that has gone", losses::toplevel),
        ("inputs that have gone", losses::inputs),
    ];
    let run = |rig: &Rig, (name, scenario): Scenario| {
        println!("{name}");
        let start = std::time::Instant::now();
        scenario(rig);
        println!("  {:.1} s", start.elapsed().as_secs_f64());
    };
    for scenario in scenarios {
        run(&rig, scenario);
    }
    rig.bazel.startup = vec!["--digest_function=BLAKE3"];
    run(&rig, ("BLAKE3", builds::blake3));
    example(binary, &rig.server);
}

/// Builds the example as a newcomer does, but without a network. Bazel only analyses the C++ part, because the `/usr`
/// that this Bazel sees has no compiler.
fn example(binary: PathBuf, server: &Server) {
    let bazel = Bazel::new(binary, "examples/bazel");
    let options = ["build", "--config=offline", "--repo_env=CC=/usr/bin/true"];
    bazel.local(&[&options[..], &["--nobuild", "//..."]].concat()).expect_success();
    let text = bazel.remote(&server.address, &[&options[..], &["//text/..."]].concat());
    assert!(text.expect_success().processes("remote") > 0, "nothing ran remotely");
}
