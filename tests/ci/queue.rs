//! The example of `kiln queue`, a real repository with branches of all kinds: only the good ones may land.

use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kiln_test_servers::pause;

const WITHIN: Duration = Duration::from_secs(40);

#[test]
fn the_example_lands_exactly_the_good_changes() {
    let directory = tempfile::tempdir().expect("a directory");
    // The directory's name has a space, at which a careless shell script would split it.
    let place = directory.path().join("a queue");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/queue/run.sh");
    let mut command = Command::new("sh");
    command.arg(script).arg(&place).env("KILN", env!("CARGO_BIN_EXE_kiln"));
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("26 good changes"), "{said}");
    let kiln = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.arg("queue").args(arguments).arg("--state").arg(place.join("queue"));
        let output = command.output().expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let (code, shown) = kiln(&["show", "--branch", "change-4"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("rejected: //features/change-4 failed"), "{shown}");
    let (code, shown) = kiln(&["explain", "--branch", "change-9", "--json"]);
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
    let kiln = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.arg("queue").args(arguments).args(["--state", "queue"]).current_dir(place);
        command
    };
    std::fs::create_dir(place.join("queue")).expect("a directory");
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
