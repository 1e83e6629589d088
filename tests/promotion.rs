//! Environments of a real server: what Bazel built is released, promoted, rolled back, and found again after a crash.

mod support;

use std::path::Path;
use std::process::Command;

use kiln_deploy::signing::{Scheme, Signer as _, SigningKey};
use serde_json::Value;
use support::bazel::Bazel;
use support::client;
use support::server::{Server, get_text};

const BUILD: &str = "3b1d5a52-70ab-4e1c-9d0f-6c86a5a2f001";
const POLICY: &str = "\
[environments.dev]

[environments.prod]
after = [\"dev\"]
level = 1
signers = [\"server\"]
conditions = [\"release.name.startsWith('team/')\"]
checks = [{ name = \"allowed\", command = [\"sh\", \"-c\", \"test -e \\\"$HOME/allowed\\\"\"] }]
";

struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|_| unreachable!("{}{}", self.stdout, self.stderr))
    }

    fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        self
    }
}

fn kiln(server: Option<&Server>, directory: &Path, words: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.args(words).current_dir(directory);
    if let Some(server) = server {
        command.args(["--server", &server.url()]);
    }
    let output = command.output().expect("it runs");
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn start(directory: &Path) -> Server {
    let data = directory.join("data");
    let mut command = support::server::command("127.0.0.1:0", &data, &["--workers", "2"]);
    command.env("KILN_RELEASES_KEY", directory.join("server.pem"));
    command.env("KILN_PROMOTION_POLICY", directory.join("environments.toml"));
    command.env("HOME", directory);
    Server::spawn(command, &data)
}

fn prepared(directory: &Path) {
    let (key, pem) = SigningKey::generate(Scheme::EcdsaP256).expect("a key");
    std::fs::write(directory.join("server.pem"), pem).expect("a file");
    let public = key.public_key().to_pem().expect("PEM");
    std::fs::write(directory.join("server.pub"), public).expect("a file");
    std::fs::write(directory.join("environments.toml"), POLICY).expect("a file");
}

fn standing(reasons: &Value, gate: &str) -> String {
    let found = reasons.as_array().into_iter().flatten().find(|it| it["gate"] == gate);
    found.map(|it| it["standing"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn a_release_is_promoted_rolled_back_and_found_again() {
    let Some(binary) = client("KILN_BAZEL") else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let dir = directory.path();
    prepared(dir);
    let server = start(dir);
    let bazel = Bazel::new(binary, "tests/workspace");
    let id = format!("--invocation_id={BUILD}");
    bazel.remote(&server.address, &["build", &id, "//cpp:all", "//cpp:gen_1"]).expect_success();
    for (name, target) in [("team/app:1", "//cpp:all"), ("team/app:2", "//cpp:gen_1")] {
        let words = ["release", "create", name, "--invocation", BUILD, "--target", target];
        kiln(Some(&server), dir, &words).ends_with(0);
    }

    // What stands in the way is said at once, and changes nothing.
    let dry = ["promote", "team/app:1", "--to", "prod", "--dry-run", "--json"];
    let said = kiln(Some(&server), dir, &dry).ends_with(6).json();
    for (gate, expected) in
        [("upstream", "waits"), ("signature", "met"), ("level", "met"), ("check", "waits")]
    {
        assert_eq!(standing(&said["reasons"], gate), expected, "{said:#}");
    }
    for name in ["team/app:1", "team/app:2"] {
        kiln(Some(&server), dir, &["promote", name, "--to", "dev"]).ends_with(0);
        let refused = kiln(Some(&server), dir, &["promote", name, "--to", "prod"]).ends_with(1);
        assert!(refused.stdout.contains("allowed failed: exit status: 1"), "{}", refused.stdout);
    }
    std::fs::write(dir.join("allowed"), "").expect("a file");
    for name in ["team/app:1", "team/app:2"] {
        let said = kiln(Some(&server), dir, &["promote", name, "--to", "prod", "--reason", "June"]);
        assert!(said.ends_with(0).stdout.contains("is promoted to prod"));
    }

    // A rollback asks nobody, and what it replaced stays away.
    let hold = ["freeze", "hold", "prod", "--reason", "nothing moves"];
    kiln(Some(&server), dir, &hold).ends_with(0);
    let back = ["rollback", "--env", "prod", "--reason", "it crashes", "--json"];
    let said = kiln(Some(&server), dir, &back).ends_with(0).json();
    assert_eq!((&said["release"], &said["generation"]), (&"team/app:1".into(), &3.into()));
    let again = ["promote", "team/app:2", "--to", "prod", "--automation", "--json"];
    let said = kiln(Some(&server), dir, &again).ends_with(1).json();
    assert_eq!(standing(&said["reasons"], "rolled_back"), "refused", "{said:#}");
    assert_eq!(standing(&said["reasons"], "hold"), "waits", "{said:#}");

    // kill -9, and all of it is there.
    server.kill();
    let server = start(dir);
    let shown = kiln(Some(&server), dir, &["env", "show", "prod", "--json"]).ends_with(0).json();
    assert_eq!(shown["current"]["release"], "team/app:1", "{shown:#}");
    assert_eq!(shown["past"].as_array().map(Vec::len), Some(3), "{shown:#}");
    assert_eq!(shown["frozen"][0]["reason"], "nothing moves", "{shown:#}");
    let page = get_text(&server.address, "/environments");
    for part in ["prod", "team/app:1", "rolled back", "nothing moves"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    // What is rejected comes back by nothing.
    let reject = ["release", "reject", "team/app:1", "--reason", "it leaks"];
    kiln(Some(&server), dir, &reject).ends_with(0);
    let said = kiln(Some(&server), dir, &["promote", "team/app:1", "--to", "dev", "--json"]);
    assert_eq!(standing(&said.ends_with(1).json()["reasons"], "rejected"), "refused");

    audited(&server, dir);
}

fn audited(server: &Server, dir: &Path) {
    let listed = ["audit", "list", "--action", "release.rollback", "--json"];
    let listed = kiln(Some(server), dir, &listed).ends_with(0).json();
    assert_eq!(listed["entries"].as_array().map(Vec::len), Some(1), "{listed:#}");
    assert_eq!(listed["entries"][0]["details"]["reason"], "it crashes", "{listed:#}");
    let said = kiln(Some(server), dir, &["audit", "verify", "--json"]).ends_with(0).json();
    assert!(said["last"].as_u64().is_some_and(|it| it >= 8), "{said:#}");
    let exported = kiln(Some(server), dir, &["audit", "export"]).ends_with(0).stdout;
    std::fs::write(dir.join("audit.jsonl"), &exported).expect("a file");
    kiln(None, dir, &["audit", "verify", "audit.jsonl"]).ends_with(0);
    std::fs::write(dir.join("audit.jsonl"), exported.replace("it crashes", "it cruises"))
        .expect("a file");
    let said = kiln(None, dir, &["audit", "verify", "audit.jsonl"]).ends_with(1);
    assert!(said.stdout.contains("was changed"), "{}", said.stdout);
}
