//! `kiln release verify`: a directory and a key in, a verdict out. No server runs, and no network is there.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use kiln_cas::{Digest, DigestFunction};
use kiln_deploy::oci::{
    ContentDigest, Descriptor, EMPTY_CONFIG, EMPTY_TYPE, MANIFEST_TYPE, Manifest,
};
use kiln_deploy::provenance::{
    ActionRecord, Archive, BuildRequest, Limits, Listing, Revision, Root, SLSA_PREDICATE, SignedBy,
    provenance, read_index,
};
use kiln_deploy::releases::{DirectoryExport, Release, bundle_manifest, closure_manifest, export};
use kiln_deploy::resource::ResourceDescriptor;
use kiln_deploy::signing::{Attestation, Scheme, Signer, SigningKey, Statement};
use kiln_deploy::timestamp::Timestamp;
use serde_json::Value;

/// Nothing was built here.
struct Nothing;

impl Archive for Nothing {
    type Error = Infallible;

    fn producers(&self, contents: &[Digest]) -> Result<Vec<Vec<Arc<ActionRecord>>>, Infallible> {
        Ok(contents.iter().map(|_| Vec::new()).collect())
    }

    fn is_used(&self, _: &ActionRecord) -> bool {
        false
    }

    fn directory(&self, _: &Digest) -> Result<Option<Listing>, Infallible> {
        Ok(None)
    }
}

#[derive(Default)]
struct Blobs(HashMap<ContentDigest, Vec<u8>>);

impl Blobs {
    fn put(&mut self, media_type: &str, data: &[u8]) -> Descriptor {
        let descriptor = Descriptor::of(media_type, data);
        self.0.insert(descriptor.digest.clone(), data.to_owned());
        descriptor
    }
}

fn request() -> BuildRequest {
    BuildRequest {
        builder: "https://kiln.example".to_owned(),
        builder_version: "1".to_owned(),
        invocation: "i".to_owned(),
        instance: String::new(),
        target: "//:app".to_owned(),
        revision: Revision::default(),
        signed_by: SignedBy::Server,
        started: Timestamp::from_unix(0),
        finished: Timestamp::from_unix(1),
        signed: Timestamp::from_unix(2),
    }
}

/// A release of one file in `directory/release`, and its key in `directory/key.pub`.
fn make(directory: &Path) {
    let (key, _) = SigningKey::generate(Scheme::EcdsaP256).expect("a key");
    let public = key.public_key().to_pem().expect("PEM");
    std::fs::write(directory.join("key.pub"), public).expect("a file");
    let mut blobs = Blobs::default();
    let config = blobs.put(EMPTY_TYPE, EMPTY_CONFIG);
    let file = blobs.put("text/plain", b"file");
    let manifest = Manifest::image(config, vec![file]).write().expect("JSON");
    let subject = blobs.put(MANIFEST_TYPE, &manifest);
    let root = Root { path: "file".to_owned(), digest: DigestFunction::Sha256.digest(b"file") };
    let mut parts = Vec::new();
    let mut sink = |_: &str, part: Vec<u8>| {
        parts.push(part);
        Ok(())
    };
    let made = provenance(&Nothing, &[root], &request(), Limits::default(), &mut sink);
    let made = made.expect("provenance");
    for part in parts.iter().chain([&made.index]) {
        blobs.put("", part);
    }
    let about = ResourceDescriptor::new("team/app:1.0", "sha256", subject.digest.hex());
    let statement = Statement::new(vec![about], SLSA_PREDICATE, made.predicate).expect("valid");
    let bundle = Attestation::sign(&statement, &key).expect("signed");
    blobs.put("", &bundle);
    let attestation = bundle_manifest(&bundle, SLSA_PREDICATE, &subject).expect("JSON");
    let parts = read_index(&made.index).expect("an index").parts;
    let list = closure_manifest(&made.index, &parts, &subject).expect("JSON").expect("digests");
    blobs.put("", &attestation.1);
    blobs.put("", &list.1);
    let release = Release {
        name: "team/app:1.0".parse().expect("a name"),
        subject,
        attestations: vec![attestation.0, list.0],
        invocation: "i".to_owned(),
        target: "//:app".to_owned(),
        created: Timestamp::from_unix(2),
    };
    let open = |digest: &ContentDigest| -> io::Result<Box<dyn Read>> {
        let data = blobs.0.get(digest).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(data.clone())))
    };
    let mut out = DirectoryExport::new(directory.join("release"));
    export(&release, &open, &mut out).expect("exported");
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
    make(directory.path());
    let (code, text) = verify(directory.path(), &["--level", "1"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("BROKEN") && text.contains("SLSA build level"), "{text}");

    let file = Descriptor::of("", b"file").digest;
    let path = directory.path().join("release/blobs/sha256").join(file.hex());
    std::fs::write(path, "fire").expect("a file");
    let (code, text) = verify(directory.path(), &["--json"]);
    assert_eq!(code, 1, "{text}");
    let verdict: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(verdict["verified"], false);
    assert!(verdict["broken"].as_str().expect("text").contains(file.hex()), "{verdict}");
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
    // Another key than the one that signed.
    let (other, _) = SigningKey::generate(Scheme::EcdsaP256).expect("a key");
    let other = other.public_key().to_pem().expect("PEM");
    std::fs::write(directory.path().join("key.pub"), other).expect("a file");
    let (code, text) = verify(directory.path(), &[]);
    assert_eq!(code, 1, "{text}");
}
