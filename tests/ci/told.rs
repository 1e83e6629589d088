//! A real Bazel sends build events to a server. The tests look at what the server shows of them on pages, in the API
//! and on the command line.

use crate::support;

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::bazel::Bazel;
use support::client;
use support::server::{Server, get_text};

const WITHIN: Duration = Duration::from_secs(60);
const ID: &str = "3b1d5a52-70ab-4e1c-9d0f-6c86a5a2f001";

fn json(server: &Server, path: &str) -> Value {
    let text = get_text(&server.address, path);
    serde_json::from_str(&text).unwrap_or_else(|error| unreachable!("{path}: {error}: {text}"))
}

/// Asks for the JSON at `path` until `is_so` holds for it, and returns it. It may take a moment, because executions
/// become history only after their builds.
async fn until(server: &Server, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let answer = json(server, path);
        if is_so(&answer) {
            return answer;
        }
        assert!(start.elapsed() < WITHIN, "{path}: {answer:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn kiln(server: &Server, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_kiln"))
        .args(arguments)
        .args(["--server", &server.url()])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[tokio::test]
async fn a_build_with_a_failing_test_is_on_its_page_in_the_grid_and_on_the_command_line() {
    let Some(binary) = client("KILN_BAZEL") else { return };
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(data.path(), &[]);
    let bazel = Bazel::new(binary, "tests/workspace");
    let backend = format!("--bes_backend=grpc://{}", server.address);
    let results = format!("--bes_results_url={}/builds/", server.url());
    let run = bazel.remote(
        &server.address,
        &[
            "test",
            &backend,
            &results,
            &format!("--invocation_id={ID}"),
            "--build_metadata=COMMIT_SHA=c0ffee5ca1ab1e",
            "--build_metadata=BRANCH_NAME=main",
            "--build_metadata=USER=ada",
            "--keep_going",
            "//flaky:failing_test",
            "//paths/...",
        ],
    );
    assert!(run.text.contains(&format!("{}/builds/{ID}", server.url())), "{}", run.text);

    let page = get_text(&server.address, &format!("/builds/{ID}"));
    for part in [
        "c0ffee5ca1ab1e",
        "ada",
        "//flaky:failing_test",
        "this is stderr",
        "test.xml",
        "//paths/...",
    ] {
        assert!(page.contains(part), "{part} is not on the page: {page}");
    }
    let told = &json(&server, &format!("/api/v1/builds/{ID}"))["told"];
    assert_eq!(told["exit_code"].as_i64(), Some(run.code.into()), "{told:#}");
    let found = json(&server, "/api/v1/invocations?branch=main&user=ada&outcome=failed");
    assert_eq!(found["invocations"][0]["invocation_id"], ID);

    let failing = "/api/v1/tests?q=failing_test";
    let is_known = |answer: &Value| answer["tests"][0]["failed"].as_u64() > Some(0);
    until(&server, failing, is_known).await;
    let grid = until(&server, "/api/v1/tests/grid?q=failing_test", |grid| {
        grid["columns"][0]["name"] == "c0ffee5ca1ab1e"
    })
    .await;
    let states: Vec<_> = grid["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| &row["cells"][0]["state"])
        .collect();
    assert!(states.contains(&&Value::from("failed")), "{grid:#}");
    let listed = kiln(&server, &["tests", "list", "failing", "--outcome", "failing"]);
    assert!(listed.contains("//flaky:failing_test"), "{listed}");
    let shown = kiln(&server, &["tests", "show", "//flaky:failing_test"]);
    assert!(shown.contains("c0ffee5c") && shown.contains("failed"), "{shown}");
}

const REPORT: &str = r#"<testsuite name="s"><testcase name="a" classname="C" time="0.5"/>
<testcase name="b" classname="C"><failure message="no"/></testcase></testsuite>"#;

#[tokio::test]
async fn reports_of_other_runners_are_brought_in_once() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&data.path().join("data"), &[]);
    let report = data.path().join("a report.xml");
    std::fs::write(&report, REPORT).expect("it is written");
    let report = report.to_str().expect("a name");
    let import = ["tests", "import", "--commit", "c0ffee", "--suite", "unit", "--junit", report];
    let said = kiln(&server, &import);
    assert!(said.contains("unit failed, 2 cases, 1 failed"), "{said}");
    let again: Value =
        serde_json::from_str(&kiln(&server, &[&import[..], &["--json"]].concat())).expect("JSON");
    assert!(said.contains(again["invocation"].as_str().expect("a name")), "{said}{again}");
    let listed = until(&server, "/api/v1/tests", |it| it["tests"][0]["label"] == "unit").await;
    assert_eq!(listed["tests"].as_array().map(Vec::len), Some(1), "{listed:#}");
    assert_eq!(listed["tests"][0]["failed"], 1, "{listed:#}");

    // What was brought in is known to whoever cuts the suite into shards.
    let cut = kiln(&server, &["tests", "shards", "unit", "--shards", "2", "--format", "junit"]);
    let mut lines: Vec<_> = cut.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["--select-method=C#a", "--select-method=C#b"]);
    let cut = kiln(&server, &["tests", "shards", "unit", "new", "unit", "--shards", "9", "--json"]);
    let plan: Value = serde_json::from_str(&cut).expect("JSON");
    assert_eq!(plan["shards"].as_array().map(Vec::len), Some(2), "{plan:#}");
}
