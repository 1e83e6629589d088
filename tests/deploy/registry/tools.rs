//! Clients that others wrote use the registry.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kiln_deploy::oci::{ContentDigest, Descriptor, MANIFEST_TYPE, Manifest};
use serde_json::Value;

use crate::registry::client::{Registry, bytes};
use crate::registry::roles::{guarded, token};
use crate::support::client;

struct Skopeo {
    program: PathBuf,
    home: PathBuf,
}

impl Skopeo {
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.arg("--insecure-policy").args(arguments).env("HOME", &self.home);
        command.env("XDG_RUNTIME_DIR", &self.home).output().expect("skopeo runs")
    }

    #[track_caller]
    fn says(&self, arguments: &[&str]) -> String {
        super::printed(arguments, &self.run(arguments))
    }
}

/// Returns skopeo, and an image that umoci made, in the form `oci:DIR:tag`. Returns `None` if a program is missing.
fn tools(dir: &Path) -> Option<(Skopeo, String)> {
    let program = client("KILN_SKOPEO")?;
    let umoci = client("KILN_UMOCI")?;
    let layout = dir.join("layout");
    let file = dir.join("file");
    std::fs::write(&file, bytes(9, 3 << 20)).unwrap();
    let image = format!("{}:made", layout.display());
    let run = |arguments: &[&str]| {
        let output = Command::new(&umoci).args(arguments).output().expect("umoci runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["init", "--layout", layout.to_str().unwrap()]);
    run(&["new", "--image", &image]);
    run(&["insert", "--rootless", "--image", &image, file.to_str().unwrap(), "/file"]);
    let skopeo = Skopeo { program, home: dir.to_owned() };
    Some((skopeo, format!("oci:{image}")))
}

#[test]
fn skopeo_pushes_lists_inspects_copies_pulls_and_deletes() {
    let registry = Registry::start();
    let dir = registry.dir.path();
    let Some((skopeo, image)) = tools(dir) else { return };
    let at = |name: &str| format!("docker://{}/{name}", registry.server.address);
    let made = skopeo.says(&["inspect", "--raw", &image]);
    skopeo.says(&["copy", "--dest-tls-verify=false", &image, &at("team/app:v1")]);
    let raw = skopeo.says(&["inspect", "--raw", "--tls-verify=false", &at("team/app:v1")]);
    assert_eq!(raw, made, "byte for byte");
    let tags = skopeo.says(&["list-tags", "--tls-verify=false", &at("team/app")]);
    let tags: Value = serde_json::from_str(&tags).unwrap();
    assert_eq!(tags["Tags"], serde_json::json!(["v1"]));
    let both = ["copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    let (first, other) = (at("team/app:v1"), at("other/copy:v2"));
    skopeo.says(&[&both[..], &[first.as_str(), other.as_str()]].concat());
    let back = format!("oci:{}:back", dir.join("back").display());
    skopeo.says(&["copy", "--src-tls-verify=false", &at("other/copy:v2"), &back]);
    assert_eq!(skopeo.says(&["inspect", "--raw", &back]), made);
    skopeo.says(&["delete", "--tls-verify=false", &at("team/app:v1")]);
    assert!(!skopeo.run(&["inspect", "--tls-verify=false", &at("team/app:v1")]).status.success());
    skopeo.says(&["inspect", "--tls-verify=false", &at("other/copy:v2")]);
}

/// Runs buildah on a storage below `dir`. Returns what it printed.
#[track_caller]
fn buildah(program: &Path, dir: &Path, words: &[&str]) -> String {
    let mut command = Command::new(program);
    command.arg("--root").arg(dir.join("root")).arg("--runroot").arg(dir.join("run"));
    command.args(["--storage-driver", "vfs"]).args(words);
    command.env("HOME", dir).env("XDG_RUNTIME_DIR", dir);
    let output = command.output().expect("buildah runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words:?}: {error}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// podman has the same library for registries and images as buildah.
#[test]
fn buildah_pulls_what_others_pushed_and_pushes_it_again() {
    let registry = Registry::start();
    let dir = registry.dir.path();
    let Some(program) = client("KILN_BUILDAH") else { return };
    let Some((skopeo, image)) = tools(dir) else { return };
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: without root buildah needs ranges of user ids");
        return;
    }
    let policy = dir.join("policy.json");
    std::fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    let flags = ["--tls-verify=false", "--signature-policy", policy.to_str().unwrap()];
    let at = |name: &str| format!("docker://{}/{name}", registry.server.address);
    let (first, second) = (at("team/app:v1"), at("team/again:v2"));
    skopeo.says(&["copy", "--dest-tls-verify=false", &image, &first]);
    let run = |words: &[&str]| buildah(&program, dir, words);
    let id = run(&[&["pull"][..], &flags[..], &[first.as_str()]].concat());
    run(&[&["push"][..], &flags[..], &[id.as_str(), second.as_str()]].concat());
    let config =
        |of: &str| skopeo.says(&["inspect", "--config", "--raw", "--tls-verify=false", of]);
    assert_eq!(config(&second), config(&first));
    run(&["rmi", "--all"]);
    assert_eq!(run(&[&["pull"][..], &flags[..], &[second.as_str()]].concat()), id);
}

#[test]
fn skopeo_logs_in_with_a_token_and_a_stranger_does_not() {
    let registry = guarded("", &[]);
    let dir = registry.dir.path();
    let Some((skopeo, image)) = tools(dir) else { return };
    let place = registry.server.address.clone();
    let file = dir.join("auth.json").display().to_string();
    let login = |password: &str| {
        skopeo.run(&[
            "login",
            "--tls-verify=false",
            "--authfile",
            &file,
            "-u",
            "ci",
            "-p",
            password,
            &place,
        ])
    };
    assert!(!login("wrong").status.success());
    let target = format!("docker://{place}/team/app:v1");
    let copy = ["copy", "--dest-tls-verify=false", image.as_str(), target.as_str()];
    assert!(!skopeo.run(&copy).status.success(), "a stranger's push");
    assert!(login(&token("ci")).status.success());
    skopeo.says(&[&copy[..], &["--dest-authfile", &file]].concat());
    let inspect = ["inspect", "--tls-verify=false", target.as_str()];
    assert!(!skopeo.run(&inspect).status.success(), "a stranger's pull");
    skopeo.says(&[&inspect[..], &["--authfile", &file]].concat());
    let other = format!("docker://{place}/other/app:v1");
    let copy = ["copy", "--dest-tls-verify=false", "--dest-authfile", &file, &image, &other];
    assert!(!skopeo.run(&copy).status.success(), "the token is for team alone");
}

/// skopeo 1.9 copies no referrers. So the test copies the image as a client does that follows the registry's list.
#[test]
fn an_image_is_copied_with_what_is_said_about_it() {
    let registry = Registry::start();
    let image = registry.push_image("team/app", "v1", &bytes(1, 5000));
    registry.push("team/app", b"{}");
    let signature = registry.push("team/app", b"signed");
    let layers = vec![Descriptor::new("text/plain", signature, 6)];
    let mut artifact = Manifest::artifact("application/vnd.example.sig", layers);
    artifact.subject = Some(Descriptor::new(MANIFEST_TYPE, image.clone(), 1));
    let data = artifact.write().unwrap();
    let reference = ContentDigest::of(&data).to_string();
    registry.put_manifest("team/app", &reference, MANIFEST_TYPE, &data).expect(201);
    copy(&registry, &image.to_string());
    let referrers = |repository: &str| {
        registry.get(&format!("/v2/{repository}/referrers/{image}")).expect(200).json()
    };
    assert_eq!(referrers("copy/app"), referrers("team/app"));
    assert_eq!(referrers("copy/app")["manifests"].as_array().unwrap().len(), 1);
}

/// Copies a manifest of `team/app` to `copy/app`: first its blobs by mounts, then the manifest, and then everything
/// that refers to it.
fn copy(registry: &Registry, digest: &str) {
    let manifest = registry.get(&format!("/v2/team/app/manifests/{digest}")).expect(200);
    let document = manifest.json();
    let layers = document["layers"].as_array().unwrap().iter();
    for blob in layers.chain([&document["config"]]) {
        let mount = blob["digest"].as_str().unwrap();
        let path = format!("/v2/copy/app/blobs/uploads/?mount={mount}&from=team/app");
        registry.send("POST", &path, &[], &[]).expect(201);
    }
    registry.put_manifest("copy/app", digest, MANIFEST_TYPE, &manifest.body).expect(201);
    let listed = registry.get(&format!("/v2/team/app/referrers/{digest}")).expect(200).json();
    for referrer in listed["manifests"].as_array().unwrap() {
        copy(registry, referrer["digest"].as_str().unwrap());
    }
}
