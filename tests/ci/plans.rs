//! A plan on a server, and runners that take its pieces with `kiln tests next`.

#![allow(clippy::panic)]

use crate::support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use support::server::Server;

/// The exit code by which `kiln tests next` says that nothing is left of the plan.
const NOTHING_LEFT: i32 = 7;
const PLAN: &str = "pipeline/17";

struct Bench {
    server: Server,
    durations: String,
    data: tempfile::TempDir,
}

impl Bench {
    fn start() -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let path = data.path().join("durations.json");
        let tests: Vec<_> = (0..20).map(|it| format!("\"a.py::t[{it} x]\": {}", it + 1)).collect();
        std::fs::write(&path, format!("{{{}}}", tests.join(", "))).expect("it is written");
        let server = Server::start(&data.path().join("kiln"), &["--workers", "0"]);
        let durations = path.to_str().expect("a plain path").to_owned();
        Self { server, durations, data }
    }

    /// Runs `kiln tests` at the server with these arguments. Returns the exit code, stdout and stderr.
    fn kiln(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut kiln = Command::new(env!("CARGO_BIN_EXE_kiln"));
        kiln.args(["--server", &self.server.url(), "tests"]).args(arguments);
        for variable in [
            "GITHUB_RUN_ATTEMPT",
            "BUILDKITE_RETRY_COUNT",
            "CI_JOB_ID",
            "CIRCLE_WORKFLOW_JOB_ID",
            "SYSTEM_JOBATTEMPT",
        ] {
            kiln.env_remove(variable);
        }
        let output = kiln.output().expect("kiln runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    fn keep(&self, shards: &str) -> (i32, String, String) {
        let durations = ["shards", "--durations", &self.durations];
        self.kiln(&[&durations[..], &["--shards", shards, "--keep", PLAN]].concat())
    }

    fn next(&self, runner: &str, attempt: &str, more: &[&str]) -> (i32, String, String) {
        let base = ["next", "--plan", PLAN, "--runner", runner, "--attempt", attempt];
        self.kiln(&[&base[..], more].concat())
    }

    /// Takes pieces for a runner until nothing is left for it or it has `most` of them. Returns them in order.
    fn all(&self, runner: &str, attempt: &str, most: usize) -> Vec<String> {
        let mut all = Vec::new();
        while all.len() < most {
            match self.next(runner, attempt, &[]) {
                (0, tests, _) => all.push(tests),
                (NOTHING_LEFT, ..) => break,
                other => panic!("{other:?}"),
            }
        }
        all
    }

    fn restart(self) -> Self {
        let Self { server, durations, data } = self;
        assert!(server.terminate().success());
        let server = Server::start(&data.path().join("kiln"), &["--workers", "0"]);
        Self { server, durations, data }
    }
}

#[test]
fn runners_take_pieces_and_a_retry_gets_those_that_it_had() {
    let bench = Bench::start();
    let (code, _, said) = bench.next("a", "1", &[]);
    assert_eq!(code, 1, "there is no plan, which is not the end of one: {said}");
    let (code, out, said) = bench.keep("6");
    assert_eq!((code, &*out), (0, ""), "{said}");
    assert!(said.contains("in 6 pieces"), "{said}");
    let (code, _, said) = bench.keep("3");
    assert!(code == 0 && said.contains("there already") && said.contains("in 6 pieces"), "{said}");

    // A job that could not be told from the same one run again would turn green without what failed.
    let (code, _, said) = bench.kiln(&["next", "--plan", PLAN, "--runner", "a"]);
    assert!(code == 2 && said.contains("--attempt"), "{code}: {said}");
    let first = bench.next("a", "1", &["--format", "pytest"]);
    assert!(first.0 == 0 && first.1.starts_with("'a.py::t["), "{first:?}");
    assert!(first.2.contains("piece 1 of 6: "), "{first:?}");
    let mut had = bench.all("a", "1", 1);
    had.insert(0, unquoted(&first.1));
    let others = bench.all("b", "1", 9);
    assert_eq!(others.len(), 4);
    let tests: Vec<&str> = had.iter().chain(&others).flat_map(|it| it.lines()).collect();
    assert_eq!((tests.len(), tests.iter().collect::<BTreeSet<_>>().len()), (20, 20), "{tests:?}");
    assert_eq!(bench.kiln(&["plan", PLAN, "--complete"]).0, 1, "a died with its second piece");

    let bench = bench.restart();
    assert_eq!(bench.all("a", "2", 9), had);
    assert_eq!(bench.next("a", "1", &[]).0, 2, "its time is over");
    let (code, shown, _) = bench.kiln(&["plan", PLAN, "--complete"]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("20 tests in 6 pieces: 6 done"), "{shown}");

    let other = bench.data.path().join("list.txt");
    std::fs::write(&other, "a.py::new\n").expect("it is written");
    let list = path(&other);
    let (code, _, said) = bench.kiln(&[
        "shards",
        "--durations",
        &bench.durations,
        "--tests",
        list,
        "--shards",
        "1",
        "--keep",
        PLAN,
    ]);
    assert!(code == 4 && said.contains("of other tests"), "{code}: {said}");
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// Turns a line of words in quotes into names, one on a line.
fn unquoted(words: &str) -> String {
    words.trim_end().trim_matches('\'').replace("' '", "\n") + "\n"
}
