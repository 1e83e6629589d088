//! What a release may not hide: other paths, other names, other keys, what was built elsewhere.

use kiln_protos::reapi;

use super::super::{By, CatalogError, Prepared, ToldFile, Wanted};
use super::rig::{House, trusting};
use crate::executions::tests::rig::{action, content, executed, later, wire};
use crate::releases::{VerifyError, export_index};
use crate::signing::{PublicKey, Scheme, Signer as _, SigningKey};

fn told(path: &str, text: &str) -> ToldFile {
    let digest = content(text);
    ToldFile { path: path.to_owned(), hash: digest.hex(), size: digest.size, link: None }
}

#[tokio::test]
async fn files_of_one_content_stay_where_build_events_say_that_they_are() {
    let house = House::start().await;
    house.build("one", "1").await;
    house.put("same").await;
    for (target, path) in
        [("//:aa", "bazel-out/k8/bin/aa.txt"), ("//:zz", "bazel-out/k8/bin/zz.txt")]
    {
        let mut made = executed("one", target, &[(path, "same")]);
        made.action = Some(action(target));
        house.rig.events.publish(made);
    }
    house.rig.executions.flush().await;
    // A group of files, which no action of its own makes.
    let mut digests = Vec::new();
    for (name, paths) in [
        ("zz:1", &["bazel-out/k8/bin/zz.txt"][..]),
        ("aa:1", &["bazel-out/k8/bin/aa.txt"][..]),
        ("both:1", &["bazel-out/k8/bin/aa.txt", "bazel-out/k8/bin/zz.txt"][..]),
    ] {
        let mut asked = house.asked(name, "one");
        let files = paths.iter().map(|path| told(path, "same")).collect();
        asked.outputs =
            Wanted { target: "//:group".to_owned(), told: Some(files), ..Wanted::default() };
        let made = house.make(asked).await.unwrap();
        digests.push(made.release.subject.digest);
    }
    assert!(digests.iter().enumerate().all(|(at, it)| !digests[..at].contains(it)), "{digests:?}");
}

#[tokio::test]
async fn what_the_store_lacks_is_missed_where_it_is_wanted() {
    let house = House::start().await;
    house.build("one", "1").await;
    // A source that nobody uploaded; Bazel may not even say its hash.
    let program = "bazel-out/k8/bin/app/app";
    let nameless = ToldFile { hash: String::new(), ..told("app/run.sh", "") };
    for lacking in [told("app/run.sh", "never stored"), nameless] {
        let mut asked = house.asked("a:1", "one");
        asked.outputs.told = Some(vec![told(program, "program 1"), lacking]);
        let refused = house.make(asked.clone()).await;
        let Err(CatalogError::NotStored(path)) = &refused else { panic!("{refused:?}") };
        assert_eq!(path, "app/run.sh");
        asked.outputs.paths = vec!["bazel-bin/app/app".to_owned()];
        house.make(asked).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_compiled_elsewhere_is_no_source() {
    let house = House::start().await;
    house.build("one", "1").await;
    for name in ["app.o", "version.h", "run.py"] {
        made_elsewhere(&house, name, 2).await;
    }
    // What Bazel writes itself, whatever rules say.
    made_elsewhere(&house, "app-2.params", 3).await;
}

async fn made_elsewhere(house: &House, name: &str, level: u8) {
    let object = format!("bazel-out/k8/bin/app/{name}");
    house.put("linked").await;
    let inputs = reapi::Directory {
        files: vec![reapi::FileNode {
            name: name.to_owned(),
            digest: Some(content(&format!("{name} of a laptop")).to_wire()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut directory = house.rig.put(&inputs).await;
    for name in object.rsplit('/').skip(1) {
        let node =
            reapi::DirectoryNode { name: name.to_owned(), digest: Some(directory.to_wire()) };
        let above = reapi::Directory { directories: vec![node], ..Default::default() };
        directory = house.rig.put(&above).await;
    }
    let target = format!("//linked:{name}");
    let output = format!("bazel-out/k8/bin/linked/{name}.bin");
    let mut made = later(executed("one", &target, &[(&output, "linked")]), 90);
    made.action = Some(action(&target));
    made.input_root = Some(wire(directory));
    house.rig.events.publish(made);
    house.rig.executions.flush().await;
    let mut asked = house.asked(&format!("{}:1", name.to_lowercase()), "one");
    asked.outputs.target = target;
    let made = house.make(asked).await.unwrap();
    assert_eq!(made.level.build_level, level, "{name}: {:?}", made.level);
    let said = format!("somewhere else and uploaded, such as {object}");
    assert_eq!(made.level.but.iter().any(|it| it.ends_with(&said)), level == 2, "{:?}", made.level);
}

#[tokio::test]
async fn nobody_thinks_that_he_signed_what_another_key_did() {
    let house = House::start().await;
    house.build("one", "1").await;
    let prepared = house.catalog.prepare(house.asked("a:1", "one"), By::Client).await.unwrap();
    let Prepared::Draft(draft, messages) = prepared else { panic!("it is not there yet") };
    house.create("a:1", "one").await.unwrap();
    let (key, _) = SigningKey::generate(Scheme::Ed25519).unwrap();
    let signatures = messages.iter().map(|it| key.sign(it).unwrap()).collect();
    let signed = (key.public_key().clone(), signatures);
    let late = house.catalog.signed_elsewhere("", &draft.id, signed, "somebody").await;
    assert!(matches!(late, Err(CatalogError::SignedOtherwise { .. })), "{late:?}");
    assert!(house.create("a:1", "one").await.is_ok(), "the same key");
}

#[tokio::test]
async fn an_export_has_the_name_that_was_signed() {
    let house = House::start().await;
    house.build("one", "1").await;
    let made = house.create("team/app:1.0", "one").await.unwrap();
    let key = PublicKey::from_pem(&made.public_key).unwrap();
    for name in ["team/app:2.0", "other/app:1.0"] {
        let mut renamed = made.release.clone();
        renamed.name = name.parse().unwrap();
        let index = export_index(&renamed).unwrap();
        let taken = house.catalog.import("", index, trusting(&key), "bringer").await;
        let Err(CatalogError::NotVerified(why)) = taken else { panic!("{name}: {taken:?}") };
        assert!(matches!(*why, VerifyError::SignedName { .. }), "{why}");
    }
}

#[tokio::test]
async fn an_imported_release_is_known_by_its_files_and_its_blobs() {
    let (house, other) = (House::start().await, House::start().await);
    house.build("one", "1").await;
    let made = house.create("team/app:1.0", "one").await.unwrap();
    for (digest, size) in &made.content {
        let digest = super::super::sized(digest, *size).unwrap();
        let bytes = house.rig.blobs.read(&digest, 0, None).await.unwrap();
        let bytes = bytes.collect(u64::MAX).await.unwrap();
        other.rig.blobs.write(&digest, bytes).await.unwrap();
    }
    let index = export_index(&made.release).unwrap();
    let key = PublicKey::from_pem(&made.public_key).unwrap();
    let taken = other.catalog.import("", index, trusting(&key), "bringer").await.unwrap();
    // All but cosign's older signature: that is signed by itself, and no part of an export.
    assert!(taken.content.iter().all(|it| made.content.contains(it)), "{taken:?}");
    let blobs = taken.content.iter().map(|(digest, _)| digest.hex().to_owned());
    for hash in blobs.chain([content("program 1").hex()]) {
        let found = other.catalog.origins("", &hash).await.unwrap();
        assert_eq!((found.releases.len(), found.rejected.len()), (1, 0), "{hash}");
    }
    other.catalog.reject("", &made.release.name, "old", "somebody").await.unwrap();
    let found = other.catalog.origins("", &content("program 1").hex()).await.unwrap();
    assert_eq!(found.rejected, [made.release.name]);
}

#[tokio::test]
async fn where_the_action_is_known_nobody_adds_to_it_by_naming_the_invocation() {
    let house = House::start().await;
    house.build("one", "1").await;
    house.put("other").await;
    let mut other = executed("one", "//app", &[("bazel-out/k8/bin/app/app", "other")]);
    other.action = Some(action("other"));
    house.rig.events.publish(other);
    house.rig.executions.flush().await;
    for (name, meant, text) in [("a:1", "//app", "program 1"), ("a:2", "other", "other")] {
        let mut asked = house.asked(name, "one");
        asked.outputs.paths = vec!["app/app".to_owned()];
        asked.outputs.action = Some(action(meant).hash);
        house.make(asked).await.unwrap();
        let origins = house.catalog.origins("", &content(text).hex()).await.unwrap();
        let releases: Vec<_> = origins.releases.iter().map(ToString::to_string).collect();
        assert_eq!(releases, [name.to_owned()]);
    }
    let mut asked = house.asked("a:3", "one");
    asked.outputs.action = Some(action("none of them").hash);
    assert!(matches!(house.make(asked).await, Err(CatalogError::NoOutputs { .. })));
}
