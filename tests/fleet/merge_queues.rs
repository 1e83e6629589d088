//! A merge queue of a fleet is asked at one frontend, run through another, and run through the next one when that is
//! gone. It goes on when Redis was gone.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kiln_test_servers::pause;

use crate::rig::Shared;
use crate::support::said::kiln;
use crate::support::server::{Server, get_json, get_status};

const WITHIN: Duration = Duration::from_secs(40);

/// A runner's process, which is killed when the value is dropped.
struct Runner(Child);

impl Drop for Runner {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn git(place: &Path, script: &str) {
    let mut command = Command::new("sh");
    command.args(["-eu", "-c", script]).current_dir(place);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "A").env(format!("GIT_{who}_EMAIL"), "a@b.example");
    }
    assert!(command.status().unwrap().success(), "{script}");
}

/// The script that makes a repository with a target and two branches.
const REPOSITORY: &str = "
git init --quiet --bare --initial-branch=main app.git
git clone --quiet app.git work 2>/dev/null
cd work
for branch in main one two; do
  test $branch = main || git checkout --quiet -B $branch origin/main
  echo x > $branch
  git add .
  git commit --quiet -m $branch
  git push --quiet origin HEAD:refs/heads/$branch
  git fetch --quiet origin
done";

fn until_landed(server: &Server, branch: &str) {
    let began = Instant::now();
    loop {
        let shown = get_json(&server.address, "/api/v1/merge-queues/app");
        let ended = shown["ended"].as_array().unwrap();
        if ended.iter().any(|it| it["branch"] == branch && it["landed"] == true) {
            return;
        }
        assert!(began.elapsed() < WITHIN, "{branch}: {shown:#}");
        pause();
    }
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < WITHIN, "{what}");
        pause();
    }
}

/// Starts a runner of the queue `app` that names these servers, and waits until one of them has heard from it.
fn runner(dir: &Path, servers: &str, check: &str, heard_at: &Server) -> Runner {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command
        .args(["queue", "run", "--server", servers, "--queue", "app", "--state", "queue"])
        .args(["--repo", "app.git", "--check", check, "--poll", "1s"])
        .current_dir(dir)
        .stdin(Stdio::null());
    let runner = Runner(command.spawn().unwrap());
    until("the runner is not heard", || {
        !get_json(&heard_at.address, "/api/v1/merge-queues")["queues"][0]["base"].is_null()
    });
    runner
}

fn add(branch: &str) -> [&str; 6] {
    ["queue", "add", "--queue", "app", "--branch", branch]
}

#[test]
fn a_runner_goes_on_when_a_frontend_is_gone() {
    let Some(shared) = Shared::start() else { return };
    let dir = shared.dir.path().to_owned();
    let (one, two) = (shared.frontend("one"), shared.frontend("two"));
    git(&dir, REPOSITORY);
    let _runner = runner(&dir, &format!("{},{}", one.url(), two.url()), "true", &two);
    kiln(Some(&two), &dir, &add("one")).ends_with(0);
    until_landed(&two, "one");
    one.kill();
    kiln(Some(&two), &dir, &add("two")).ends_with(0);
    until_landed(&two, "two");
}

/// Redis is killed while a check runs, and comes back only after that has passed.
#[test]
fn what_passed_while_redis_was_gone_lands_when_it_is_back() {
    let Some(mut shared) = Shared::start() else { return };
    let dir = shared.dir.path().to_owned();
    let server = shared.frontend("one");
    git(&dir, REPOSITORY);
    let at = |name: &str| dir.join(name);
    let place = dir.display();
    let check = format!(
        ": >'{place}/waits'; while test ! -e '{place}/gate'; do sleep 0.1; done; echo x >>'{place}/passed'"
    );
    let _runner = runner(&dir, &server.url(), &check, &server);
    kiln(Some(&server), &dir, &add("one")).ends_with(0);
    until("the check does not begin", || at("waits").exists());
    shared.redis.kill();
    let path = "/api/v1/merge-queues/app";
    until("the server does without Redis", || get_status(&server.address, path) != 200);
    std::fs::write(at("gate"), "").unwrap();
    until("the check does not end", || at("passed").exists());
    shared.redis.restart();
    until("the server has not found Redis again", || get_status(&server.address, path) == 200);
    until_landed(&server, "one");
    let passed = std::fs::read_to_string(at("passed")).unwrap();
    assert_eq!(passed, "x\n", "it was tested once");
}
