//! `kiln release verify` reads a directory and a key and prints a verdict. No server runs, and there is no network.

use crate::support::{self, release};

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kiln_deploy::oci::ContentDigest;
use kiln_deploy::signing::{Scheme, Signer as _, SigningKey};
use serde_json::Value;

/// Writes a release of one file to `directory/release`, and the public key to `directory/key.pub`. Returns the digest
/// of the release's manifest.
fn make(directory: &Path) -> ContentDigest {
    let (key, _) = SigningKey::generate(Scheme::EcdsaP256).expect("a key");
    let public = key.public_key().to_pem().expect("PEM");
    std::fs::write(directory.join("key.pub"), public).expect("a file");
    release::export_program("team/app:1.0", "file", &key, &directory.join("release"))
}

fn verify(directory: &Path, words: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    let command = command.args(["release", "verify", "release", "--key", "key.pub"]).args(words);
    said(&command.current_dir(directory).env_clear().output().expect("kiln runs"))
}

fn said(output: &Output) -> (i32, String) {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8(text).expect("text"))
}

#[test]
fn a_release_is_verified_where_no_network_is() {
    let directory = tempfile::tempdir().expect("a directory");
    make(directory.path());
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", env!("CARGO_BIN_EXE_kiln")])
        .args(["release", "verify", "release", "--key", "key.pub", "--name", "team/app:1.0"])
        .current_dir(directory.path())
        .output()
        .expect("unshare runs");
    let (code, text) = said(&output);
    assert_eq!(code, 0, "{text}");
    for line in ["ok content", "ok signature", "ok closure", "verified"] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn a_broken_link_is_named_and_ends_with_exit_code_1() {
    let directory = tempfile::tempdir().expect("a directory");
    let manifest = make(directory.path());
    let (code, text) = verify(directory.path(), &["--level", "1"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("BROKEN") && text.contains("SLSA build level"), "{text}");

    let blob = |hex: &str| directory.path().join("release/blobs/sha256").join(hex);
    let manifest = std::fs::read(blob(manifest.hex())).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    let layer = manifest["layers"][0]["digest"].as_str().expect("a digest");
    let layer = layer.strip_prefix("sha256:").expect("a digest");
    let mut data = std::fs::read(blob(layer)).expect("a layer");
    data[0] ^= 1;
    std::fs::write(blob(layer), data).expect("a file");
    let (code, text) = verify(directory.path(), &["--json"]);
    assert_eq!(code, 1, "{text}");
    let verdict: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(verdict["verified"], false);
    assert!(verdict["broken"].as_str().expect("text").contains(layer), "{verdict}");
}

/// Runs the script that verifies a release with nothing of Kiln. Returns its exit code and what it printed.
fn verify_by_script(directory: &Path, words: &[&str]) -> (i32, String) {
    let mut command = Command::new("python3");
    command.arg(support::root().join("scripts/verify-release.py"));
    let command = command.args(["release", "--key", "key.pub"]).args(words);
    said(&command.current_dir(directory).output().expect("python3 runs"))
}

/// Returns all files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory").flatten();
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(|it| below(it.path())).collect()
}

#[test]
fn a_script_that_shares_nothing_with_kiln_verifies_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    make(directory);
    let (code, text) = verify_by_script(directory, &["--name", "team/app:1.0"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("ok closure") && text.contains("verified"), "{text}");
    let (code, text) = verify_by_script(directory, &["--name", "team/app:1.1"]);
    assert_eq!(code, 1, "{text}");
    let all = files(&directory.join("release"));
    assert!(all.len() >= 9, "{all:?}");
    for path in all {
        let whole = std::fs::read(&path).expect("a file");
        let mut changed = whole.clone();
        changed[whole.len() / 2] ^= 1;
        std::fs::write(&path, changed).expect("a file");
        let (code, text) = verify_by_script(directory, &[]);
        assert_eq!(code, 1, "{}: {text}", path.display());
        assert_eq!(verify(directory, &[]).0, 1, "{}", path.display());
        std::fs::write(&path, whole).expect("a file");
    }
    let (other, _) = SigningKey::generate(Scheme::Ed25519).expect("a key");
    let other = other.public_key().to_pem().expect("PEM");
    std::fs::write(directory.join("key.pub"), other).expect("a file");
    let (code, text) = verify_by_script(directory, &[]);
    assert_eq!(code, 1, "{text}");
}

#[test]
fn without_a_key_nothing_is_verified() {
    let directory = tempfile::tempdir().expect("a directory");
    make(directory.path());
    std::fs::write(directory.path().join("key.pub"), "no key").expect("a file");
    let (code, text) = verify(directory.path(), &[]);
    assert_eq!(code, 2, "{text}");
    std::fs::remove_file(directory.path().join("key.pub")).expect("it was there");
    let (code, text) = verify(directory.path(), &[]);
    assert_eq!(code, 2, "{text}");
    // The file gets the public key of somebody who has not signed the release.
    let (other, _) = SigningKey::generate(Scheme::EcdsaP256).expect("a key");
    let other = other.public_key().to_pem().expect("PEM");
    std::fs::write(directory.path().join("key.pub"), other).expect("a file");
    let (code, text) = verify(directory.path(), &[]);
    assert_eq!(code, 1, "{text}");
}
