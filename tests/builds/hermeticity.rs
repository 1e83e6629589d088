//! The hermeticity check: actions that leak a condition are caught and the cause is named.

use crate::support;

use std::process::{Command, Stdio};

use kiln_protos::reapi;
use serde_json::Value;
use support::reapi::{Client, Spec};
use support::server::{Server, get_json};

const INVOCATION: &str = "leaks";

/// This script prints a number that the check always changes: the check sets the clock ahead by 37 days, and that is
/// another number of tens of days in whatever second this machine was started.
const TENS_OF_DAYS: &str = "echo $(($(cut -d. -f1 /proc/uptime) / 864000)) > out";

/// For each action its target, its script, the verdict of the check, and the cause that the check names.
const ACTIONS: [(&str, &str, &str, &str); 9] = [
    ("//leak:host", "uname -n > out", "not_hermetic", "host name"),
    ("//leak:process", "echo $$ > out", "not_hermetic", "process numbers"),
    ("//leak:directory", "pwd > out", "not_hermetic", "directory"),
    ("//leak:clock", TENS_OF_DAYS, "not_hermetic", "monotonic clock"),
    ("//leak:order", "ls -U dir > out", "not_hermetic", "file order"),
    ("//leak:times", "stat -c %Y dir/one > out", "not_hermetic", "modification times"),
    ("//leak:random", "head -c 16 /dev/urandom > out", "not_deterministic", ""),
    ("//clean:copy", "cat dir/one dir/two > out", "same", ""),
    ("//clean:sorted", "ls dir | sort > out", "same", ""),
];

fn spec(script: &str, directory: &reapi::Digest) -> Spec {
    let mut spec = Spec::shell(script, &["out"]);
    spec.input_root
        .directories
        .push(reapi::DirectoryNode { name: "dir".into(), digest: Some(directory.clone()) });
    spec
}

fn metadata(target: &str) -> reapi::RequestMetadata {
    reapi::RequestMetadata {
        tool_invocation_id: INVOCATION.into(),
        target_id: target.into(),
        action_mnemonic: "Genrule".into(),
        ..Default::default()
    }
}

async fn build(client: &Client) {
    use prost::Message;
    let one = client.put(b"text\n").await;
    let file = |name: &str| reapi::FileNode {
        name: name.into(),
        digest: Some(one.clone()),
        ..Default::default()
    };
    let names = ["five", "four", "one", "three", "two"];
    let directory =
        reapi::Directory { files: names.map(file).to_vec(), ..Default::default() }.encode_to_vec();
    let directory = client.put(&directory).await;
    for (target, script, ..) in ACTIONS {
        let action = client.prepare(&spec(script, &directory)).await;
        client.execute_with(action, &metadata(target)).await.expect("it runs");
    }
}

/// Waits for the journal, which the server writes only after it has answered.
fn until_written(server: &Server) {
    while get_json(&server.address, "/api/v1/status")["journal"]["executions"].as_u64()
        < Some(ACTIONS.len() as u64)
    {
        kiln_test_servers::pause();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leaks_are_caught_and_their_causes_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&directory.path().join("kiln"), &[]);
    let client = Client::connect(&server.url()).await;
    build(&client).await;
    until_written(&server);
    let output = Command::new(env!("CARGO_BIN_EXE_kiln"))
        .env("KILN_SERVER", server.url())
        .env("KILN_INSTANCE", "e2e/tests")
        .args(["hermeticity", "--invocation", INVOCATION, "--json"])
        .stdin(Stdio::null())
        .output()
        .expect("kiln runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let checks = report["checks"].as_array().expect("a list");
    assert_eq!(checks.len(), ACTIONS.len());
    for (target, script, verdict, cause) in ACTIONS {
        let found = checks.iter().find(|one| one["target"] == target).expect(target);
        assert_eq!(found["verdict"], verdict, "{script}: {found:#}");
        if !cause.is_empty() {
            assert_eq!(found["causes"], serde_json::json!([cause]), "{found:#}");
            assert_eq!(found["differences"][0]["path"], "out");
            assert!(found["differences"][0]["offset"].is_u64(), "{found:#}");
        }
    }
    // The check's own runs reached neither the journal nor the cache, and the page of checks shows all of them.
    assert_eq!(get_json(&server.address, "/api/v1/status")["journal"]["executions"], ACTIONS.len());
    let kept = get_json(&server.address, "/api/v1/hermeticity");
    assert_eq!(kept["checks"].as_array().map(Vec::len), Some(ACTIONS.len()));
}
