//! A merge queue at a server: the repository is real, the runners are processes of their own, and the tests ask the
//! server for everything else.

#![allow(clippy::panic)]

use crate::support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::server::{Server, get_json, get_text, metric};

const WITHIN: Duration = Duration::from_secs(40);
const LOOK: Duration = Duration::from_millis(10);

/// A runner's process, which is killed when the value is dropped.
pub struct Runner(pub Child);

impl Drop for Runner {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A server, and a bare repository `app.git` with a clone `work` beside it.
pub struct Bench {
    pub server: Server,
    pub place: tempfile::TempDir,
    /// How long the tests wait for something at most, and how long they pause between two looks.
    pub within: Duration,
    pub look: Duration,
}

pub fn git(place: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command
        .args(["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"])
        .args(["-c", "init.defaultBranch=main"])
        .args(arguments)
        .current_dir(place)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    let output = command.output().expect("git runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Bench {
    fn start() -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let server = Server::start(&place.path().join("kiln"), &["--workers", "0"]);
        let bench = Self { server, place, within: WITHIN, look: LOOK };
        let root = bench.place.path();
        git(root, &["init", "--quiet", "--bare", "--initial-branch=main", "app.git"]);
        git(root, &["clone", "--quiet", "app.git", "work"]);
        bench.commit("main", "base");
        for branch in ["good", "bad", "later"] {
            git(&bench.work(), &["checkout", "--quiet", "-B", branch, "main"]);
            bench.commit(branch, branch);
        }
        bench
    }

    pub fn work(&self) -> PathBuf {
        self.place.path().join("work")
    }

    fn commit(&self, branch: &str, file: &str) {
        std::fs::write(self.work().join(file), "x").expect("it is written");
        git(&self.work(), &["add", "."]);
        git(&self.work(), &["commit", "--quiet", "-m", branch]);
        git(&self.work(), &["push", "--quiet", "origin", &format!("HEAD:refs/heads/{branch}")]);
    }

    fn runner(&self, state: &str) -> Runner {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command
            .args(["queue", "run", "--server", &self.server.url(), "--queue", "app", "--state"])
            .arg(self.place.path().join(state))
            .arg("--repo")
            .arg(self.place.path().join("app.git"))
            .args(["--check", "if test -e bad; then echo 'it is <bad>'; exit 1; fi"])
            .args(["--flakes-ruled-out", "--poll", "1s"])
            .stdin(Stdio::null());
        Runner(command.spawn().expect("kiln starts"))
    }

    /// Runs `kiln queue` with these arguments at the server. Returns the exit code and all that it printed.
    pub fn queue(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.arg("queue").args(arguments).args([
            "--server",
            &self.server.url(),
            "--queue",
            "app",
        ]);
        let output = command.output().expect("kiln runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    pub fn shown(&self) -> Value {
        get_json(&self.server.address, "/api/v1/merge-queues/app")
    }

    pub fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let listed = get_json(&self.server.address, "/api/v1/merge-queues");
            let there = listed["queues"].as_array().is_some_and(|it| !it.is_empty());
            let shown = if there { self.shown() } else { Value::Null };
            if there && is_so(&shown) {
                return shown;
            }
            assert!(began.elapsed() < self.within, "{what}: {shown:#}");
            std::thread::park_timeout(self.look);
        }
    }

    /// Waits until a branch has left the queue and returns the queue's record of that. Panics after `within`.
    pub fn left(&self, branch: &str) -> Value {
        let is_it = |it: &&Value| it["branch"] == branch;
        let of = |shown: &Value| shown["ended"].as_array()?.iter().find(is_it).cloned();
        let shown = self.until(branch, |shown| of(shown).is_some());
        of(&shown).expect("it has left")
    }
}

#[test]
fn a_queue_at_a_server_lands_rejects_pauses_and_outlives_its_runner() {
    let bench = Bench::start();
    let (code, said) = bench.queue(&["add", "--branch", "good"]);
    assert!(code == Some(1) && said.contains("there is no merge queue"), "{said}");
    let first = bench.runner("one");
    bench.until("the runner has looked", |it| it["base"].is_string());

    let (code, said) = bench.queue(&["add", "--branch", "good"]);
    assert!(code == Some(0) && said.contains("good is queued"), "{said}");
    let (code, said) = bench.queue(&["add", "--branch", "missing"]);
    assert!(code == Some(1) && said.contains("no branch missing"), "{said}");
    let landed = bench.left("good");
    let target = git(&bench.place.path().join("app.git"), &["rev-parse", "refs/heads/main"]);
    assert_eq!((&landed["landed"], &landed["commit"]), (&true.into(), &target.into()));

    bench.queue(&["add", "--branch", "bad"]);
    let rejected = bench.left("bad");
    assert_eq!(rejected["rejected"], true, "{rejected}");
    let run = format!("/merge-queues/app/runs/{}", rejected["run"]);
    assert!(get_text(&bench.server.address, &run).contains("it is &lt;bad&gt;"));
    let page = get_text(&bench.server.address, "/merge-queues/app");
    assert!(page.contains(&run) && page.contains("landed in"), "{page}");
    let (code, said) = bench.queue(&["show", "--branch", "bad"]);
    assert!(code == Some(0) && said.contains("rejected") && said.contains(&run), "{said}");

    let (code, said) = bench.queue(&["pause", "--reason", "lunch"]);
    assert!(code == Some(0) && said.contains("is paused"), "{said}");
    bench.queue(&["add", "--branch", "later"]);
    let (code, said) = bench.queue(&["explain", "--branch", "later"]);
    assert!(code == Some(0) && said.contains("the queue is paused: lunch"), "{said}");

    // The second runner stands by until the first one is killed, and then goes on from what the first one wrote.
    let _second = bench.runner("two");
    drop(first);
    let (code, said) = bench.queue(&["resume"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(bench.left("later")["landed"], true);
    let files = git(&bench.place.path().join("app.git"), &["ls-tree", "--name-only", "main"]);
    assert_eq!(files.lines().collect::<Vec<_>>(), ["base", "good", "later"]);
    let changes =
        |end| metric(&bench.server.address, "kiln_merge_queue_changes_total", &[("end", end)]);
    assert_eq!((changes("landed"), changes("rejected")), (2.0, 1.0));
}
