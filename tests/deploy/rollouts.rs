//! Rollouts of a real server: releases are promoted, rolled out to targets that a program drives, and reverted when
//! the targets are not well. A server that is killed in the middle goes on. Real agents are in `agents.rs`.

use crate::support;
use crate::support::release;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use kiln_deploy::signing::{Scheme, Signer as _, SigningKey};
use serde_json::Value;
use support::said::{self, Said};
use support::server::{Server, get_text};

const DECLARED: &str = "\
name = \"api\"
from = \"directories\"
targets = 4
steps = [25, 100]
bake = \"0s\"
soak = \"0s\"
settle = \"2s\"
tries = 1
watch = \"1s\"
lock_retry = \"1s\"
";

pub fn kiln(server: &Server, directory: &Path, words: &[&str]) -> Said {
    said::kiln(Some(server), directory, words)
}

pub fn start(directory: &Path) -> Server {
    let data = directory.join("data");
    let mut command = support::server::command("127.0.0.1:0", &data, &["--workers", "0"]);
    command.env("KILN_PROMOTION_KEYS", directory.join("release.pub"));
    command.env("KILN_PROMOTION_POLICY", directory.join("environments.toml"));
    command.env("KILN_ROLLOUTS_PARTS", directory.join("parts.toml"));
    Server::spawn(command, &data)
}

/// Writes the files that a server of rollouts needs, and a directory for each of the targets a to d. Returns the key
/// with which releases are signed.
pub fn prepared(directory: &Path) -> SigningKey {
    let (key, _) = SigningKey::generate(Scheme::EcdsaP256).expect("a key");
    let public = key.public_key().to_pem().expect("PEM");
    std::fs::write(directory.join("release.pub"), public).expect("a file");
    std::fs::write(directory.join("environments.toml"), "[environments.prod]\n").expect("a file");
    std::fs::write(directory.join("rollout.toml"), DECLARED).expect("a file");
    for name in ["a", "b", "c", "d"] {
        std::fs::create_dir_all(directory.join("targets").join(name)).expect("a directory");
    }
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/rollout/targets.py");
    let targets = directory.join("targets");
    let parts = format!(
        "[targets.directories]\nkind = \"command\"\ncommand = [\"python3\", {program:?}, {targets:?}]\n"
    );
    std::fs::write(directory.join("parts.toml"), parts).expect("a file");
    key
}

/// Makes a release of one program and imports it into the server.
pub fn release(server: &Server, directory: &Path, name: &str, program: &str, key: &SigningKey) {
    let export = name.replace([':', '/'], "-");
    release::export_program(name, program, key, &directory.join(&export));
    let words = ["release", "import", &export, "--key", "release.pub"];
    kiln(server, directory, &words).ends_with(0);
}

/// Returns the version that each of the targets a to d runs, or an empty text for a target that runs none.
pub fn runs(directory: &Path) -> Vec<String> {
    let version = |name: &str| {
        let path = directory.join("targets").join(name).join("order.json");
        let order = std::fs::read_to_string(path).unwrap_or_else(|_| "{}".to_owned());
        let order: Value = serde_json::from_str(&order).expect("JSON");
        order["version"].as_str().unwrap_or_default().to_owned()
    };
    ["a", "b", "c", "d"].map(version).to_vec()
}

pub fn promote(server: &Server, directory: &Path, name: &str) {
    let words = ["promote", name, "--to", "prod", "--reason", "June"];
    kiln(server, directory, &words).ends_with(0);
}

fn roll_out<'a>(name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let words = ["rollout", "start", "rollout.toml", "--release", name, "--env", "prod"];
    [&words[..], &["--reason", "June"], more].concat()
}

/// Runs `kiln` on a terminal of 80 columns on which somebody types `typed`. Returns the exit code and what was
/// written to the terminal.
fn on_a_terminal(server: &Server, words: &[&str], typed: &str) -> (Option<i32>, String) {
    let program = env!("CARGO_BIN_EXE_kiln");
    let run = format!(
        "stty rows 24 cols 80; exec '{program}' {} --server {}",
        words.join(" "),
        server.url()
    );
    let mut command = Command::new("script");
    command.args(["-qec", &run, "/dev/null"]).env("TERM", "xterm").env("SHELL", "/bin/sh");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("script of util-linux");
    let mut keys = child.stdin.take().expect("it is piped");
    keys.write_all(typed.as_bytes()).expect("it reads");
    drop(keys);
    let output = child.wait_with_output().expect("it ends");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_release_comes_to_all_targets_and_one_that_is_ill_is_reverted() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let dir = directory.path();
    let key = prepared(dir);
    let server = start(dir);
    for name in ["team/app:1", "team/app:2", "team/app:3"] {
        release(&server, dir, name, &format!("#!/bin/sh\n# {name}\n"), &key);
    }

    // Kiln rolls out only a release that stands in the environment.
    let refused = kiln(&server, dir, &roll_out("team/app:1", &[])).ends_with(4);
    assert!(refused.stderr.contains("promote it first"), "{}", refused.stderr);
    promote(&server, dir, "team/app:1");
    let first = kiln(&server, dir, &roll_out("team/app:1", &["--wait"])).ends_with(0);
    assert!(first.stdout.contains("4 of 4 targets settled"), "{}", first.stdout);
    let good = runs(dir);
    assert!(good[0].starts_with("sha256:") && good.iter().all(|it| *it == good[0]), "{good:?}");

    // The canary is not well. So Kiln changes only the canary and gives it back what ran before, although the server
    // is killed meanwhile.
    promote(&server, dir, "team/app:2");
    std::fs::write(dir.join("targets/a/ill"), "").expect("a file");
    let started = kiln(&server, dir, &roll_out("team/app:2", &["--json"])).ends_with(0).json();
    let rollout = started["id"].as_str().expect("an id").to_owned();
    server.kill();
    let server = start(dir);
    let ended = kiln(&server, dir, &["rollout", "watch", &rollout, "--json"]).ends_with(1).json();
    assert_eq!(ended["phase"], "rolled_back", "{ended:#}");
    assert_eq!((&ended["changed"], runs(dir)), (&1.into(), good), "{ended:#}");
    let took = ended["reverted_s"].as_f64().expect("it is measured");
    println!("reverted within {took} s");
    assert!(took < 60.0, "{took}");
    let page = get_text(&server.address, &format!("/rollouts/{rollout}"));
    for part in ["team/app:2", "rolled back", "Reverted within", "answers, and does not get to run"]
    {
        assert!(page.contains(part), "{part}: {page}");
    }

    // The environment no longer has the reverted release, and Kiln does not try it again by itself.
    let env = kiln(&server, dir, &["env", "show", "prod", "--json"]).ends_with(0).json();
    assert_eq!(env["current"]["release"], "team/app:1", "{env:#}");
    let log = kiln(&server, dir, &["audit", "log", "--json"]).ends_with(0).stdout;
    for action in ["rollout.start", "rollout.step", "rollout.rollback", "rollout.end"] {
        assert!(log.contains(action), "{action}: {log}");
    }
    std::fs::remove_file(dir.join("targets/a/ill")).expect("it was there");

    // The next rollout waits for a lock until somebody gives the lock back.
    let lock = ["rollout", "lock", "api", "--env", "prod", "--for", "1h", "--reason", "a move"];
    kiln(&server, dir, &lock).ends_with(0);
    let misspelt = lock.map(|word| if word == "prod" { "prd" } else { word });
    let refused = kiln(&server, dir, &misspelt).ends_with(1);
    assert!(refused.stderr.contains("no environment"), "{}", refused.stderr);
    let again = ["promote", "team/app:2", "--to", "prod", "--again", "--reason", "it was the host"];
    kiln(&server, dir, &again).ends_with(0);
    kiln(&server, dir, &roll_out("team/app:2", &[])).ends_with(4);
    let waits = kiln(&server, dir, &roll_out("team/app:2", &["--again", "--json"])).ends_with(0);
    let id = waits.json()["id"].as_str().expect("an id").to_owned();
    // On a terminal Kiln shows the rollout on a screen of its own. A user who leaves that gets the terminal back as
    // it was.
    let (code, screen) = on_a_terminal(&server, &["rollout", "watch", &id], "q");
    let came = screen.find("\u{1b}[?1049h").expect("another screen");
    let shown = screen.find("team/app:2 for api in prod").expect("the rollout");
    let gone = screen.find("\u{1b}[?1049l").expect("the screen of before");
    assert!(code == Some(6) && came < shown && shown < gone, "{code:?}: {screen}");
    assert!(screen[gone..].contains("it goes on: kiln rollout watch"), "{screen}");
    let unlock = ["rollout", "unlock", "api", "--env", "prod", "--reason", "done"];
    kiln(&server, dir, &unlock).ends_with(0);
    kiln(&server, dir, &["rollout", "watch", &id]).ends_with(0);
    kiln(&server, dir, &["rollout", "show", &id]).ends_with(0);

    // A drill proves that Kiln would revert a bad canary in time.
    let good = runs(dir);
    let words = ["rollout", "drill", "rollout.toml", "--release", "team/app:3", "--env", "prod"];
    let drill = kiln(&server, dir, &[&words[..], &["--reason", "monthly"]].concat()).ends_with(0);
    assert!(drill.stdout.contains("the drill passed"), "{}", drill.stdout);
    assert_eq!(runs(dir), good);
    let listed = kiln(&server, dir, &["rollout", "list"]).ends_with(0).stdout;
    assert!(listed.contains("rolled back, a drill"), "{listed}");
    let list = get_text(&server.address, "/rollouts");
    assert!(list.contains("Drills") && list.contains("restored after"), "{list}");
}
