//! A queue that runs, against a real repository.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kiln_ci::model::Time;
use kiln_ci::queue::git::{Check, Method};
use kiln_ci::queue::serving::{
    Desk, LaneName, Local, Parts, QueueError, Request, Runner, Settings, Step,
};
use kiln_ci::queue::{
    Add, Branch, Commit, End, Event, Held, Lane, Mode, Options, Outcome, Phase, RunId, Standing,
};
use kiln_ci::services::Clock;
use kiln_ci::storage::memory::Memory;
use kiln_ci::storage::{FileRecords, Records};
use tokio_util::sync::CancellationToken;

pub struct System;

impl Clock for System {
    fn now(&self) -> Time {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        Time(u64::try_from(since.as_millis()).expect("before the end of time"))
    }
}

pub struct Rig {
    pub directory: tempfile::TempDir,
}

pub fn git(at: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(at);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{who}_NAME"), "A")
            .env(format!("GIT_{who}_EMAIL"), "a@example.com");
    }
    let output = command.output().expect("git runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Rig {
    pub fn new() -> Self {
        let rig = Self { directory: tempfile::tempdir().expect("a directory") };
        let at = rig.directory.path();
        git(at, &["init", "--quiet", "--bare", "--initial-branch=main", "remote.git"]);
        git(at, &["clone", "--quiet", "remote.git", "work"]);
        rig.write("main", &[("shared", "base\n")]);
        rig
    }

    pub fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    /// A branch of one commit on top of the first one of `main`.
    pub fn write(&self, branch: &str, files: &[(&str, &str)]) {
        let work = self.work();
        if branch != "main" {
            git(&work, &["checkout", "--quiet", "-B", branch, "main"]);
        }
        for (name, text) in files {
            std::fs::write(work.join(name), text).expect("it is written");
        }
        git(&work, &["add", "--all"]);
        git(&work, &["commit", "--quiet", "-m", branch]);
        git(&work, &["push", "--quiet", "--force", "origin", &format!("HEAD:refs/heads/{branch}")]);
    }

    /// A file of a branch is damaged in the repository: nobody can fetch it.
    pub fn lose(&self, branch: &str, file: &str) {
        std::fs::remove_file(self.object(branch, file)).expect("it is there");
    }

    /// The path of the object that a file of a branch has in the repository.
    pub fn object(&self, branch: &str, file: &str) -> PathBuf {
        let remote = self.directory.path().join("remote.git");
        let blob = git(&remote, &["rev-parse", &format!("refs/heads/{branch}:{file}")]);
        let (folder, name) = blob.split_at(2);
        remote.join("objects").join(folder).join(name)
    }

    /// Files of the target as it is.
    pub fn landed(&self) -> Vec<String> {
        let remote = self.directory.path().join("remote.git");
        let files = git(&remote, &["ls-tree", "--name-only", "refs/heads/main"]);
        files.lines().filter(|it| *it != "shared").map(str::to_owned).collect()
    }

    pub fn settings(&self, check: &str, mode: Mode, workers: usize) -> Settings {
        let options = Options { mode, workers, ..Options::default() };
        Settings {
            lane: "main".to_owned(),
            remote: self.directory.path().join("remote.git").display().to_string(),
            target: Branch::new("main").expect("a name"),
            method: Method::Merge,
            check: Check { command: check.into(), limit_s: 60, env: Vec::new(), proven: false },
            impact: None,
            cost: None,
            options,
            fetch_limit: Duration::from_secs(60),
            poll: Duration::from_millis(200),
        }
    }

    pub fn parts(&self, records: Arc<dyn Records>) -> Parts {
        let name = LaneName::new("main").expect("a name");
        Parts {
            ledger: Arc::new(Local::new(records, name)),
            clock: Arc::new(System),
            directory: self.directory.path().join("queue"),
        }
    }
}

pub async fn ask(desk: &Desk, name: &str) {
    let branch = Branch::new(name).expect("a name");
    desk.ask(&Request::Add { branch, priority: 5 }, System.now()).await.expect("it is left");
}

/// Fails where a `bad` file is, and by chance where a `flaky` one is: the first time. Notes that it was told to test first
/// what failed.
pub fn check(rig: &Rig) -> String {
    let [told, once] = ["told", "once"].map(|it| rig.directory.path().join(it));
    format!(
        "grep -qsx //bad \"$KILN_QUEUE_FIRST\" && : >> '{}'; \
         if ls | grep -q ^bad; then echo //bad >> \"$KILN_QUEUE_FAILED\"; exit 1; fi; \
         if ls | grep -q ^flaky && mkdir '{}' 2>/dev/null; then exit 1; fi",
        told.display(),
        once.display()
    )
}

#[tokio::test]
async fn exactly_the_good_changes_land() {
    let rig = Rig::new();
    let records: Arc<dyn Records> =
        Arc::new(FileRecords::new(rig.directory.path().join("records")));
    let desk = Desk::new(records.clone(), LaneName::new("main").expect("a name"));
    let mut good: Vec<String> = Vec::new();
    for number in 0..30 {
        let name = match number {
            3 | 11 | 17 => format!("bad-{number}"),
            7 => "flaky-7".to_owned(),
            21 | 22 => format!("clash-{number}"),
            _ => format!("good-{number}"),
        };
        let shared = format!("{number}\n");
        match number {
            21 | 22 => rig.write(&name, &[("shared", shared.as_str())]),
            _ => rig.write(&name, &[(name.as_str(), shared.as_str())]),
        }
        if name.starts_with("good") || name.starts_with("flaky") {
            good.push(name.clone());
        }
        ask(&desk, &name).await;
    }
    ask(&desk, "never-was").await;
    // One was bad when it was added, and is pushed again.
    rig.write("bad-17", &[("mended-17", "")]);
    good.push("mended-17".to_owned());
    let settings = rig.settings(&check(&rig), Mode::Throughput, 3);
    let runner = Runner::begin(settings, rig.parts(records)).await.expect("it begins");
    runner.run(CancellationToken::new(), true).await.expect("it ends");
    good.sort();
    assert_eq!(rig.landed(), good);
    assert!(rig.directory.path().join("told").exists(), "whoever bisects knows what failed");
    let ended = desk.ended(100).await.expect("they are read");
    assert_eq!(ended.len(), 31);
    let of = |end: fn(&End) -> bool| -> Vec<String> {
        let mut names: Vec<_> =
            ended.iter().filter(|it| end(&it.end)).map(|it| it.branch.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(
        of(|it| matches!(it, End::Failed { targets, .. } if targets == &["//bad"])),
        ["bad-11", "bad-3"]
    );
    assert_eq!(of(|it| matches!(it, End::Conflict(_))).len(), 1, "one of two that clash");
    assert_eq!(of(|it| *it == End::Deleted), ["never-was"]);
    let remote = rig.directory.path().join("remote.git");
    let clash = git(&remote, &["show", "refs/heads/main:shared"]);
    assert!(clash == "21" || clash == "22", "{clash}");
}

#[tokio::test]
async fn what_a_killed_git_left_is_gone_when_a_queue_begins_again() {
    let rig = Rig::new();
    let records: Arc<dyn Records> = Arc::new(Memory::default());
    let desk = Desk::new(records.clone(), LaneName::new("main").expect("a name"));
    let run = async || {
        let settings = rig.settings("true", Mode::Throughput, 1);
        let runner = Runner::begin(settings, rig.parts(records.clone())).await.expect("it begins");
        runner.run(CancellationToken::new(), true).await.expect("it ends");
    };
    run().await;
    let clone = rig.directory.path().join("queue/repository.git");
    let locks = ["packed-refs.lock", "config.lock", "refs/kiln/heads/good.lock"];
    for lock in locks {
        std::fs::write(clone.join(lock), "").expect("it is written");
    }
    rig.write("good", &[("good", "")]);
    ask(&desk, "good").await;
    run().await;
    assert_eq!(rig.landed(), ["good"]);
    assert!(locks.iter().all(|it| !clone.join(it).exists()));
}

/// The batch passes and its push is refused. Then each of its changes is pushed by itself.
#[tokio::test]
async fn what_a_hook_refuses_is_held_and_holds_up_nobody_else() {
    let rig = Rig::new();
    let records: Arc<dyn Records> = Arc::new(Memory::default());
    let desk = Desk::new(records.clone(), LaneName::new("main").expect("a name"));
    for name in ["good-1", "secret", "good-2"] {
        rig.write(name, &[(name, "")]);
        ask(&desk, name).await;
    }
    let hooks = rig.directory.path().join("remote.git/hooks");
    std::fs::create_dir_all(&hooks).expect("a directory");
    let hook = hooks.join("update");
    let script = "#!/bin/sh\n! git cat-file -e \"$3:secret\" 2>/dev/null || { echo no secrets >&2; exit 1; }\n";
    std::fs::write(&hook, script).expect("it is written");
    let runs = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&hook, runs).expect("it is a file");
    let mut settings = rig.settings(&check(&rig), Mode::Throughput, 1);
    (settings.options.exact, settings.check.proven) = (true, true);
    let runner = Runner::begin(settings, rig.parts(records)).await.expect("it begins");
    runner.run(CancellationToken::new(), true).await.expect("it ends");
    assert_eq!(rig.landed(), ["good-1", "good-2"]);
    let lane = desk.lane().await.expect("it is read").expect("it has run");
    assert_eq!(lane.paused, None);
    let left: Vec<_> = lane.changes.values().map(|it| (it.branch.as_str(), &it.standing)).collect();
    let [("secret", Standing::Held(Held::Refused(why)))] = left.as_slice() else {
        panic!("{left:?}")
    };
    assert!(why.contains("no secrets"), "{why}");
}

/// A lane of which is said that a branch passed, and is about to land as it is.
fn said_to_have_passed(rig: &Rig, name: &str, settings: &Settings) -> Lane {
    let remote = rig.directory.path().join("remote.git");
    let head = |branch: &str| {
        let head = git(&remote, &["rev-parse", &format!("refs/heads/{branch}")]);
        Commit::new(&head).expect("a commit")
    };
    let (branch, commit) = (Branch::new(name).expect("a name"), head(name));
    let mut lane = Lane::new(settings.target.clone(), settings.options.clone());
    let mut apply = |event: Event| {
        lane.apply(event, System.now()).expect("it is taken");
        lane.runs.keys().next().copied()
    };
    apply(Event::Add(Add { branch, head: commit.clone(), priority: 5, impact: None }));
    let run: RunId = apply(Event::Target(head("main"))).expect("it is tested");
    apply(Event::Built { run, commit, left_out: Vec::new() });
    apply(Event::Finished { run, outcome: Outcome::Passed });
    assert_eq!(lane.runs[&run].phase, Phase::Landing);
    lane
}

/// Anybody with a runner's token, or the server, can claim that a run passed, or another runner may have died
/// before it pushed. So the runner tests again what it has not seen pass.
#[tokio::test]
async fn what_did_not_pass_here_is_tested_here_before_it_lands() {
    for (name, landed) in [("good-1", vec!["good-1"]), ("bad-1", Vec::new())] {
        let rig = Rig::new();
        rig.write(name, &[(name, "")]);
        let mark = rig.directory.path().join("checked");
        let check = format!("touch '{}'; {}", mark.display(), check(&rig));
        let mut settings = rig.settings(&check, Mode::Throughput, 1);
        (settings.options.exact, settings.check.proven) = (true, true);
        let lane = said_to_have_passed(&rig, name, &settings);
        let records: Arc<dyn Records> = Arc::new(Memory::default());
        let step = Step { lane, ended: Vec::new(), answered: Vec::new(), ran: Vec::new() };
        rig.parts(records.clone()).ledger.write(step).await.expect("it is written");
        let runner = Runner::begin(settings, rig.parts(records)).await.expect("it begins");
        runner.run(CancellationToken::new(), true).await.expect("it ends");
        assert_eq!(rig.landed(), landed, "{name}");
        assert!(mark.exists(), "{name} was tested");
    }
}

/// The target is green by the check that was: that it fails by the new one is no change's fault.
#[tokio::test]
async fn what_passed_by_another_check_counts_no_more() {
    let rig = Rig::new();
    let records: Arc<dyn Records> = Arc::new(Memory::default());
    let desk = Desk::new(records.clone(), LaneName::new("main").expect("a name"));
    for (name, check) in [("one", "true"), ("two", "false")] {
        rig.write(name, &[(name, "")]);
        ask(&desk, name).await;
        let mut settings = rig.settings(check, Mode::Throughput, 1);
        (settings.options.exact, settings.check.proven) = (true, true);
        let runner = Runner::begin(settings, rig.parts(records.clone())).await.expect("it begins");
        runner.run(CancellationToken::new(), true).await.expect("it ends");
    }
    assert_eq!(rig.landed(), ["one"]);
    let lane = desk.lane().await.expect("it is read").expect("it has run");
    let left: Vec<_> = lane.changes.values().map(|it| (it.branch.as_str(), &it.standing)).collect();
    assert!(matches!(left.as_slice(), [("two", Standing::Held(Held::RedBase(_)))]), "{left:?}");
}

/// A runner may be killed between any two steps, and the next one has to go on from there.
#[tokio::test]
async fn a_crash_between_any_two_steps_loses_nothing() {
    let rig = Rig::new();
    let memory = Memory::default();
    let records: Arc<dyn Records> = Arc::new(memory.clone());
    let desk = Desk::new(records.clone(), LaneName::new("main").expect("a name"));
    for name in ["good-1", "bad-1", "good-2"] {
        rig.write(name, &[(name, "")]);
        ask(&desk, name).await;
    }
    let (mut crashes, mut calls) = (0, 1);
    loop {
        memory.fail_after(calls, crashes % 2 == 0);
        let settings = rig.settings(&check(&rig), Mode::Throughput, 1);
        let lived = async {
            let runner = Runner::begin(settings, rig.parts(records.clone())).await?;
            runner.run(CancellationToken::new(), true).await
        };
        match lived.await {
            Ok(()) => break,
            Err(QueueError::Storage(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
        memory.recover();
        crashes += 1;
        // The crash hits each call twice: once the call is carried out, and once it is not.
        calls += u64::from(crashes % 2 == 0);
    }
    memory.recover();
    assert!(crashes > 10, "only {crashes} crashes");
    assert_eq!(rig.landed(), ["good-1", "good-2"]);
    let ended = desk.ended(10).await.expect("they are read");
    assert_eq!(ended.len(), 3, "each ends once: {ended:?}");
}

/// Files are the targets here. Two of these changes affect nothing in common and are tested once each; the others both
/// change `shared`, so that the second one is tested again on top of the first.
#[tokio::test]
async fn what_passed_counts_on_a_target_that_moved_where_no_file_differs_from_both() {
    for (first, second, checks) in [("one", "two", 2), ("shared", "shared", 3)] {
        let rig = Rig::new();
        let lines = |begin: &str, end: &str| format!("{begin}\n1\n2\n3\n4\n{end}\n");
        rig.write("main", &[("shared", lines("begin", "end").as_str())]);
        rig.write("warm", &[("warm", "")]);
        rig.write("first", &[(first, lines("BEGIN", "end").as_str())]);
        rig.write("second", &[(second, lines("begin", "END").as_str())]);
        let records: Arc<dyn Records> =
            Arc::new(FileRecords::new(rig.directory.path().join("records")));
        let desk = Desk::new(records.clone(), LaneName::new("main").expect("a name"));
        let ran = rig.directory.path().join("ran");
        let check = format!("echo \"$KILN_QUEUE_BRANCHES\" >> '{}'", ran.display());
        let mut settings = rig.settings(&check, Mode::Throughput, 2);
        settings.options.independent = true;
        let command = r#"git diff --name-only "$KILN_QUEUE_BASE" HEAD > "$KILN_QUEUE_IMPACT""#;
        settings.impact = Some(Check { command: command.into(), ..settings.check.clone() });
        // The target is green once something has landed.
        for names in [vec!["warm"], vec!["first", "second"]] {
            for name in names {
                ask(&desk, name).await;
            }
            let runner = Runner::begin(settings.clone(), rig.parts(records.clone())).await;
            let runner = runner.expect("it begins");
            runner.run(CancellationToken::new(), true).await.expect("it ends");
        }
        let ended = desk.ended(10).await.expect("they are read");
        assert_eq!(ended.len(), 3);
        assert!(ended.iter().all(|it| matches!(it.end, End::Landed(_))), "{ended:?}");
        let ran = std::fs::read_to_string(ran).expect("checks ran");
        assert_eq!(ran.lines().count(), 1 + checks, "{first}, {second}: {ran}");
        let remote = rig.directory.path().join("remote.git");
        let of = |name: &str| git(&remote, &["show", &format!("refs/heads/main:{name}")]);
        assert!(of(first).starts_with("BEGIN") && of(second).ends_with("END"));
    }
}
