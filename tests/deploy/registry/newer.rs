//! Newer clients that others wrote use the registry: oras, crane and cosign of Debian sid.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kiln_deploy::signing::{Scheme, Signer as _, SigningKey};
use serde_json::Value;

use crate::registry::client::{Registry, bytes};
use crate::support::release;
use crate::support::said::kiln;

/// A client, and the directory in which it runs and finds its home.
struct Tool {
    program: PathBuf,
    home: PathBuf,
}

impl Tool {
    /// Returns the client whose path a variable holds. Debian sid is not always whole, so that a client may be absent.
    fn of(variable: &str, home: &Path) -> Option<Self> {
        let program = std::env::var_os(variable).map(PathBuf::from);
        if program.is_none() {
            eprintln!("SKIPPED: {variable} is not set; scripts/test.sh installs it where it can");
        }
        Some(Self { program: program?, home: home.to_owned() })
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("HOME", &self.home).current_dir(&self.home);
        // No proxy is asked for what is on this machine. Whatever else a client wants to fetch is not there.
        command.env("HTTPS_PROXY", "http://127.0.0.1:9").env_remove("NO_PROXY");
        command.output().expect("it runs")
    }

    #[track_caller]
    fn says(&self, arguments: &[&str]) -> String {
        super::printed(arguments, &self.run(arguments))
    }
}

#[test]
fn crane_pushes_validates_copies_pulls_and_deletes() {
    let registry = Registry::start();
    let dir = registry.dir.path();
    let Some(crane) = Tool::of("KILN_CRANE", dir) else { return };
    std::fs::write(dir.join("file"), bytes(1, 3 << 20)).unwrap();
    let tar = Command::new("tar").args(["-cf", "layer.tar", "file"]).current_dir(dir).status();
    assert!(tar.expect("tar runs").success());
    let at = |name: &str| format!("{}/{name}", registry.server.address);
    let (first, copied, back) = (at("team/app:v1"), at("other/copy:v2"), at("team/back:v1"));
    crane.says(&["append", "--oci-empty-base", "-f", "layer.tar", "-t", &first]);
    crane.says(&["validate", "--remote", &first]);
    assert_eq!(crane.says(&["ls", &at("team/app")]).trim(), "v1");
    let digest = crane.says(&["digest", &first]);
    crane.says(&["copy", &first, &copied]);
    assert_eq!(crane.says(&["digest", &copied]), digest);
    crane.says(&["pull", "--format=oci", &first, "pulled"]);
    crane.says(&["push", "pulled", &back]);
    assert_eq!(crane.says(&["digest", &back]), digest);
    crane.says(&["delete", &first]);
    assert!(!crane.run(&["validate", "--remote", &first]).status.success());
    crane.says(&["validate", "--remote", &copied]);
}

#[test]
fn oras_pushes_attaches_copies_with_referrers_discovers_and_pulls() {
    let registry = Registry::start();
    let dir = registry.dir.path();
    let Some(oras) = Tool::of("KILN_ORAS", dir) else { return };
    std::fs::write(dir.join("file.txt"), "content").unwrap();
    std::fs::write(dir.join("note.txt"), "a note").unwrap();
    let at = |name: &str| format!("{}/{name}", registry.server.address);
    let (first, copied) = (at("team/app:v1"), at("other/copy:v2"));
    let kind = "application/vnd.example.note";
    oras.says(&["push", "--plain-http", &first, "file.txt"]);
    oras.says(&["attach", "--plain-http", "--artifact-type", kind, &first, "note.txt"]);
    oras.says(&["cp", "-r", "--from-plain-http", "--to-plain-http", &first, &copied]);
    for name in [&first, &copied] {
        let found = oras.says(&["discover", "--plain-http", "--format", "json", name]);
        let found: Value = serde_json::from_str(&found).unwrap();
        let kinds: Vec<_> =
            found["referrers"].as_array().unwrap().iter().map(|it| &it["artifactType"]).collect();
        assert_eq!(kinds, [kind], "{found}");
    }
    oras.says(&["pull", "--plain-http", "-o", "out", &copied]);
    assert_eq!(std::fs::read_to_string(dir.join("out/file.txt")).unwrap(), "content");
}

/// Makes a key, and writes its public part to a file of this name.
fn key(dir: &Path, name: &str) -> SigningKey {
    let (key, _) = SigningKey::generate(Scheme::EcdsaP256).unwrap();
    std::fs::write(dir.join(name), key.public_key().to_pem().unwrap()).unwrap();
    key
}

#[test]
fn cosign_verifies_a_release_at_the_registry_and_no_other_key() {
    let registry = Registry::start();
    let dir = registry.dir.path();
    let Some(cosign) = Tool::of("KILN_COSIGN", dir) else { return };
    let Some(oras) = Tool::of("KILN_ORAS", dir) else { return };
    key(dir, "other.pub");
    let key = key(dir, "key.pub");
    let digest = release::export_program("team/app:1.0", "file", &key, &dir.join("release"));
    let import = ["release", "import", "release", "--key", "key.pub"];
    kiln(Some(&registry.server), dir, &import).ends_with(0);
    let at = |name: &str| format!("{}/{name}", registry.server.address);
    let (first, copied) = (at("team/app:1.0"), at("other/copy:1.0"));
    // What was signed about a release goes with it to another repository.
    oras.says(&["cp", "-r", "--from-plain-http", "--to-plain-http", &first, &copied]);
    let verified = |repository: &str, key: &str, kind: &str| {
        let image = at(&format!("{repository}@{digest}"));
        let words = ["verify-attestation", "--insecure-ignore-tlog", "--allow-http-registry"];
        let words = [&words[..], &["--key", key, "--type", kind, &image]].concat();
        cosign.run(&words).status.success()
    };
    for repository in ["team/app", "other/copy"] {
        assert!(verified(repository, "key.pub", "slsaprovenance1"), "{repository}");
        assert!(!verified(repository, "other.pub", "slsaprovenance1"), "{repository}");
        assert!(!verified(repository, "key.pub", "spdxjson"), "{repository}");
    }
}
