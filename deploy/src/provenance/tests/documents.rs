//! Provenance, levels and bills of materials.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::{
    BuildRequest, Describes, Limits, MAX_PREDICATE_BYTES, Mechanism, Origin, Package, PackageKind,
    Provenance, Revision, SLSA_PREDICATE, SignedBy, Source, cyclonedx, provenance, spdx,
};
use super::fake::{Fake, content, root, sandbox_without};
use crate::resource::ResourceDescriptor;
use crate::signing::Statement;
use crate::timestamp::Timestamp;

const COMMIT: &str = "1234567890123456789012345678901234567890";

pub fn request(signed_by: SignedBy) -> BuildRequest {
    BuildRequest {
        builder: "https://kiln.example".to_owned(),
        builder_version: "0.1.0".to_owned(),
        invocation: "invocation".to_owned(),
        instance: String::new(),
        target: "//app".to_owned(),
        revision: Revision::released(Source::parse(&format!(
            "git+https://git.example/app@{COMMIT}"
        ))),
        signed_by,
        started: Timestamp::from_unix(0),
        finished: Timestamp::from_unix(60),
        signed: Timestamp::from_unix(90),
    }
}

fn of(fake: &Fake, signed_by: SignedBy) -> (Provenance, BTreeMap<String, Vec<u8>>) {
    let mut parts = BTreeMap::new();
    let mut sink = |digest: &str, data: Vec<u8>| {
        parts.insert(digest.to_owned(), data);
        Ok(())
    };
    let roots = [root("out/app", "app")];
    let made = provenance(fake, &roots, &request(signed_by), Limits::default(), &mut sink).unwrap();
    (made, parts)
}

fn fake() -> Fake {
    let mut fake = Fake::default();
    let inputs = [("a.c", "c"), ("external/rules_cc+0.0.9/cc.h", "h"), ("external/x/y.h", "y")];
    fake.ran("compile", 0, &inputs, &[("out/a.o", "o")]);
    fake.ran("link", 20, &[("out/a.o", "o")], &[("out/app", "app")]);
    fake
}

#[test]
fn provenance_names_the_commit_the_closure_and_the_images() {
    let (made, parts) = of(&fake(), SignedBy::Server);
    let predicate = Value::Object(made.predicate.clone());
    let definition = &predicate["buildDefinition"];
    assert_eq!(definition["externalParameters"]["target"], "//app");
    let names: Vec<_> = definition["resolvedDependencies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| serde_json::from_value::<ResourceDescriptor>(it.clone()).unwrap())
        .collect();
    assert_eq!(names[0].digest["gitCommit"], COMMIT);
    assert_eq!(format!("sha256:{}", names[1].digest["sha256"]), made.index_digest);
    assert_eq!(names[2].digest["sha256"], content("image").hex());
    assert!(names.iter().all(|it| it.check().is_ok()));
    assert_eq!(predicate["runDetails"]["metadata"]["finishedOn"], "1970-01-01T00:01:00Z");
    assert_eq!(parts.len(), 1);
    let subject = ResourceDescriptor::new("app", "sha256", &"a".repeat(64));
    let statement = Statement::new(vec![subject], SLSA_PREDICATE, made.predicate).unwrap();
    assert!(Statement::read(&statement.write().unwrap()).is_ok());
}

#[test]
fn the_same_closure_gives_the_same_bytes() {
    let (one, two) = (of(&fake(), SignedBy::Server), of(&fake(), SignedBy::Server));
    assert_eq!(one, two);
}

#[test]
fn each_level_has_its_reason() {
    let level = |fake: &Fake, signed_by| of(fake, signed_by).0.level;
    let best = level(&fake(), SignedBy::Server);
    assert_eq!((best.build_level, best.but.len()), (3, 0));
    let own_key = level(&fake(), SignedBy::Client);
    assert_eq!((own_key.build_level, own_key.but.len()), (1, 1));

    let mut written = fake();
    written.wrote("write", 5, &[("out/app", "app")]);
    written.use_record("write");
    let nothing = level(&written, SignedBy::Server);
    assert_eq!((nothing.build_level, nothing.but.len()), (0, 1));

    let mut written = fake();
    written.wrote("write", 5, &[("out/a.o", "o")]);
    written.use_record("write");
    let partly = level(&written, SignedBy::Server);
    assert_eq!(partly.build_level, 2);
    assert!(partly.but[0].starts_with("1 result was written by a client"), "{partly:?}");
}

#[test]
fn an_action_that_could_reach_others_keeps_the_level_down() {
    let mut fake = fake();
    let mut record = {
        fake.ran("late", 40, &[("s", "s")], &[("out/app", "app")]);
        fake_record(&fake)
    };
    if let Origin::Ran(run) = &mut record.origin {
        run.sandbox = sandbox_without(Mechanism::NoNetwork);
    }
    record.id = "open".to_owned();
    fake.add(record);
    fake.use_record("open");
    let level = of(&fake, SignedBy::Server).0.level;
    assert_eq!(level.build_level, 2);
    assert!(level.but[0].starts_with("1 action ran without full isolation"), "{level:?}");
}

fn fake_record(fake: &Fake) -> super::super::ActionRecord {
    use super::super::Archive as _;
    let found = fake.producers(&[content("app")]).unwrap();
    (*found[0].last().unwrap().clone()).clone()
}

#[test]
fn what_was_not_built_here_is_counted_and_named() {
    let mut fake = fake();
    fake.wrote("write", 5, &[("out/a.o", "o")]);
    fake.use_record("write");
    let made = Value::Object(of(&fake, SignedBy::Server).0.predicate);
    let not_here = &made["buildDefinition"]["internalParameters"]["notBuiltHere"];
    assert_eq!(not_here["writtenResults"], 1);
    assert_eq!(not_here["firstWrittenResults"][0]["by"], "somebody");
    assert_eq!(not_here["uploadedSources"], 0);
}

#[test]
fn a_large_closure_has_a_small_predicate_and_a_complete_list() {
    let mut fake = Fake::default();
    let mut inputs = Vec::new();
    for number in 0..5000 {
        let (id, path) = (format!("c{number}"), format!("out/{number}.o"));
        let source = format!("{number}.c");
        let inputs_of = [(source.as_str(), source.as_str())];
        fake.ran(&id, 0, &inputs_of, &[(path.as_str(), id.as_str())]);
        inputs.push((path, id));
    }
    let inputs: Vec<_> = inputs.iter().map(|(path, id)| (path.as_str(), id.as_str())).collect();
    fake.ran("link", 20, &inputs, &[("out/app", "app")]);
    let (made, parts) = of(&fake, SignedBy::Server);
    assert_eq!((made.closure.actions, made.closure.sources), (5001, 5000));
    let size = serde_json::to_vec(&made.predicate).unwrap().len();
    assert!(size < MAX_PREDICATE_BYTES / 100, "{size}");
    let lines: usize =
        parts.values().map(|it| it.iter().filter(|byte| **byte == b'\n').count()).sum();
    assert_eq!(lines, 10_001);
}

#[test]
fn a_source_is_a_commit_of_a_repository() {
    assert!(Source::parse(&format!("git+ssh://git@git.example/app@{COMMIT}")).is_some());
    for wrong in ["git+https://git.example/app", "git+https://git.example/app@main", "app@1234", ""]
    {
        assert!(Source::parse(wrong).is_none(), "{wrong}");
    }
    assert!(Source::parse(&format!("https://git.example/app@{COMMIT}")).is_none());
}

#[test]
fn packages_are_repositories_and_images() {
    let packages = of(&fake(), SignedBy::Server).0.packages;
    let named: Vec<_> =
        packages.iter().map(|it| (it.kind, it.name.as_str(), it.version.as_str())).collect();
    let image = format!("sha256:{}", content("image").hex());
    let expected = [
        (PackageKind::Main, "git+https://git.example/app", ""),
        (PackageKind::Repository, "rules_cc", "0.0.9"),
        (PackageKind::Repository, "x", ""),
        (PackageKind::Image, image.as_str(), ""),
    ];
    assert_eq!(named, expected);
}

#[test]
fn bills_name_all_packages_and_repeat_byte_for_byte() {
    let packages = of(&fake(), SignedBy::Server).0.packages;
    let sha = "a".repeat(64);
    let of = Describes {
        name: "app",
        sha256: &sha,
        created: Timestamp::from_unix(60),
        tool: "kiln-0.1.0",
    };
    let read = |data: Vec<u8>| serde_json::from_slice::<Value>(&data).unwrap();
    let bill = read(spdx(&of, &packages).unwrap());
    assert_eq!(bill["packages"].as_array().unwrap().len(), 1 + packages.len());
    assert_eq!(bill["relationships"].as_array().unwrap().len(), 1 + packages.len());
    assert_eq!(bill["packages"][2]["versionInfo"], "0.0.9");
    let other = read(cyclonedx(&of, &packages).unwrap());
    assert_eq!(other["components"].as_array().unwrap().len(), packages.len());
    let serial = other["serialNumber"].as_str().unwrap();
    assert_eq!(serial.len(), "urn:uuid:".len() + 36);
    assert_eq!(spdx(&of, &packages).unwrap(), spdx(&of, &packages).unwrap());
    assert_eq!(other, read(cyclonedx(&of, &packages).unwrap()));
    let changed = [Package { files: 9, ..packages[0].clone() }];
    assert_ne!(spdx(&of, &changed).unwrap(), spdx(&of, &packages[..1]).unwrap());
}
