//! Environments of a real server: what Bazel built is released, promoted and rolled back, and the server finds all of
//! that again after a crash.

use crate::support;

use std::path::Path;
use std::process::Command;

use kiln_deploy::oci::ContentDigest;
use kiln_deploy::promotion::VSA_PREDICATE;
use kiln_deploy::signing::{Attestation, KeyRing, PublicKey, Scheme, Signer as _, SigningKey};
use serde_json::Value;
use support::bazel::Bazel;
use support::client;
use support::said::kiln;
use support::server::{Server, get_json, get_status, get_text};

const BUILD: &str = "3b1d5a52-70ab-4e1c-9d0f-6c86a5a2f001";
const POLICY: &str = "\
[environments.dev]

[environments.prod]
after = [\"dev\"]
level = 1
signers = [\"server\"]
branch = \"main\"
conditions = [\"release.name.startsWith('team/')\"]
checks = [{ name = \"allowed\", command = [\"sh\", \"-c\", \"test -e \\\"$HOME/allowed\\\"\"] }]
";

fn start(directory: &Path) -> Server {
    let data = directory.join("data");
    let mut command = support::server::command("127.0.0.1:0", &data, &["--workers", "2"]);
    command.env("KILN_RELEASES_KEY", directory.join("server.pem"));
    command.env("KILN_PROMOTION_POLICY", directory.join("environments.toml"));
    for key in ["KEEP_NEWEST", "KEEP_PREDECESSORS"] {
        command.env(format!("KILN_RELEASES_{key}"), "0");
    }
    command.env("KILN_RELEASES_KEEP_FOR", "0s");
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
    let build = ["build", &id, "//cpp:all", "//cpp:gen_1", "//cpp:gen_2"];
    bazel.remote(&server.address, &build).expect_success();
    for (name, target) in [("team/app:1", "//cpp:all"), ("team/app:2", "//cpp:gen_1")] {
        let words = ["release", "create", name, "--invocation", BUILD, "--target", target];
        let words = [&words[..], &["--branch", "main"]].concat();
        kiln(Some(&server), dir, &words).ends_with(0);
    }

    // A dry run names at once what stands in the way of a promotion, and changes nothing.
    let dry = ["promote", "team/app:1", "--to", "prod", "--dry-run", "--json"];
    let said = kiln(Some(&server), dir, &dry).ends_with(6).json();
    for (gate, expected) in [
        ("upstream", "waits"),
        ("signature", "met"),
        ("branch", "met"),
        ("level", "met"),
        ("check", "waits"),
    ] {
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

    let summary = kiln(Some(&server), dir, &["env", "summary", "prod"]).ends_with(0).json();
    assert_eq!(summary["payloadType"], "application/vnd.in-toto+json", "{summary:#}");
    let none = ["env", "summary", "prod", "--generation", "9"];
    kiln(Some(&server), dir, &none).ends_with(1);

    // A rollback needs no approval, and automation may not bring back the release that it replaced.
    let hold = ["freeze", "hold", "prod", "--reason", "nothing moves"];
    kiln(Some(&server), dir, &hold).ends_with(0);
    let back = ["rollback", "--env", "prod", "--reason", "it crashes", "--json"];
    let said = kiln(Some(&server), dir, &back).ends_with(0).json();
    assert_eq!((&said["release"], &said["generation"]), (&"team/app:1".into(), &3.into()));
    let again = ["promote", "team/app:2", "--to", "prod", "--automation", "--json"];
    let said = kiln(Some(&server), dir, &again).ends_with(1).json();
    assert_eq!(standing(&said["reasons"], "rolled_back"), "refused", "{said:#}");
    assert_eq!(standing(&said["reasons"], "hold"), "waits", "{said:#}");

    pulled(&server, dir);

    // The server is killed with -9, and the next one still knows all of it.
    server.kill();
    let server = start(dir);
    let digest = digest(&server, dir, "team/app:1");
    assert_eq!(digest_of_tag(&server, "prod"), digest);
    let shown = kiln(Some(&server), dir, &["env", "show", "prod", "--json"]).ends_with(0).json();
    assert_eq!(shown["current"]["release"], "team/app:1", "{shown:#}");
    assert_eq!(shown["past"].as_array().map(Vec::len), Some(3), "{shown:#}");
    assert_eq!(shown["frozen"][0]["reason"], "nothing moves", "{shown:#}");
    let page = get_text(&server.address, "/environments");
    for part in ["prod", "team/app:1", "rolled back", "nothing moves"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    // Nothing brings a rejected release back.
    let reject = ["release", "reject", "team/app:1", "--reason", "it leaks"];
    kiln(Some(&server), dir, &reject).ends_with(0);
    let said = kiln(Some(&server), dir, &["promote", "team/app:1", "--to", "dev", "--json"]);
    assert_eq!(standing(&said.ends_with(1).json()["reasons"], "rejected"), "refused");
    // The tag of the rejected version is gone. Hosts of the environment where the release stands may pull it until it
    // is rolled back.
    let status = |reference: &str| {
        get_status(&server.address, &format!("/v2/team/app/manifests/{reference}"))
    };
    assert_eq!((status("1"), status("prod"), status(&digest)), (404, 200, 200));

    let said = kiln(Some(&server), dir, &["release", "gc", "--dry-run", "--json"]).ends_with(0);
    let said = said.json();
    assert_eq!((&said["removed"], &said["frees"]), (&false.into(), &0.into()), "{said:#}");
    assert_eq!(said["releases"][0]["stays"][0], "it stands in prod", "{said:#}");
    // `release gc` removes a release that stands in no environment, and no release with other content may have its
    // name later.
    let of = |target: &'static str| {
        ["release", "create", "team/other:1", "--invocation", BUILD, "--target", target]
    };
    let at_other = |reference: &str| {
        get_status(&server.address, &format!("/v2/team/other/manifests/{reference}"))
    };
    kiln(Some(&server), dir, &of("//cpp:gen_2")).ends_with(0);
    let other = self::digest(&server, dir, "team/other:1");
    assert_eq!((at_other("1"), at_other(&other)), (200, 200));
    let said = kiln(Some(&server), dir, &["release", "gc"]).ends_with(0).stdout;
    assert!(said.contains("1 of 3 removed") && said.contains("it stands in dev"), "{said}");
    assert_eq!((at_other("1"), at_other(&other), status("prod")), (404, 404, 200));
    kiln(Some(&server), dir, &of("//cpp:all")).ends_with(4);
    kiln(Some(&server), dir, &of("//cpp:gen_2")).ends_with(0);
    assert_eq!(at_other("1"), 200);
    audited(&server, dir);
}

fn digest(server: &Server, dir: &Path, name: &str) -> String {
    let shown = kiln(Some(server), dir, &["release", "show", name, "--json"]).ends_with(0).json();
    shown["digest"].as_str().unwrap_or_default().to_owned()
}

/// Returns the digest of the manifest that a tag of `team/app` names.
fn digest_of_tag(server: &Server, tag: &str) -> String {
    let manifest = get_text(&server.address, &format!("/v2/team/app/manifests/{tag}"));
    ContentDigest::of(manifest.as_bytes()).to_string()
}

/// Asserts what clients of registries see: version 1 stands in prod, and version 2 in dev.
fn pulled(server: &Server, dir: &Path) {
    let (one, two) = (digest(server, dir, "team/app:1"), digest(server, dir, "team/app:2"));
    for (tag, expected) in [("1", &one), ("prod", &one), ("2", &two), ("dev", &two)] {
        assert_eq!(&digest_of_tag(server, tag), expected, "{tag}");
    }
    let tags = get_json(&server.address, "/v2/team/app/tags/list");
    let tags = tags["tags"].as_array().cloned().unwrap_or_default();
    let older = tags.iter().filter(|it| it.as_str().is_some_and(|it| it.starts_with("sha256-")));
    assert_eq!((tags.len(), older.count()), (10, 6), "{tags:?}");
    let about = get_json(&server.address, &format!("/v2/team/app/referrers/{one}"));
    let about = about["manifests"].as_array().cloned().unwrap_or_default();
    let kind = |it: &Value| it["annotations"]["dev.sigstore.bundle.predicateType"].clone();
    let summaries: Vec<_> = about.iter().filter(|it| kind(it) == VSA_PREDICATE).collect();
    // There are seven referrers: the list of the closure, four that were signed when the release was made, and one
    // for each of two promotions.
    assert_eq!((about.len(), summaries.len()), (7, 2), "{about:#?}");
    let key = std::fs::read_to_string(dir.join("server.pub")).expect("a file");
    let keys = KeyRing::single("server", PublicKey::from_pem(&key).expect("PEM"));
    for summary in summaries {
        let digest = summary["digest"].as_str().unwrap_or_default();
        let manifest = get_json(&server.address, &format!("/v2/team/app/manifests/{digest}"));
        let layer = manifest["layers"][0]["digest"].as_str().unwrap_or_default();
        let bundle = get_text(&server.address, &format!("/v2/team/app/blobs/{layer}"));
        let read = Attestation::from_bundle(bundle.as_bytes(), &keys).expect("it is the server's");
        assert_eq!(read.statement.predicate["verificationResult"], "PASSED");
    }
    let Some(skopeo) = client("KILN_SKOPEO") else { return };
    let run = |words: &[&str]| {
        let mut command = Command::new(&skopeo);
        command.arg("--insecure-policy").args(words).env("HOME", dir);
        let output = command.env("XDG_RUNTIME_DIR", dir).output().expect("skopeo runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let at = |reference: &str| format!("docker://{}/team/app{reference}", server.address);
    let layout = |name: &str| format!("oci:{}:copy", dir.join(name).display());
    for (reference, name) in [(":prod".to_owned(), "by-tag"), (format!("@{one}"), "by-digest")] {
        // Without this flag skopeo compresses the layers, which makes another manifest.
        let (same, from) = ("--preserve-digests", at(&reference));
        let copy = ["copy", same, "--src-tls-verify=false", &from, &layout(name)];
        let (done, error) = run(&copy);
        assert!(done, "{error}");
        let index = std::fs::read_to_string(dir.join(name).join("index.json")).expect("a file");
        assert!(index.contains(&one), "{index}");
    }
    let (from, to) = (layout("by-tag"), at(":prod"));
    for refused in [
        &["copy", "--dest-tls-verify=false", &from, &to][..],
        &["delete", "--tls-verify=false", &to],
    ] {
        let (done, error) = run(refused);
        let denied = error.to_lowercase().contains("denied");
        assert!(!done && denied, "{refused:?}: {error}");
    }
    assert_eq!(digest_of_tag(server, "prod"), one);
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
