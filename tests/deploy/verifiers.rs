//! Verifiers that others wrote look at what is signed about a release, where there is no network: npm's `@sigstore/verify`, PyPI's
//! `securesystemslib`, and cosign where it can be had. None of them catches everything, so that they are asked together.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_deploy::signing::{Scheme, Signer as _, SigningKey};
use serde_json::Value;

use crate::support::said::kiln;
use crate::support::{self, release};

struct Verifiers {
    directory: PathBuf,
    /// The directory that has npm's packages.
    packages: PathBuf,
    python: PathBuf,
    /// `None`: Debian sid was not whole.
    cosign: Option<PathBuf>,
}

impl Verifiers {
    fn find(directory: &Path) -> Option<Self> {
        let packages = support::client("KILN_SIGSTORE_VERIFY")?;
        let python = support::client("KILN_SECURESYSTEMSLIB")?;
        let cosign = std::env::var_os("KILN_COSIGN").map(PathBuf::from);
        Some(Self { directory: directory.to_owned(), packages, python, cosign })
    }

    /// Runs a program where there is no network. Returns whether it succeeds.
    fn accept(&self, words: &[&OsStr]) -> bool {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net"]).args(words);
        command.env("HOME", &self.directory).env("NODE_PATH", &self.packages);
        let output = command.current_dir(&self.directory).output().expect("unshare runs");
        output.status.success()
    }

    /// Returns what each verifier says of a bundle that is to be about a file and signed with the key in `key.pub`.
    fn verdicts(&self, bundle: &Path, about: &Path) -> BTreeMap<&'static str, bool> {
        let scripts = support::root().join("deploy/tests");
        let (js, py) = (scripts.join("verify.js"), scripts.join("verify.py"));
        let (bundle, key) = (bundle.as_os_str(), OsStr::new("key.pub"));
        let npm = self.accept(&[OsStr::new("node"), js.as_os_str(), bundle, key]);
        let python = self.accept(&[self.python.as_os_str(), py.as_os_str(), bundle, key]);
        let mut verdicts = BTreeMap::from([("npm", npm), ("securesystemslib", python)]);
        if let Some(cosign) = &self.cosign {
            let flags = ["verify-blob-attestation", "--insecure-ignore-tlog", "--type"];
            let flags =
                flags.into_iter().chain(["slsaprovenance1", "--key", "key.pub", "--bundle"]);
            let mut words = vec![cosign.as_os_str()];
            words.extend(flags.map(OsStr::new));
            words.extend([bundle, about.as_os_str()]);
            verdicts.insert("cosign", self.accept(&words));
        }
        verdicts
    }
}

/// An export, and the files in it that verifiers ask for.
struct Exported {
    manifest: PathBuf,
    bundle: PathBuf,
}

/// Exports a release below `directory` that is signed with a new key of this scheme. Writes the public key to `key.pub`.
fn export(directory: &Path, scheme: Scheme) -> Exported {
    let (key, _) = SigningKey::generate(scheme).expect("a key");
    let public = key.public_key().to_pem().expect("PEM");
    std::fs::create_dir(directory).expect("a directory");
    std::fs::write(directory.join("key.pub"), public).expect("a file");
    let place = directory.join("release");
    release::export_program("team/app:1.0", "file", &key, &place);
    let blob = |of: &Value| {
        let digest = of["digest"].as_str().expect("a digest");
        place.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    };
    let index = read(&place.join("index.json"));
    let attestation = read(&blob(&index["manifests"][1]));
    Exported { manifest: blob(&index["manifests"][0]), bundle: blob(&attestation["layers"][0]) }
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

/// Returns the bundle with another name in what was signed.
fn changed(bundle: &Path) -> String {
    let mut document = read(bundle);
    let payload = document["dsseEnvelope"]["payload"].as_str().expect("a payload");
    let payload = String::from_utf8(STANDARD.decode(payload).expect("base64")).expect("UTF-8");
    let other = payload.replace("team/app:1.0", "team/app:1.1");
    assert_ne!(other, payload);
    document["dsseEnvelope"]["payload"] = STANDARD.encode(other).into();
    document.to_string()
}

#[test]
fn verifiers_of_others_accept_what_is_good_and_together_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, scheme) in [("p256", Scheme::EcdsaP256), ("ed25519", Scheme::Ed25519)] {
        let own = directory.path().join(name);
        let Exported { manifest, bundle } = export(&own, scheme);
        let Some(verifiers) = Verifiers::find(&own) else { return };
        let good = verifiers.verdicts(&bundle, &manifest);
        assert!(good.values().all(|it| *it), "{name}: {good:?}");
        let file = own.join("changed.json");
        std::fs::write(&file, changed(&bundle)).expect("a file");
        let bad = verifiers.verdicts(&file, &manifest);
        assert!(bad.values().all(|it| !it), "{name}, changed: {bad:?}");
        let other = export(&directory.path().join(format!("{name}-other")), scheme);
        let bad = verifiers.verdicts(&other.bundle, &other.manifest);
        assert!(bad.values().all(|it| !it), "{name}, by another key: {bad:?}");
        // Two of them look at signatures alone. Whoever uses these has to compare the subject.
        let elsewhere = verifiers.verdicts(&bundle, &bundle);
        assert!(elsewhere.get("cosign").is_none_or(|it| !it), "{name}, elsewhere: {elsewhere:?}");
        let verify = ["release", "verify", "release", "--key", "key.pub"];
        kiln(None, &own, &verify).ends_with(0);
        std::fs::copy(&file, &bundle).expect("a copy");
        kiln(None, &own, &verify).ends_with(1);
    }
}
