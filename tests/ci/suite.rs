//! `kiln tests` reads files and writes plans and reports. These tests run no server.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

fn kiln(directory: &Path, words: &[&str], stdin: &str) -> Said {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kiln"))
        .arg("tests")
        .args(words)
        .current_dir(directory)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kiln starts");
    // A command that does not read its input may have ended already, so a failed write is no error.
    let _ = child.stdin.take().expect("a pipe").write_all(stdin.as_bytes());
    let output = child.wait_with_output().expect("kiln ends");
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

struct Case {
    directory: tempfile::TempDir,
}

impl Case {
    fn new(file: &str, text: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join(file), text).expect("a file");
        Self { directory }
    }

    fn run(&self, words: &[&str]) -> Said {
        self.run_with(words, "")
    }

    fn run_with(&self, words: &[&str], stdin: &str) -> Said {
        kiln(self.directory.path(), words, stdin)
    }

    fn plan(&self, words: &[&str], stdin: &str) -> (Value, String) {
        let all = [&["shards", "--durations", "d n.json", "--format", "json"], words].concat();
        let said = self.run_with(&all, stdin);
        assert_eq!(said.code, 0, "{words:?}: {}", said.stderr);
        (serde_json::from_str(&said.stdout).expect("JSON"), said.stderr)
    }
}

const DURATIONS: &str =
    r#"{"a.py::t1": 3, "a.py::t2": 3.0, "b.py::t3": 2, "b.py::t4": 2, "b.py::t5": 2}"#;

#[test]
fn a_plan_is_printed_as_json() {
    let case = Case::new("d n.json", DURATIONS);
    let (plan, stderr) = case.plan(&["--shards", "2"], "");
    assert_eq!(stderr, "");
    let shards = plan["shards"].as_array().unwrap();
    let mut tests: Vec<_> = shards.iter().map(|shard| shard["tests"].clone()).collect();
    tests.sort_by_key(Value::to_string);
    assert_eq!(
        tests,
        [json!(["a.py::t1", "a.py::t2"]), json!(["b.py::t3", "b.py::t4", "b.py::t5"])]
    );
    assert!(shards.iter().all(|shard| shard["expected_s"] == 6.0));
    assert_eq!((&plan["makespan_s"], &plan["lower_bound_s"]), (&json!(6.0), &json!(6.0)));
    // The same durations as pairs, as older versions wrote them, and in another order, give the same plan.
    let pairs = r#"[["b.py::t5",2],["b.py::t4",2],["a.py::t2",3],["b.py::t3",2],["a.py::t1",3]]"#;
    assert_eq!(Case::new("d n.json", pairs).plan(&["--shards", "2"], "").0, plan);
}

#[test]
fn new_tests_are_estimated_and_gone_ones_left_out() {
    let case = Case::new("d n.json", DURATIONS);
    let list = "b.py::t3\r\n\nb.py::new\na.py::t1\na.py::t1\n";
    let (plan, stderr) = case.plan(&["--shards", "1", "--tests", "-"], list);
    assert_eq!(plan["shards"][0]["tests"], json!(["a.py::t1", "b.py::new", "b.py::t3"]));
    assert_eq!(plan["makespan_s"], 7.0);
    assert_eq!(stderr, "1 new test estimated; of the file, 3 not in the list\n");
    let (plan, stderr) = case.plan(&["--shards", "3", "--tests", "-"], "");
    assert_eq!(plan["shards"], json!([]));
    assert!(stderr.contains("no tests"), "{stderr}");
}

#[test]
fn the_number_of_shards_follows_from_a_time() {
    let case = Case::new("d n.json", DURATIONS);
    let (plan, _) = case.plan(&["--target-time", "8s", "--overhead", "2s"], "");
    assert_eq!(plan["shards"].as_array().unwrap().len(), 2);
    let said = case.run(&["shards", "--durations", "d n.json", "--target-time", "2s"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("a.py::t") && said.stderr.contains("hint: "), "{}", said.stderr);
}

#[test]
fn more_shards_than_are_useful_are_named() {
    let case = Case::new("d n.json", DURATIONS);
    let (plan, stderr) = case.plan(&["--shards", "5"], "");
    assert_eq!(plan["shards"].as_array().unwrap().len(), 5);
    assert!(stderr.contains("more than 4 shards are no faster"), "{stderr}");
    let (plan, stderr) = case.plan(&["--shards", "9"], "");
    assert_eq!(plan["shards"].as_array().unwrap().len(), 5);
    assert!(stderr.contains("no more shards than tests: 5 tests"), "{stderr}");
}

#[test]
fn each_runner_gets_its_own_words() {
    let case = Case::new("d n.json", r#"{"a.py::t[x y]": 1, "b.py::u": 1}"#);
    let line = |format: &str, only: &str| {
        let said = case.run(&[
            "shards",
            "--durations",
            "d n.json",
            "--shards",
            "2",
            "--format",
            format,
            "--only",
            only,
        ]);
        (said.code, said.stdout + &said.stderr)
    };
    let pytest = line("pytest", "1").1 + &line("pytest", "2").1;
    assert!(pytest.contains("'a.py::t[x y]'\n") && pytest.contains("b.py::u\n"), "{pytest}");
    let (code, none) = line("pytest", "3");
    assert!(code == 1 && none.contains("there is no shard 3"), "{none}");
    let nextest = line("nextest", "1").1 + &line("nextest", "2").1;
    assert!(nextest.contains("-E 'test(=b.py::u)'\n"), "{nextest}");
    let (code, gtest) = line("gtest", "1");
    assert!(code == 2 && gtest.contains("cannot be named in a filter of googletest"), "{gtest}");
    let targets = Case::new("d.json", r#"{"//a:b": 1, "@r//c:d": 2, "//e:f": 1}"#);
    let said =
        targets.run(&["shards", "--durations", "d.json", "--shards", "2", "--format", "bazel"]);
    let mut lines: Vec<_> = said.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["//a:b //e:f", "@r//c:d"]);
    let table = targets.run(&["shards", "--durations", "d.json", "--shards", "2"]).stdout;
    assert!(table.contains("longest 2.00 s, 0.0 % over the lower bound of 2.00 s"), "{table}");
}

#[test]
fn bad_input_is_named_with_its_place() {
    for (text, words) in [
        ("", "d n.json: it is empty"),
        ("{\n\"t\": NaN}", "line 2"),
        ("{\"t\": -1}", "\"t\" takes -1 s: negative"),
        ("{\"t\": 1,\n \"t\": 2}", "\"t\" is there twice at line 2"),
        ("{\"t\": 1e999}", "number out of range at line 1"),
    ] {
        let case = Case::new("d n.json", text);
        let said = case.run(&["shards", "--durations", "d n.json", "--shards", "2"]);
        assert_eq!((said.code, &*said.stdout), (2, ""), "{text}: {}", said.stderr);
        assert!(said.stderr.contains(words), "{text}: {}", said.stderr);
        assert!(said.stderr.contains("hint: "), "{text}: {}", said.stderr);
    }
    let case = Case::new("d n.json", DURATIONS);
    for (words, expected) in [
        (&["--shards", "0"][..], "0 is not in 1..=100000"),
        (&["--shards", "-1"], "-1"),
        (&[], "--shards <N>|--target-time <TIME>"),
        (&["--target-time", "soon"], "not a time like"),
        (&["--shards", "2", "--target-time", "5m"], "cannot be used with"),
        (&["--shards", "2", "--durations", "missing.json"], "cannot open missing.json"),
        (&["--shards", "2", "--tests", "missing.txt"], "cannot open missing.txt"),
    ] {
        let said = case.run(&[&["shards", "--durations", "d n.json"], words].concat());
        assert_eq!(said.code, 2, "{words:?}: {}", said.stderr);
        assert!(said.stderr.contains(expected), "{words:?}: {}", said.stderr);
    }
}

const REPORT: &str = r#"<testsuite name="s"><testcase name="a" classname="C" time="0,5">
<flakyFailure message="once"/></testcase><testcase name="b" classname="C"><skipped/></testcase></testsuite>"#;

#[test]
fn reports_are_read_and_shown() {
    let case = Case::new("r.xml", REPORT);
    let said = case.run(&["import", "--junit", "r.xml", "--dry-run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let sum = "r.xml: 2 cases, 3 attempts: 1 failed, 1 skipped, 1 were retries\n";
    assert!(said.stdout.starts_with(sum) && said.stdout.contains("once"), "{}", said.stdout);
    let said = case.run_with(&["import", "--dry-run", "--json", "--junit", "-"], REPORT);
    let lines: Vec<Value> =
        said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{}", said.stdout);
    assert_eq!(
        lines[1],
        json!({
            "file": "standard input", "suite": "s", "class": "C", "name": "a", "attempt": 2,
            "outcome": "passed", "duration_s": 0.5, "message": null
        })
    );
    std::fs::write(case.directory.path().join("cut.xml"), &REPORT[..150]).unwrap();
    let said = case.run(&["import", "--junit", "r.xml", "cut.xml", "--dry-run"]);
    assert_eq!((said.code, &*said.stdout), (2, ""), "{}", said.stderr);
    assert!(said.stderr.contains("cut.xml, line 2: it ends within <"), "{}", said.stderr);
    let said = case.run(&["import", "--junit", "r.xml"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("--commit <SHA>"), "{}", said.stderr);
}
