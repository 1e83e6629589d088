//! Symbolic links and empty directories among what is released.

use std::collections::BTreeMap;
use std::io::Read as _;

use kiln_cas::Digest;
use kiln_protos::events::Execution;
use kiln_protos::reapi::{self, ActionResult};
use prost::Message as _;

use super::super::{CatalogEntry, CatalogError, ToldFile, Wanted};
use super::rig::House;
use crate::executions::tests::rig::{action, add_directory, content, executed};
use crate::oci::{Document, LayerError, MANIFEST_TYPE};

const DIRECTORY: &str = "bazel-out/k8/bin/d";

/// A directory with a file `a`, an empty directory `void`, and a link with this target.
async fn directory(house: &House, link: &str) -> Digest {
    house.put("a").await;
    let file = reapi::FileNode {
        name: "a".to_owned(),
        digest: Some(content("a").to_wire()),
        ..Default::default()
    };
    let link =
        reapi::SymlinkNode { name: "b".to_owned(), target: link.to_owned(), ..Default::default() };
    let empty = reapi::Directory::default();
    let digest = kiln_cas::DigestFunction::Sha256.digest(&empty.encode_to_vec());
    let void = reapi::DirectoryNode { name: "void".to_owned(), digest: Some(digest.to_wire()) };
    let root = reapi::Directory {
        files: vec![file],
        symlinks: vec![link],
        directories: vec![void],
        ..Default::default()
    };
    house.rig.put(&reapi::Tree { root: Some(root), children: vec![empty] }).await
}

async fn made(house: &House, target: &str, link: &str, alone: Option<&str>) {
    let mut made = executed("one", target, &[]);
    made.action = Some(action(target));
    add_directory(&mut made, DIRECTORY, directory(house, link).await);
    if let Some(alone) = alone {
        add_link(&mut made, "bazel-out/k8/bin/latest", alone);
    }
    house.rig.events.publish(made);
    house.rig.executions.flush().await;
}

fn add_link(made: &mut Execution, path: &str, target: &str) {
    let mut result = ActionResult::decode(made.action_result.clone()).unwrap();
    let link = reapi::OutputSymlink {
        path: path.to_owned(),
        target: target.to_owned(),
        node_properties: None,
    };
    result.output_symlinks.push(link);
    made.action_result = result.encode_to_vec().into();
}

/// What is in the layer: paths, and what they are.
async fn layer(house: &House, made: &CatalogEntry) -> BTreeMap<String, String> {
    let opener = house.catalog.opener(made);
    let subject = made.release.subject.clone();
    let read = move || {
        let mut manifest = Vec::new();
        opener.open(&subject.digest).unwrap().read_to_end(&mut manifest).unwrap();
        let Ok(Document::Manifest(manifest)) = Document::read(MANIFEST_TYPE, &manifest) else {
            panic!("it is a manifest")
        };
        let mut archive = tar::Archive::new(opener.open(&manifest.layers[0].digest).unwrap());
        let shown = |mut it: tar::Entry<'_, _>| {
            let path = it.path().unwrap().display().to_string();
            let link = it.link_name().unwrap().map(|it| format!("-> {}", it.display()));
            let mut text = String::new();
            it.read_to_string(&mut text).unwrap();
            (path, link.unwrap_or(text))
        };
        archive.entries().unwrap().map(|it| shown(it.unwrap())).collect()
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

fn told(path: &str) -> ToldFile {
    let digest = content("a");
    ToldFile { path: path.to_owned(), hash: digest.hex(), size: digest.size, link: None }
}

#[tokio::test]
async fn links_are_packed_as_links_and_empty_directories_stay() {
    let house = House::start().await;
    made(&house, "//app", "a", Some("d/void/../a")).await;
    let plain = house.create("plain:1", "one").await.unwrap();
    let expected =
        [("d/", ""), ("d/a", "a"), ("d/b", "-> a"), ("d/void/", ""), ("latest", "-> d/void/../a")];
    let expected = expected.map(|(path, it)| (path.to_owned(), it.to_owned()));
    assert_eq!(layer(&house, &plain).await, BTreeMap::from(expected));

    // Build events name a link as a file, with the content that it leads to; they are of this target, or of a group.
    let files = [format!("{DIRECTORY}/a"), format!("{DIRECTORY}/b")];
    let files: Vec<_> =
        files.iter().map(|it| told(it)).chain([told("bazel-out/k8/bin/latest")]).collect();
    for (name, target) in [("told:1", "//app"), ("group:1", "//:group")] {
        let mut asked = house.asked(name, "one");
        asked.outputs =
            Wanted { target: target.to_owned(), told: Some(files.clone()), ..Wanted::default() };
        let told = house.make(asked).await.unwrap();
        assert_eq!(told.release.subject.digest, plain.release.subject.digest, "{name}");
    }

    // One that Bazel makes itself has no record, and no content.
    let mut of_bazel = told("bazel-out/k8/bin/own");
    (of_bazel.hash, of_bazel.size, of_bazel.link) = (String::new(), 0, Some("d/a".to_owned()));
    let mut asked = house.asked("bazel:1", "one");
    asked.outputs.told = Some(vec![told("bazel-out/k8/bin/d/a"), of_bazel]);
    let made = house.make(asked).await.unwrap();
    assert_eq!(layer(&house, &made).await["own"], "-> d/a");
}

#[tokio::test]
async fn a_link_does_not_stand_for_other_content() {
    let house = House::start().await;
    made(&house, "//app", "a", None).await;
    let other = house.put("other").await;
    let mut file = told("bazel-out/k8/bin/d/b");
    (file.hash, file.size) = (other.hex(), other.size);
    let mut asked = house.asked("a:1", "one");
    asked.outputs.told = Some(vec![told("bazel-out/k8/bin/d/a"), file]);
    let made = house.make(asked).await.unwrap();
    assert_eq!(layer(&house, &made).await["d/b"], "other");
}

#[tokio::test]
async fn a_link_that_leads_out_is_named() {
    let house = House::start().await;
    for (at, target) in
        ["/etc/passwd", "../../x", "../../../../bazel-out/k8/bin/d/a"].iter().enumerate()
    {
        let label = format!("//app:{at}");
        made(&house, &label, target, None).await;
        let mut asked = house.asked("a:1", "one");
        asked.outputs.target = label;
        let refused = house.make(asked).await;
        let Err(CatalogError::Layer(LayerError::Link { path, target: named })) = &refused else {
            panic!("{target}: {refused:?}")
        };
        assert_eq!((path.as_str(), named.as_str()), ("d/b", *target));
    }
}

#[tokio::test]
async fn two_configurations_of_one_file_are_told_apart() {
    let house = House::start().await;
    house.put("a").await;
    let both = [("bazel-out/host/bin/tool", "a"), ("bazel-out/k8/bin/tool", "a")];
    house.rig.events.publish(executed("one", "//app", &both));
    house.rig.executions.flush().await;
    let mut asked = house.asked("a:1", "one");
    let refused = house.make(asked.clone()).await;
    assert!(
        matches!(&refused, Err(CatalogError::Twice(one, other)) if one != other),
        "{refused:?}"
    );
    asked.outputs.paths = vec![both[1].0.to_owned()];
    house.make(asked).await.unwrap();
}
