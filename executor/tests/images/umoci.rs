//! Random layers, unpacked here and by `umoci` (`KILN_UMOCI`).

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::build::{Item, Packing, TestImage, hex};
use crate::{House, config};

fn program(variable: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(path.into());
    }
    assert!(std::env::var_os("KILN_NO_SKIPS").is_none(), "{variable} is not set");
    eprintln!("SKIPPED: {variable} is not set; scripts/test.sh installs it");
    None
}

/// What is beneath `root`, by its path. Devices and the sandbox's own places are left out.
fn contents(root: &Path) -> BTreeMap<String, String> {
    fn visit(
        root: &Path,
        directory: &Path,
        all: &mut BTreeMap<String, String>,
        inodes: &mut BTreeMap<u64, String>,
    ) {
        let mut entries: Vec<_> =
            std::fs::read_dir(directory).unwrap().map(|it| it.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if ["etc", "etc/hosts", "etc/resolv.conf"].contains(&name.as_str()) {
                continue;
            }
            let metadata = path.symlink_metadata().unwrap();
            let mode = metadata.permissions().mode();
            let what = if metadata.is_symlink() {
                format!("-> {} at {}", path.read_link().unwrap().display(), metadata.mtime())
            } else if metadata.is_dir() {
                visit(root, &path, all, inodes);
                format!("directory {:o}", everybody(mode) | 0o755)
            } else {
                let first = inodes.entry(metadata.ino()).or_insert(name.clone()).clone();
                let data = hex(&std::fs::read(&path).unwrap());
                format!("{data} {:o} at {} as {first}", everybody(mode), metadata.mtime())
            };
            all.insert(name, what);
        }
    }
    fn everybody(mode: u32) -> u32 {
        mode & 0o777 | (mode & 0o500) >> 3 | (mode & 0o500) >> 6
    }
    let mut all = BTreeMap::new();
    visit(root, root, &mut all, &mut BTreeMap::new());
    all
}

/// Names from a few, so that layers meet; directories come before what is in them.
fn layer() -> impl Strategy<Value = Vec<Item>> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    let item = (path.clone(), 0..9usize, path, 0..0o1000u32, 1..2_000_000_000u64).prop_map(
        |(path, kind, other, mode, time)| {
            let hidden = match path.rsplit_once('/') {
                Some((parent, name)) => format!("{parent}/.wh.{name}"),
                None => format!(".wh.{path}"),
            };
            let item = match kind {
                0..=2 => Item::file(&path, &other),
                3 | 4 => Item::directory(&path),
                5 => Item::symlink(&path, "nowhere"),
                6 => Item::link(&path, &other),
                7 => Item::file(&hidden, ""),
                _ => Item::file(&format!("{path}/.wh..wh..opq"), ""),
            };
            Item { time, ..item.mode(mode | 0o600) }
        },
    );
    prop::collection::vec(item, 0..8)
}

/// Keeps what tools make: nothing in what is not a directory, links to files that are there, one
/// entry for one path, whiteouts before everything else and for what is there.
fn sensible(layers: Vec<Vec<Item>>) -> Vec<Vec<Item>> {
    let mut there: BTreeMap<String, char> = BTreeMap::new();
    let below = |path: &str, other: &str| other.starts_with(&format!("{path}/"));
    let forget = |there: &mut BTreeMap<String, char>, path: &str| {
        there.retain(|other, _| other != path && !below(path, other));
    };
    let mut all = Vec::new();
    for layer in layers {
        let is_whiteout = |item: &Item| item.path.rsplit('/').next().unwrap().starts_with(".wh.");
        let (whiteouts, others): (Vec<Item>, Vec<Item>) = layer.into_iter().partition(is_whiteout);
        let mut kept = Vec::new();
        for item in whiteouts {
            let (parent, name) = item.path.rsplit_once('/').unwrap_or(("", &item.path));
            if name == ".wh..wh..opq" {
                if there.get(parent) == Some(&'d') {
                    there.retain(|other, _| !below(parent, other));
                    kept.push(item);
                }
            } else {
                let name = name.strip_prefix(".wh.").unwrap();
                let path =
                    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") };
                if there.contains_key(&path) {
                    forget(&mut there, &path);
                    kept.push(item);
                }
            }
        }
        let mut own = std::collections::BTreeSet::new();
        for item in others {
            let parents: Vec<&str> =
                item.path.match_indices('/').map(|(at, _)| &item.path[..at]).collect();
            if parents.iter().any(|parent| there.get(*parent) != Some(&'d'))
                || !own.insert(item.path.clone())
            {
                continue;
            }
            let directory = item.kind == tar::EntryType::Directory;
            if item.kind == tar::EntryType::Link
                && (there.get(&item.link) != Some(&'f') || item.link == item.path)
            {
                continue;
            }
            let replaces_own = own.iter().any(|other| below(&item.path, other));
            if !directory && replaces_own {
                continue;
            }
            if !directory || there.get(&item.path) != Some(&'d') {
                forget(&mut there, &item.path);
            }
            let kind = match item.kind {
                tar::EntryType::Directory => 'd',
                tar::EntryType::Symlink => 'l',
                _ => 'f',
            };
            there.insert(item.path.clone(), kind);
            kept.push(item);
        }
        all.push(kept);
    }
    all
}

fn unpack_with_umoci(umoci: &Path, image: &TestImage, place: &Path) -> PathBuf {
    let layout = place.join("layout");
    image.write_layout(&layout);
    let manifest = &image.blobs[&image.digest];
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": format!("sha256:{}", image.digest), "size": manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": "it"}}]});
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
    let bundle = place.join("bundle");
    let output = Command::new(umoci)
        .args(["unpack", "--rootless", "--image"])
        .arg(format!("{}:it", layout.display()))
        .arg(&bundle)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    bundle.join("rootfs")
}

#[test]
fn random_layers_become_what_umoci_makes_of_them() {
    let Some(umoci) = program("KILN_UMOCI") else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let layers = prop::collection::vec(layer(), 1..5).prop_map(sensible);
    let mut runner =
        TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(48) });
    let outcome = runner.run(&layers, |layers| {
        let packed: Vec<_> = layers.into_iter().map(|items| (Packing::Gzip, items)).collect();
        let image = TestImage::new(&packed);
        let place = tempfile::tempdir().unwrap();
        let theirs = unpack_with_umoci(&umoci, &image, place.path());
        let house = House::new(config(&[&format!("oci:{}", place.path().display())]));
        let name = format!("oci:{}/layout@sha256:{}", place.path().display(), image.digest);
        let ours = runtime.block_on(house.get(&name)).unwrap();
        prop_assert_eq!(contents(&ours.root()), contents(&theirs));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
