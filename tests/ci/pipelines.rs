//! A pipeline on a real server with a real worker. The server is killed with -9 in the middle and goes on; the
//! pipeline fails, is resumed, and waits for somebody to approve it.

use std::path::Path;
use std::process::Command;

use kiln_test_servers::pause;
use serde_json::Value;

use crate::support::said::{self, Said};
use crate::support::server::{Server, get_json, get_text};

const PIPELINE: &str = r#"
name = "app"

[inputs.word]
default = "hello"

[[stage]]
name = "build"
kind = "build"
script = "mkdir dist; cat word.txt > dist/word; echo \"built $KILN_INPUT_WORD\""
outputs = ["dist"]

[[stage]]
name = "test"
kind = "test"
needs = ["build"]
from = ["build"]
matrix = { level = [1, 2] }
script = "cat dist/word; sleep 3; echo \"tested $KILN_MATRIX_LEVEL\""

[[stage]]
name = "check"
needs = ["test"]
script = "test \"$KILN_ATTEMPT\" -ge 2"

[[stage]]
name = "sign-off"
kind = "approve"
needs = ["check"]
own = true
message = "ship it?"

[[stage]]
name = "ship"
needs = ["sign-off"]
command = ["/bin/echo", "shipped ${run.id}"]
"#;

fn kiln(server: &Server, directory: &Path, words: &[&str]) -> Said {
    said::kiln(Some(server), directory, words)
}

/// Makes a repository with one commit on `branch`, and returns the commit's hash.
fn repository(directory: &Path, branch: &str) -> String {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=A", "-c", "user.email=a@example.com"]).args(arguments);
        command.current_dir(directory).env("GIT_CONFIG_GLOBAL", "/dev/null");
        let output = command.env("GIT_CONFIG_SYSTEM", "/dev/null").output().expect("git runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    git(&["init", "--quiet", "--template=", &format!("--initial-branch={branch}")]);
    git(&["commit", "--quiet", "--allow-empty", &format!("--message={branch}")]);
    git(&["rev-parse", "HEAD"])
}

/// Asks for the pipeline's run until `is_so` holds for it, and returns it. Panics after a minute.
fn until(server: &Server, id: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/api/v1/pipelines/{id}");
    let begun = std::time::Instant::now();
    loop {
        let run = get_json(&server.address, &path);
        if is_so(&run) {
            return run;
        }
        assert!(begun.elapsed().as_secs() < 60, "{run:#}");
        pause();
    }
}

#[test]
fn a_pipeline_is_killed_goes_on_fails_is_resumed_and_approved() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (dir, data) = (directory.path(), directory.path().join("data"));
    std::fs::create_dir(dir.join("sources")).expect("a directory");
    std::fs::write(dir.join("sources/word.txt"), "a word of the sources\n").expect("a file");
    std::fs::write(dir.join("kiln-pipeline.toml"), PIPELINE).expect("a file");
    let wrong = PIPELINE.replace("needs = [\"check\"]", "needs = [\"chek\"]");
    std::fs::write(dir.join("wrong.toml"), wrong).expect("a file");

    let valid = said::kiln(None, dir, &["pipeline", "validate", "kiln-pipeline.toml"]).ends_with(0);
    assert!(valid.stdout.contains("5 stages"), "{}", valid.stdout);
    let refused = said::kiln(None, dir, &["pipeline", "validate", "wrong.toml"]).ends_with(2);
    let place = "wrong.toml: line 29, column 10: ";
    assert!(refused.stderr.contains(place), "{}", refused.stderr);
    let explained = said::kiln(None, dir, &["pipeline", "explain", "kiln-pipeline.toml"]);
    let explained = explained.ends_with(0).stdout;
    assert!(explained.contains("build -> test (level=1) -> check -> sign-off -> ship"));

    let server = Server::start(&data, &["--workers", "2"]);
    let run =
        ["pipeline", "run", "kiln-pipeline.toml", "--source", "sources", "--detach", "--json"];
    let commit = repository(&dir.join("sources"), "main");
    std::fs::create_dir(dir.join("other")).expect("a directory");
    repository(&dir.join("other"), "elsewhere");
    // A hook of another repository sets GIT_DIR, which Kiln has to ignore when it begins the run.
    let other = dir.join("other/.git");
    let hook = [("GIT_DIR", other.as_path())];
    let begun = said::kiln_with(Some(&server), dir, &run, &hook).ends_with(0).json();
    assert_eq!(begun["run"]["branch"], "main");
    assert_eq!(begun["run"]["commit"], commit);
    let id = begun["run"]["id"].as_str().expect("an id").to_owned();
    let tested = |run: &Value| run["stages"][1]["stands"] == "running";
    let before = until(&server, &id, tested);
    assert_eq!(before["stages"][0]["stands"], "passed", "{before:#}");
    server.kill();

    // The pipeline fails only after everything that needs no second attempt, and what had passed before the server
    // was killed does not run again.
    let server = Server::start(&data, &["--workers", "2"]);
    let watched = kiln(&server, dir, &["pipeline", "watch", &id]).ends_with(1).stdout;
    for line in ["build | built hello", "(level=1) | a word of the sources", "(level=2) | tested 2"]
    {
        assert!(watched.contains(line), "{line}: {watched}");
    }
    let failed = get_json(&server.address, &format!("/api/v1/pipelines/{id}"));
    assert_eq!(failed["stages"][0]["ended"], before["stages"][0]["ended"], "{failed:#}");
    assert_eq!(failed["stages"][1]["attempts"], 1, "{failed:#}");
    assert_eq!(failed["stages"][3]["stands"], "failed", "{failed:#}");
    assert_eq!(failed["stages"][5]["stands"], "blocked", "{failed:#}");

    let resume = ["pipeline", "resume", &id, "--reason", "it was the attempt"];
    kiln(&server, dir, &resume).ends_with(0);
    let asking = until(&server, &id, |run| run["run"]["stands"] == "asking");
    assert_eq!(asking["stages"][3]["attempts"], 2, "{asking:#}");
    assert_eq!(asking["stages"][1]["attempts"], 1, "what passed is not repeated: {asking:#}");
    let page = get_text(&server.address, &format!("/pipelines/{id}"));
    for part in ["ship it?", "Waits for people", "class=\"critical\"", "test (level=2)"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    kiln(&server, dir, &["pipeline", "approve", &id]).ends_with(0);
    let shipped = kiln(&server, dir, &["pipeline", "watch", &id]).ends_with(0).stdout;
    assert!(shipped.contains(&format!("ship | shipped {id}")), "{shipped}");
    let log = kiln(&server, dir, &["audit", "log", "--json"]).ends_with(0).stdout;
    for action in ["start", "resume", "approve", "finish"] {
        assert!(log.contains(&format!("pipelines.{action}")), "{action}: {log}");
    }
    let listed = kiln(&server, dir, &["pipeline", "list"]).ends_with(0).stdout;
    assert!(listed.contains(&id) && listed.contains("6 of 6"), "{listed}");
}
