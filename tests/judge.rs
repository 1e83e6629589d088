//! `kiln judge` and `kiln rollout plan`: files in, verdicts and plans out. No server runs.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Exit code, stdout, stderr.
fn kiln(words: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kiln"))
        .args(words)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kiln runs");
    // It may refuse before it has read all.
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
    std::fs::write(file, "targets = 3\nstpes = [100]\n").expect("it is written");
    let (code, _, stderr) = kiln(&["rollout", "plan", file], b"");
    assert_eq!(code, 2);
    assert!(
        stderr.contains("line 2, column 1: stpes: unknown key; did you mean steps?"),
        "{stderr}"
    );
}
