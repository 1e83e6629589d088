//! Holds what `src/generated` contains against `proto/`, or writes it anew:
//! `KILN_GENERATE=1 cargo test -p kiln-protos`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

type Files = BTreeMap<String, String>;

/// Compiles Kiln's own services without a system `protoc`.
fn generate(proto: &Path, out: &Path) {
    let own = [
        "kiln/worker/v1/worker.proto",
        "kiln/events/v1/events.proto",
        "kiln/logs/v1/logs.proto",
        "kiln/persistent/v1/persistent.proto",
        "kiln/admin/v1/admin.proto",
        "bazel/query.proto",
    ];
    let descriptors = protox::compile(own, [proto]).unwrap();
    let builder = || tonic_prost_build::configure().bytes(".").out_dir(out);
    builder().compile_fds(descriptors).unwrap();
    // On its own, because it uses the messages of the others.
    let users = [
        "kiln/queue/v1/queue.proto",
        "kiln/hermeticity/v1/hermeticity.proto",
        "kiln/executions/v1/executions.proto",
    ];
    let descriptors = protox::compile(users, [proto]).unwrap();
    builder().extern_path(".kiln.events.v1", "crate::events").compile_fds(descriptors).unwrap();
    let published = [
        "google/devtools/build/v1/publish_build_event.proto",
        "build_event_stream/build_event_stream.proto",
    ];
    let descriptors = protox::compile(published, [proto]).unwrap();
    // Its own types of time and the like are those of the other protocols.
    builder()
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "crate::protobuf")
        .compile_fds(descriptors)
        .unwrap();
}

/// The files that are generated here; others are of packages that come with a crate.
const OWN: [&str; 4] = ["kiln.", "blaze_query.", "google.devtools.", "build_event_stream."];

/// The messages among the files of a directory that are made here, by name.
fn files(dir: &Path) -> Files {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let named = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
    named
        .filter(|(name, _)| OWN.iter().any(|own| name.starts_with(own)))
        .map(|(name, path)| (name, fs::read_to_string(path).unwrap()))
        .collect()
}

#[test]
fn what_is_kept_is_what_the_protocols_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kept = root.join("src/generated");
    if env::var_os("KILN_GENERATE").is_some() {
        generate(&root.join("proto"), &kept);
        return;
    }
    let fresh = tempfile::tempdir().unwrap();
    generate(&root.join("proto"), fresh.path());
    let (kept, fresh) = (files(&kept), files(fresh.path()));
    let differing: Vec<_> = fresh
        .keys()
        .chain(kept.keys())
        .filter(|name| kept.get(*name) != fresh.get(*name))
        .collect();
    assert!(
        differing.is_empty(),
        "{differing:?} in protos/src/generated differ from protos/proto; \
         KILN_GENERATE=1 cargo test -p kiln-protos writes them anew"
    );
}
