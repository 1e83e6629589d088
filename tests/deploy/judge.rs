//! `kiln judge` and `kiln rollout plan`, `signals` and `traffic` read files and print verdicts, plans and what they
//! found out. No server runs.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Runs `kiln` with `input` as its stdin. Returns the exit code, or -1 after a signal, the stdout and the stderr.
fn kiln(words: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kiln"))
        .args(words)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kiln runs");
    // Kiln may refuse before it has read all of the input, so a failed write is no error.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    let output = child.wait_with_output().expect("kiln ends");
    let text = |data: Vec<u8>| String::from_utf8(data).expect("text");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn case(canary: f64, points: usize) -> Vec<u8> {
    let series = |center: f64, step: usize| -> Vec<f64> {
        (0..points).map(|at| center + ((at * step) % 17) as f64 / 10.0).collect()
    };
    let metric =
        json!({"name": "latency", "experiment": series(canary, 7), "control": series(100.0, 5)});
    json!({"metrics": [metric]}).to_string().into_bytes()
}

#[test]
fn exit_codes_say_what_to_do() {
    let judged = |input: &[u8]| {
        let (code, stdout, stderr) = kiln(&["judge", "-", "--json"], input);
        let judgement: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stderr}"));
        (code, judgement["verdict"].as_str().expect("a verdict").to_owned())
    };
    assert_eq!(judged(&case(100.0, 60)), (0, "promote".to_owned()));
    assert_eq!(judged(&case(120.0, 60)), (1, "rollback".to_owned()));
    assert_eq!(judged(&case(120.0, 10)), (6, "hold".to_owned()));
    let (code, stdout, _) = kiln(&["judge", "-"], &case(120.0, 60));
    assert_eq!(code, 1);
    assert!(stdout.starts_with("roll back, score 0\n") && stdout.contains("higher"), "{stdout}");
    let (code, stdout, _) = kiln(&["judge", "-", "--compat", "kayenta"], &case(120.0, 10));
    assert_eq!(code, 1, "{stdout}");
}

#[test]
fn what_cannot_be_read_says_where_and_why() {
    let (code, _, stderr) =
        kiln(&["judge", "-"], br#"{"metrics":[{"name":"m","experiment":["x"],"control":[]}]}"#);
    assert_eq!(code, 2);
    assert!(
        stderr.contains("standard input: metrics[0].experiment[0]: expected a number"),
        "{stderr}"
    );
    let (code, _, stderr) = kiln(&["judge", "no such file"], b"");
    assert_eq!(code, 2);
    assert!(stderr.contains("cannot read no such file"), "{stderr}");
}

#[test]
fn a_plan_is_shown_and_nothing_is_done() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("roll out.toml");
    std::fs::write(&file, "name = \"api\"\ntargets = 3\n").expect("it is written");
    let file = file.to_str().expect("text");
    let (code, stdout, stderr) = kiln(&["rollout", "plan", file], b"");
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("1 % of 3 targets are 0.03: 1"), "{stdout}");
    let (_, stdout, _) = kiln(&["rollout", "plan", file, "--json"], b"");
    let plan: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(plan["steps"][2]["targets"], 3);
    let fresh = "targets = [\"a\", \"b\", \"c\"]\nsteps = [30, 100]\nstay_up = 2\n[judge]\nbaseline = \"fresh\"\n";
    std::fs::write(file, fresh).expect("it is written");
    let (_, stdout, _) = kiln(&["rollout", "plan", file], b"");
    for part in ["at most 1 down at once", "started anew with 30 %: c"] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    std::fs::write(file, "targets = 3\nstpes = [100]\n").expect("it is written");
    let (code, _, stderr) = kiln(&["rollout", "plan", file], b"");
    assert_eq!(code, 2);
    assert!(
        stderr.contains("line 2, column 1: stpes: unknown key; did you mean steps?"),
        "{stderr}"
    );
}

#[test]
fn sources_and_balancers_are_tried_by_hand() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = dir.path().display();
    let measure = "grep -q api && echo '{\"canary\":[1,3],\"baseline\":[null,4]}'";
    // The program that stands in for a balancer stores the split that it is told, without the place.
    let split = format!(
        "read -r told || :; case $told in *observe*) cat {at}/split 2>/dev/null || echo null;; \
         *) echo \"$told\" | sed 's/\"do\":\"set\",\"place\":{{[^}}]*}},//' >{at}/split; \
         echo '{{\"applied\":\"now\"}}';; esac"
    );
    let file = dir.path().join("parts.toml");
    let parts = format!(
        "[signals.own]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", {measure:?}]\n\
         [signals.prom]\nkind = \"prometheus\"\nurl = \"http://127.0.0.1:1\"\n\
         [traffic.edge]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", {split:?}]\n"
    );
    std::fs::write(&file, parts).expect("the file is written");
    let file = file.to_str().expect("UTF-8");
    let rollout = |words: &[&str]| {
        let fixed = ["--service", "api", "--canary", "c=h:1", "--baseline", "a=h:2"];
        let (what, rest) = words.split_first().expect("a command");
        kiln(&[&["rollout", what, file][..], rest, &fixed].concat(), b"")
    };

    let own = ["signals", "--source", "own", "--query", "latency"];
    let (code, stdout, stderr) = rollout(&own);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("2.0000") && stdout.contains("4.0000"), "{stdout}");
    let (_, stdout, _) = rollout(&[&own[..], &["--json"]].concat());
    let answer: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(answer, json!({"canary": [1.0, 3.0], "baseline": [null, 4.0]}));
    let query = "up{t=\"{{targets}}\"}";
    let (code, stdout, _) = rollout(&["signals", "--source", "prom", "--query", query]);
    assert!(code == 6 && stdout.starts_with("failed: http://127.0.0.1:1/"), "{stdout}");
    let (code, _, stderr) = rollout(&["signals", "--source", "pron", "--query", query]);
    assert!(code == 2 && stderr.contains("no [signals.pron]; did you mean prom?"), "{stderr}");

    let edge = ["traffic", "--balancer", "edge"];
    let (code, stdout, _) = rollout(&edge);
    assert_eq!((code, stdout.as_str()), (1, "nothing is set for api in try\n"));
    let (code, stdout, stderr) = rollout(&[&edge[..], &["--share", "12.5"]].concat());
    assert!(
        code == 0 && stdout.contains("12.5 %") && stdout.contains("87.5 %"),
        "{stdout}{stderr}"
    );
    let (code, _, stderr) = rollout(&[&edge[..], &["--share", "120"]].concat());
    assert!(code == 5 && stderr.contains("no share in percent"), "{stderr}");
}
