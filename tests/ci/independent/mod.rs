//! `kiln queue run --independent` with a real Bazel: there is a repository of a few packages, a server that executes
//! their tests, and branches of which Bazel's targets say whether they have anything in common.

use crate::hosted_queue::{Bench, Runner, git};
use crate::impact::run;
use crate::support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::bazel::script;
use support::server::{Server, get_json, get_text};
use support::{client, root};

/// How long the tests wait for something at most. On a busy machine Bazel alone takes minutes to start.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(100);

const LEFT: &str = "//left:left_test";
const RIGHT: &str = "//right:right_test";
const APART: &str = "//apart:apart_test";
const TESTS: [&str; 3] = [LEFT, RIGHT, APART];

/// The branches whose check waits until the test opens their gate.
const GATED: [&str; 3] = ["slow", "shared", "everything"];
/// The part of the check's script that waits at the gate of its branch, and leaves a file by which the test sees
/// that.
const GATE: &str = r#"while [ -e "$GATES/$KILN_QUEUE_BRANCHES.closed" ]; do
  : >"$GATES/$KILN_QUEUE_BRANCHES.waits"
  sleep 0.1
done"#;

struct Rig {
    /// The runner of the queue, or `None` once it has ended.
    runner: Option<Runner>,
    bench: Bench,
    /// The path of a script that runs Bazel.
    bazel: PathBuf,
}

impl Rig {
    fn start() -> Option<Self> {
        let binary = client("KILN_BAZEL")?;
        let place = tempfile::tempdir().expect("a directory");
        let bazel = script(&binary, place.path());
        let server = Server::start(&place.path().join("kiln"), &["--workers", "2"]);
        let bench = Bench { server, place, within: PATIENCE, look: LOOK };
        let mut rig = Self { runner: None, bench, bazel };
        rig.begin_repository();
        std::fs::create_dir(rig.place().join("gates")).expect("a directory");
        for branch in GATED {
            std::fs::write(rig.gate(branch, "closed"), "").expect("a gate");
        }
        rig.runner = Some(rig.begin_runner());
        rig.bench.until("the runner has looked", |it| it["base"].is_string());
        Some(rig)
    }

    fn place(&self) -> &Path {
        self.bench.place.path()
    }

    fn app(&self) -> PathBuf {
        self.place().join("app.git")
    }

    /// Returns the directory in which the runner has its clone and its trees.
    fn state(&self) -> PathBuf {
        self.place().join("state/app")
    }

    fn gate(&self, branch: &str, what: &str) -> PathBuf {
        self.place().join("gates").join(format!("{branch}.{what}"))
    }

    /// Commits the workspace as the first commit of `main` and pushes a branch of each kind.
    fn begin_repository(&self) {
        git(self.place(), &["init", "--quiet", "--bare", "--initial-branch=main", "app.git"]);
        git(self.place(), &["clone", "--quiet", "app.git", "work"]);
        let work = self.bench.work();
        let from = root().join("tests/ci/independent/workspace/.");
        let copied = Command::new("cp").arg("-r").arg(from).arg(&work).status();
        assert!(copied.expect("cp runs").success());
        // WORKSPACE names directories of Kiln's sources by relative paths, which have to become absolute ones in the
        // copy.
        let (path, root) = (work.join("WORKSPACE"), format!("{}/", root().display()));
        let text = std::fs::read_to_string(&path).expect("it is there");
        std::fs::write(&path, text.replace("../../../../", &root)).expect("it is written");
        git(&work, &["add", "--all"]);
        git(&work, &["commit", "--quiet", "-m", "Begin"]);
        git(&work, &["push", "--quiet", "origin", "HEAD:refs/heads/main"]);

        self.branch("first", "WORKSPACE", |it| format!("{it}# changed\n"));
        self.branch("slow", "right/word.txt", |_| "two\n".to_owned());
        self.branch("quick", "left/word.txt", |_| "two\n".to_owned());
        self.branch("bad", "apart/word.txt", |_| "wrong\n".to_owned());
        self.branch("shared", "common/words.txt", |it| format!("{it}four\n"));
        self.branch("everything", ".bazelrc", |it| format!("{it}# changed\n"));
    }

    /// Pushes a branch with one commit on top of the first one of `main`. The commit replaces the text of `file` by
    /// what `edit` makes of it.
    fn branch(&self, name: &str, file: &str, edit: impl Fn(&str) -> String) {
        let work = self.bench.work();
        git(&work, &["checkout", "--quiet", "-B", name, "main"]);
        let path = work.join(file);
        let text = std::fs::read_to_string(&path).expect("it is there");
        std::fs::write(&path, edit(&text)).expect("it is written");
        git(&work, &["commit", "--quiet", "--all", "-m", name]);
        git(&work, &["push", "--quiet", "origin", &format!("HEAD:refs/heads/{name}")]);
    }

    /// Starts a runner whose check is the one that docs/merge-queue.md shows, with the gate added.
    fn begin_runner(&self) -> Runner {
        let (kiln, bazel) = (env!("CARGO_BIN_EXE_kiln"), self.bazel.display());
        let impact = format!("'{kiln}' impact --bazel '{bazel}' --base \"$KILN_QUEUE_BASE\"");
        let test = format!(
            "'{bazel}' test --config=kiln {} --target_pattern_file=tests.txt",
            self.executor()
        );
        let check = format!(
            "{impact} --tests-to tests.txt && {GATE} && if [ -s tests.txt ]; then {test}; fi"
        );
        let impact = format!("{impact} --targets-to \"$KILN_QUEUE_IMPACT\"");
        let mut command = Command::new(kiln);
        command
            .args(["queue", "run", "--server", &self.bench.server.url(), "--queue", "app"])
            .arg("--state")
            .arg(self.place().join("state"))
            .arg("--repo")
            .arg(self.app())
            .args(["--check", &check, "--impact", &impact, "--env", "GATES"])
            .args(["--independent", "--flakes-ruled-out", "--workers", "2", "--poll", "1s"])
            .env("GATES", self.place().join("gates"))
            .stdin(Stdio::null());
        Runner(command.spawn().expect("kiln starts"))
    }

    fn executor(&self) -> String {
        format!("--remote_executor=grpc://{}", self.bench.server.address)
    }

    fn add(&self, branch: &str) {
        let (code, said) = self.bench.queue(&["add", "--branch", branch]);
        assert_eq!(code, Some(0), "{said}");
    }

    /// Waits until the check of a branch stands at its gate.
    fn waits(&self, branch: &str) {
        let (noted, began) = (self.gate(branch, "waits"), Instant::now());
        while !noted.exists() {
            assert!(began.elapsed() < PATIENCE, "{branch}: {:#}", self.bench.shown());
            std::thread::park_timeout(LOOK);
        }
    }

    fn open(&self, branch: &str) {
        std::fs::remove_file(self.gate(branch, "closed")).expect("its gate was closed");
    }

    /// Waits until a branch has landed, and returns the commit of `main` that it landed in.
    fn landed(&self, branch: &str) -> String {
        let left = self.bench.left(branch);
        assert_eq!(left["landed"], true, "{left:#}");
        left["commit"].as_str().expect("a commit").to_owned()
    }

    fn standing(&self, branch: &str) -> String {
        let shown = self.bench.shown();
        let changes = shown["changes"].as_array().expect("a list");
        let change = changes.iter().find(|it| it["branch"] == branch).expect("it is queued");
        change["standing"].as_str().expect("a word").to_owned()
    }

    /// Returns the ended runs in which a branch was checked by itself, oldest first.
    fn ran(&self, branch: &str) -> Vec<Value> {
        let shown = self.bench.shown();
        let all = shown["ran"].as_array().expect("a list");
        let mut own: Vec<_> =
            all.iter().filter(|it| it["branches"] == json!([branch])).cloned().collect();
        own.reverse();
        own
    }

    /// Returns for each run in which a branch was checked by itself the commit that it began on, and the tests that
    /// Bazel ran.
    fn tested(&self, branch: &str) -> Vec<(String, Vec<&'static str>)> {
        let tested = |run: &Value| {
            let path = format!("/api/v1/merge-queues/app/runs/{}", run["run"]);
            let run = get_json(&self.bench.server.address, &path);
            let (base, log) = (run["base"].as_str(), run["log"].as_str());
            let log = log.expect("what it printed");
            let tests: Vec<_> = TESTS.into_iter().filter(|test| log.contains(test)).collect();
            (base.expect("a commit").to_owned(), tests)
        };
        self.ran(branch).iter().map(tested).collect()
    }

    /// Returns the commit that was tested in the last run in which a branch was checked by itself.
    fn last_commit(&self, branch: &str) -> String {
        let ran = self.ran(branch);
        let commit = ran.last().and_then(|it| it["commit"].as_str());
        commit.expect("a commit").to_owned()
    }

    /// Asserts that all tests pass at each commit. It ends the runner first, so that it can use the Bazel server of a
    /// tree that nobody uses any more.
    fn all_pass(&mut self, commits: &[&String]) {
        drop(self.runner.take());
        let (tree, executor) = (self.state().join("trees/slot-0"), self.executor());
        for commit in commits {
            git(&tree, &["checkout", "--quiet", "--force", "--detach", commit]);
            let said = run(&self.bazel, &["test", "--config=kiln", &executor, "//..."], &tree);
            assert_eq!(said.code, 0, "{commit}: {}{}", said.stdout, said.stderr);
        }
    }

    /// Returns the trees in which a Bazel server has run: those of the checks, and the one of `kiln impact`.
    fn trees(&self) -> Vec<PathBuf> {
        let slots = std::fs::read_dir(self.state().join("trees"));
        let slots = slots.into_iter().flatten().flatten().map(|it| it.path());
        let compared = self.state().join("repository.git/kiln/impact/tree");
        slots.chain([compared]).filter(|it| it.is_dir()).collect()
    }
}

impl Drop for Rig {
    /// Stops Bazel's servers, which hold open the output bases in the directory that is deleted next.
    fn drop(&mut self) {
        drop(self.runner.take());
        for tree in self.trees() {
            run(&self.bazel, &["shutdown"], &tree);
        }
    }
}

#[test]
fn changes_land_independently_where_bazel_names_no_target_that_both_affect() {
    let Some(mut rig) = Rig::start() else { return };
    let begin = git(&rig.app(), &["rev-parse", "main"]);
    // The check of the first branch runs all tests. They pass, so the queue knows from now on that the target is
    // green.
    rig.add("first");
    let first = rig.landed("first");

    // While the queue checks a slow change, a quick one lands, and a bad one is rejected.
    rig.add("slow");
    rig.waits("slow");
    rig.add("quick");
    let quick = rig.landed("quick");
    rig.add("bad");
    let bad = rig.bench.left("bad");
    assert_eq!(bad["rejected"], true, "{bad:#}");
    let log = format!("/merge-queues/app/runs/{}", bad["run"]);
    let log = get_text(&rig.bench.server.address, &log);
    assert!(log.contains("apart says wrong"), "{log}");
    assert_eq!(rig.standing("slow"), "checking");

    // The branch `shared` has a test in common with the slow one and passes without it. The branch `everything`
    // affects all targets and passes without either.
    rig.add("shared");
    rig.waits("shared");
    rig.open("slow");
    let slow = rig.landed("slow");
    rig.add("everything");
    rig.waits("everything");
    rig.open("shared");
    let shared = rig.landed("shared");
    rig.open("everything");
    let everything = rig.landed("everything");

    // The queue tests each branch once on what the target was, and again on top of what has landed only where both
    // affect the same test.
    let all = TESTS.to_vec();
    assert_eq!(rig.tested("first"), [(begin.clone(), all.clone())]);
    assert_eq!(rig.tested("slow"), [(first.clone(), vec![RIGHT])]);
    assert_eq!(rig.tested("quick"), [(first.clone(), vec![LEFT])]);
    assert_eq!(rig.tested("bad"), [(quick.clone(), vec![APART])]);
    let both = vec![LEFT, RIGHT];
    assert_eq!(rig.tested("shared"), [(quick.clone(), both.clone()), (slow.clone(), both)]);
    let again = [(slow.clone(), all.clone()), (shared.clone(), all)];
    assert_eq!(rig.tested("everything"), again);

    // Each commit of the target is one that was tested, but for the slow branch's: the queue put that one together of
    // two changes that passed.
    for (branch, commit) in
        [("first", &first), ("quick", &quick), ("shared", &shared), ("everything", &everything)]
    {
        assert_eq!(rig.last_commit(branch), *commit, "{branch}");
    }
    assert_ne!(rig.last_commit("slow"), slow);
    let shown = rig.bench.shown();
    let ended = shown["ended"].as_array().expect("a list");
    let rejected = ended.iter().filter(|it| it["rejected"] == true).map(|it| &it["branch"]);
    assert_eq!(rejected.collect::<Vec<_>>(), ["bad"]);
    let range = format!("{begin}..main");
    let commits = git(&rig.app(), &["rev-list", "--reverse", "--first-parent", &range]);
    let landed = [&first, &quick, &slow, &shared, &everything];
    assert_eq!(commits.lines().collect::<Vec<_>>(), landed);
    rig.all_pass(&landed);
}
