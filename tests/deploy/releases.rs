//! Releases of what a real Bazel built: the command makes, exports and verifies them, and the server finds them again
//! after a crash.

use crate::support;

use std::path::{Path, PathBuf};

use kiln_deploy::oci::ContentDigest;
use kiln_deploy::signing::{Scheme, Signer as _, SigningKey};
use support::bazel::Bazel;
use support::client;
use support::said::kiln;
use support::server::{Server, get_json, get_text};

const FIRST: &str = "3b1d5a52-70ab-4e1c-9d0f-6c86a5a2e001";
const SECOND: &str = "3b1d5a52-70ab-4e1c-9d0f-6c86a5a2e002";
/// A well-formed hash that no blob has.
const NOTHING: &str = "abababababababababababababababababababababababababababababababab";
const SOURCE: &str = "git+https://git.example/app@1234567890123456789012345678901234567890";
const COMMIT: &str = "--build_metadata=COMMIT_SHA=1234567";

/// Makes a key pair and writes it to `NAME.pem` and `NAME.pub`. Returns the private key.
fn keys(directory: &Path, name: &str) -> SigningKey {
    let (key, pem) = SigningKey::generate(Scheme::EcdsaP256).expect("a key");
    std::fs::write(directory.join(format!("{name}.pem")), pem).expect("a file");
    let public = key.public_key().to_pem().expect("PEM");
    std::fs::write(directory.join(format!("{name}.pub")), public).expect("a file");
    key
}

/// Writes a description of a program that signs with the key of this name, as a key management service does. Returns
/// the path of the description.
fn signing_program(directory: &Path, name: &str) -> PathBuf {
    let key = directory.join(format!("{name}.pem"));
    let sign = format!("openssl dgst -sha256 -sign '{}' | base64", key.display());
    let public = std::fs::read_to_string(directory.join(format!("{name}.pub"))).expect("a key");
    let described = serde_json::json!({"command": ["sh", "-c", sign], "publicKey": public});
    let path = directory.join(format!("{name}.json"));
    std::fs::write(&path, described.to_string()).expect("a file");
    path
}

fn start(data: &Path, key: &Path) -> Server {
    let mut command = support::server::command("127.0.0.1:0", data, &["--workers", "2"]);
    command.env("KILN_RELEASES_KEY", key);
    Server::spawn(command, data)
}

fn build(bazel: &Bazel, server: &Server, invocation: &str, told: bool) {
    let backend = format!("--bes_backend=grpc://{}", server.address);
    let id = format!("--invocation_id={invocation}");
    let mut words = vec!["build", &id, "//cpp:all", "//cpp:gen_1"];
    if told {
        words.extend([&backend, "--build_metadata=BRANCH_NAME=main", COMMIT]);
    }
    bazel.remote(&server.address, &words).expect_success();
}

fn create<'a>(name: &'a str, invocation: &'a str) -> Vec<&'a str> {
    let words = ["release", "create", name, "--invocation", invocation, "--target", "//cpp:all"];
    words.into_iter().chain(["--source", SOURCE, "--json"]).collect()
}

/// Returns the words of a command followed by more words.
fn and<'a>(words: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [words, more].concat()
}

#[tokio::test]
async fn what_bazel_built_is_released_exported_and_verified() {
    let Some(binary) = client("KILN_BAZEL") else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (dir, data) = (directory.path(), directory.path().join("data"));
    let key = keys(dir, "server");
    keys(dir, "mine");
    let server = start(&data, &dir.join("server.pem"));
    let bazel = Bazel::new(binary, "tests/workspace");
    build(&bazel, &server, FIRST, true);

    let made = kiln(Some(&server), dir, &create("team/app:1.0", FIRST)).ends_with(0).json();
    assert_eq!((&made["source"], &made["branch"]), (&SOURCE.into(), &"main".into()));
    let feature = and(&create("team/app:0.9", FIRST), &["--branch", "feature"]);
    let feature = kiln(Some(&server), dir, &feature);
    assert!(
        feature.code == 2 && feature.stderr.contains("its branch was \"main\""),
        "{}",
        feature.stderr
    );
    let secret = SOURCE.replace("https://", "https://TOKEN@");
    let words = create("team/app:0.9", FIRST)
        .into_iter()
        .map(|it| if it == SOURCE { secret.as_str() } else { it });
    let secret = kiln(Some(&server), dir, &words.collect::<Vec<_>>());
    assert!(secret.code == 2 && !secret.stderr.contains("TOKEN"), "{}", secret.stderr);
    assert_eq!(made["public_key"], key.public_key().to_pem().expect("PEM"));
    // The release needed at least nine compilations and a link. No client wrote any of it, and nothing of it is
    // missing.
    let closure = &made["closure"];
    assert!(closure["actions"].as_u64().is_some_and(|it| it >= 10), "{made:#}");
    assert_eq!((&closure["written"], &closure["missing"]), (&0.into(), &0.into()));
    assert!(made["build_level"].as_u64().is_some_and(|it| it >= 2), "{made:#}");

    // A build that is answered from the cache leads to the same executions, so its release has the same content.
    bazel.clean();
    build(&bazel, &server, SECOND, false);
    let hits = kiln(Some(&server), dir, &create("team/app:1.1", SECOND)).ends_with(0).json();
    assert_eq!((&hits["digest"], &hits["closure"]), (&made["digest"], &made["closure"]));
    let diff = kiln(Some(&server), dir, &["release", "diff", "team/app:1.0", "team/app:1.1"]);
    assert_eq!(diff.code, 0, "{}{}", diff.stdout, diff.stderr);

    let export = ["release", "export", "team/app:1.0", "--output", "out dir"];
    let said = kiln(Some(&server), dir, &export);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let again = kiln(Some(&server), dir, &export);
    assert!(again.code == 2 && again.stderr.contains("is not empty"), "{}", again.stderr);
    let verify = ["release", "verify", "out dir", "--key", "server.pub"];
    let demands =
        ["--name", "team/app:1.0", "--source", SOURCE, "--branch", "main", "--level", "2"];
    let said = kiln(None, dir, &and(&verify, &demands));
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let stranger = kiln(None, dir, &["release", "verify", "out dir", "--key", "mine.pub"]);
    assert_eq!(stranger.code, 1, "{}", stranger.stdout);
    let named =
        kiln(Some(&server), dir, &["release", "verify", "team/app:1.0", "--key", "server.pub"]);
    assert_eq!(named.code, 0, "{}{}", named.stdout, named.stderr);

    let binary = bazel.bin().join("cpp/all");
    let binary = binary.to_str().expect("UTF-8");
    let explained = kiln(Some(&server), dir, &["explain", binary, "--json"]).ends_with(0).json();
    assert_eq!(explained["made"][0]["invocation"], FIRST, "{explained:#}");
    assert_eq!(explained["releases"], serde_json::json!(["team/app:1.0", "team/app:1.1"]));
    let provenance = kiln(Some(&server), dir, &["release", "provenance", "team/app:1.0"]);
    assert!(provenance.stdout.contains("source    cpp/main.cc"), "{}", provenance.stdout);

    // The private key stays at the client, and the server gets only signatures.
    let elsewhere = and(&create("mine/app:1", FIRST), &["--key", "mine.pem"]);
    let mine = kiln(Some(&server), dir, &elsewhere).ends_with(0).json();
    assert_eq!((&mine["digest"], &mine["build_level"]), (&made["digest"], &1.into()));
    let mine = kiln(Some(&server), dir, &["release", "verify", "mine/app:1", "--key", "mine.pub"]);
    assert_eq!(mine.code, 0, "{}{}", mine.stdout, mine.stderr);

    // The registry also has both forms of the signatures that the client made.
    let tags = get_json(&server.address, "/v2/mine/app/tags/list");
    let older = made["digest"].as_str().expect("a digest").replace(':', "-");
    let expected = ["1", &older, &format!("{older}.att"), &format!("{older}.sig")];
    assert_eq!(tags["tags"], serde_json::json!(expected));

    let page = get_text(&server.address, "/releases/team/app:1.0");
    for part in ["bin/cpp/all", "cpp/main.cc", "CppCompile", "SLSA build level"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(get_text(&server.address, "/releases").contains("/releases/mine/app%3A1"));

    // The server is killed with -9, and the next one still knows all of it.
    server.kill();
    let server = start(&data, &dir.join("server.pem"));
    let list = kiln(Some(&server), dir, &["release", "list", "--json"]).ends_with(0).json();
    let names: Vec<_> =
        list["releases"].as_array().expect("a list").iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["mine/app:1", "team/app:1.0", "team/app:1.1"]);
    let reject = ["release", "reject", "team/app:1.1", "--reason", "loses data"];
    let said = kiln(Some(&server), dir, &reject);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let named =
        kiln(Some(&server), dir, &["release", "verify", "team/app:1.1", "--key", "server.pub"]);
    assert!(named.code == 1 && named.stdout.contains("loses data"), "{}", named.stdout);
    let again = kiln(Some(&server), dir, &create("team/app:1.1", SECOND));
    assert!(again.code == 4 && again.stderr.contains("loses data"), "{}", again.stderr);
    let log = kiln(Some(&server), dir, &["audit", "log"]).stdout;
    assert_eq!(
        (log.matches("release.create").count(), log.matches("release.reject").count()),
        (3, 1)
    );

    // Another machine builds the same at another time and signs with another key. It gets the same manifest, and it
    // can import the export of the first one.
    let other_data = dir.join("other");
    keys(dir, "other");
    let other = start(&other_data, &signing_program(dir, "other"));
    bazel.clean();
    build(&bazel, &other, FIRST, true);
    let same = kiln(Some(&other), dir, &create("team/app:2.0", FIRST)).ends_with(0).json();
    let public = std::fs::read_to_string(dir.join("other.pub")).expect("a key");
    assert_eq!(same["public_key"], public);
    assert_eq!(same["digest"], made["digest"]);
    let import = ["release", "import", "out dir", "--key", "server.pub", "--json"];
    let imported = kiln(Some(&other), dir, &import).ends_with(0).json();
    assert_eq!((&imported["name"], &imported["digest"]), (&made["name"], &made["digest"]));
    assert_eq!(imported["attestations"], made["attestations"]);
    let pulled = get_text(&other.address, "/v2/team/app/manifests/1.0");
    assert_eq!(ContentDigest::of(pulled.as_bytes()).to_string(), made["digest"]);
}

#[tokio::test]
async fn what_cannot_be_released_is_said() {
    let Some(binary) = client("KILN_BAZEL") else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (dir, data) = (directory.path(), directory.path().join("data"));
    let server = Server::start(&data, &["--workers", "2"]);
    let bazel = Bazel::new(binary, "tests/workspace");
    let id = format!("--invocation_id={FIRST}");
    bazel.remote(&server.address, &["build", &id, "//cpp:gen_1", "//cpp:gen_2"]).expect_success();
    let of = |target: &'static str, invocation: &'static str| {
        ["release", "create", "a:1", "--invocation", invocation, "--target", target]
    };
    for (words, code, said) in [
        (of("//cpp:gen_1", FIRST).to_vec(), 2, "releases.key"),
        (of("//cpp:none", FIRST).to_vec(), 1, "it has those of //cpp:gen_1"),
        (of("//cpp:gen_1", SECOND).to_vec(), 1, "nothing is recorded of the invocation"),
        (["release", "show", "a:1"].to_vec(), 1, "there is no release a:1"),
        (["release", "show", "A"].to_vec(), 2, "team/app:1.4.2"),
        (["release", "verify", "nothing", "--key", "none.pub"].to_vec(), 2, "none.pub"),
        (["explain", NOTHING].to_vec(), 1, ""),
    ] {
        let answer = kiln(Some(&server), dir, &words);
        assert_eq!(answer.code, code, "{words:?}: {}{}", answer.stdout, answer.stderr);
        assert!(answer.stderr.contains(said), "{words:?}: {}", answer.stderr);
    }
}
