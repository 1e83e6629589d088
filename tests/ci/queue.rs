//! The example of `kiln queue`, a real repository with branches of all kinds and a real Bazel: only the good ones may land. And
//! queues that a directory keeps, without a server.

use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kiln_test_servers::pause;

use crate::support;

const WITHIN: Duration = Duration::from_secs(40);

#[test]
fn the_example_lands_exactly_the_good_changes() {
    let Some(bazel) = support::client("KILN_BAZEL") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    // The script's path has a space, at which a careless script would split it.
    let (root, made) = (directory.path().join("a root"), directory.path().join("made"));
    std::os::unix::fs::symlink(support::root(), &root).expect("a link");
    std::fs::create_dir(&made).expect("a directory");
    let mut command = Command::new(root.join("examples/queue/run.sh"));
    command.env("KILN", env!("CARGO_BIN_EXE_kiln")).env("BAZEL", bazel).env("TMPDIR", &made);
    command.env("KILN_WORKERS_MEMORY", "1GiB").stdin(Stdio::null());
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("26 good changes and one of two that conflict have landed"), "{said}");
    let left = std::fs::read_dir(&made).expect("it is there").count();
    assert_eq!(left, 0, "files are left");
}

/// Makes a repository `app.git` whose branch `change` changes its only file.
fn repository(place: &Path) {
    let script = "git init --quiet --bare --initial-branch=main app.git
        git clone --quiet app.git work 2>/dev/null
        cd work
        echo old >file && git add file && git commit --quiet -m Begin
        git push --quiet origin HEAD:refs/heads/main
        echo new >file && git commit --quiet -a -m Change
        git push --quiet origin HEAD:refs/heads/change";
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(place);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Somebody");
        command.env(format!("GIT_{who}_EMAIL"), "somebody@example.com");
    }
    assert!(command.status().expect("it runs").success());
    std::fs::create_dir(place.join("queue")).expect("a directory");
}

/// Runs `kiln queue` for the queue in the directory `queue`, without a server.
fn queue(place: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.arg("queue").args(arguments).args(["--state", "queue"]).current_dir(place);
    command
}

#[test]
fn a_queue_in_a_directory_says_what_became_of_each() {
    let directory = tempfile::tempdir().expect("a directory");
    repository(directory.path());
    let kiln = |arguments: &[&str]| {
        let output = queue(directory.path(), arguments).output().expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let check = "if grep -q new file; then echo //:file >>\"$KILN_QUEUE_FAILED\"; exit 1; fi";
    let run = ["run", "--repo", "app.git", "--flakes-ruled-out", "--until-idle", "--poll", "1s"];
    for (check, became) in [(check, "rejected: //:file failed"), ("true", "landed")] {
        let (code, said) = kiln(&["add", "--branch", "change"]);
        assert_eq!(code, Some(0), "{said}");
        let (code, said) = kiln(&[&run[..], &["--check", check]].concat());
        assert_eq!(code, Some(0), "{said}");
        let (code, shown) = kiln(&["show", "--branch", "change"]);
        assert!(code == Some(0) && shown.contains(became), "{shown}");
    }
    let (code, shown) = kiln(&["explain", "--branch", "change", "--json"]);
    assert!(code == Some(0) && shown.contains("landed"), "{shown}");
    let (code, shown) = kiln(&["show", "--branch", "no-such-branch"]);
    assert_eq!(code, Some(1), "{shown}");
    let (code, shown) = kiln(&["add", "--branch", "--upload-pack=x"]);
    assert_eq!(code, Some(2), "{shown}");
}

/// A process that is killed when the value is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Returns whether a process runs. A zombie, which has ended without its parent having asked how, does not.
fn lives(process: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn a_queue_that_is_killed_takes_its_check_along() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path();
    repository(place);
    let kiln = |arguments: &[&str]| queue(place, arguments);
    let added = kiln(&["add", "--branch", "change"]).output().expect("it runs");
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let noted = place.join("noted");
    let check = "sleep 600 & echo $$ $! >\"$NOTED.new\" && mv \"$NOTED.new\" \"$NOTED\"; wait";
    let mut run = kiln(&["run", "--repo", "app.git", "--check", check, "--env", "NOTED"]);
    run.args(["--poll", "1s"]).env("NOTED", &noted).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(run.spawn().expect("it runs"));
    let until = Instant::now() + WITHIN;
    while !noted.exists() {
        assert!(Instant::now() < until, "the check does not begin");
        pause();
    }
    let processes = std::fs::read_to_string(&noted).expect("the check has written it");
    let processes: Vec<_> = processes.split_whitespace().collect();
    assert!(processes.len() == 2 && processes.iter().all(|it| lives(it)), "{processes:?}");
    drop(running);
    let until = Instant::now() + WITHIN;
    while processes.iter().any(|it| lives(it)) {
        assert!(Instant::now() < until, "they go on: {processes:?}");
        pause();
    }
}

#[test]
fn a_queue_that_is_killed_takes_a_git_along_that_hangs() {
    let directory = tempfile::tempdir().expect("a directory");
    // A server that stands for a repository. It takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    silent.set_nonblocking(true).expect("it is a socket");
    let remote = format!("git://{}/app.git", silent.local_addr().expect("it is bound"));
    let mut run = Command::new(env!("CARGO_BIN_EXE_kiln"));
    run.args(["queue", "run", "--state", "queue", "--repo", &remote, "--check", "true"]);
    run.current_dir(directory.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(run.spawn().expect("it runs"));
    let until = Instant::now() + WITHIN;
    let mut git = loop {
        if let Ok((git, _)) = silent.accept() {
            break git;
        }
        assert!(Instant::now() < until, "git does not ask");
        pause();
    };
    git.set_nonblocking(false).expect("it is a socket");
    git.set_read_timeout(Some(WITHIN)).expect("it is a socket");
    drop(running);
    // The test reads what git asks, and then the end of the connection, which comes when git has ended.
    let mut asked = Vec::new();
    git.read_to_end(&mut asked).expect("it ends with its queue");
}
