//! The registry lists the manifests that refer to another manifest.

use kiln_deploy::oci::{ContentDigest, Descriptor, INDEX_TYPE, Index, MANIFEST_TYPE, Manifest};

use crate::registry::client::{REPOSITORY, Registry, bytes};

fn artifact(registry: &Registry, subject: &ContentDigest, number: usize, note: &str) -> Vec<u8> {
    registry.push(REPOSITORY, b"{}");
    let mut manifest = Manifest::artifact("application/vnd.example.sig", Vec::new());
    manifest.subject = Some(Descriptor::new(MANIFEST_TYPE, subject.clone(), 1));
    manifest.annotations.insert("number".to_owned(), number.to_string());
    manifest.annotations.insert("note".to_owned(), note.to_owned());
    manifest.write().unwrap()
}

#[test]
fn empty_referrers() {
    let registry = Registry::start();
    let digest = ContentDigest::of(b"nobody has this");
    let answer = registry.get(&format!("/v2/{REPOSITORY}/referrers/{digest}")).expect(200);
    assert_eq!(answer.header("content-type"), Some(INDEX_TYPE));
    let index = answer.json();
    assert_eq!(index["mediaType"], INDEX_TYPE);
    assert_eq!(index["schemaVersion"], 2);
    assert_eq!(index["manifests"], serde_json::json!([]));
    let wrong = format!("/v2/{REPOSITORY}/referrers/sha256:nothing");
    registry.get(&wrong).refused(400, "DIGEST_INVALID");
}

#[test]
fn referrers_that_are_written_at_once_all_stay() {
    let registry = Registry::start();
    let subject = registry.push_image(REPOSITORY, "v1", &bytes(1, 100));
    std::thread::scope(|scope| {
        for number in 0..8 {
            let data = artifact(&registry, &subject, number, "");
            let registry = &registry;
            scope.spawn(move || {
                let reference = ContentDigest::of(&data).to_string();
                registry.put_manifest(REPOSITORY, &reference, MANIFEST_TYPE, &data).expect(201);
            });
        }
    });
    let index = registry.get(&format!("/v2/{REPOSITORY}/referrers/{subject}")).expect(200).json();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 8);
}

/// The registry lists referrers with large annotations in pages that a client can hold in memory, and loses none.
#[test]
fn referrers_come_in_pages() {
    let registry = Registry::start();
    let subject = ContentDigest::of(b"subject");
    for number in 0..6 {
        // The annotation of this one is larger than a record may be.
        let size = if number == 3 { 2 << 20 } else { 200 << 10 };
        let data = artifact(&registry, &subject, number, &"x".repeat(size));
        let reference = ContentDigest::of(&data).to_string();
        registry.put_manifest(REPOSITORY, &reference, MANIFEST_TYPE, &data).expect(201);
    }
    let (mut numbers, mut pages) = (Vec::new(), 0);
    let mut next = Some(format!("/v2/{REPOSITORY}/referrers/{subject}"));
    while let Some(path) = next {
        let answer = registry.get(&path).expect(200);
        assert!(answer.body.len() < 4 << 20, "{} bytes", answer.body.len());
        for entry in answer.json()["manifests"].as_array().unwrap() {
            assert!(entry["annotations"]["note"].as_str().unwrap().len() >= 200 << 10);
            numbers.push(entry["annotations"]["number"].as_str().unwrap().to_owned());
        }
        pages += 1;
        next = answer.header("link").map(|link| link[1..].split_once('>').unwrap().0.to_owned());
    }
    numbers.sort();
    assert_eq!(numbers, ["0", "1", "2", "3", "4", "5"]);
    assert!(pages > 1);
}

/// Anybody who may push can write the tag under which older clients keep referrers. It makes nothing a referrer that does
/// not name the subject itself.
#[test]
fn a_fallback_tag_makes_no_referrer_of_a_strangers_manifest() {
    let registry = Registry::start();
    let subject = registry.push_image(REPOSITORY, "v1", &bytes(1, 100));
    let other = registry.push_image(REPOSITORY, "other", &bytes(2, 100));
    let about_another = artifact(&registry, &other, 1, "");
    let about_nothing = registry.image(REPOSITORY, &bytes(3, 100));
    let own = artifact(&registry, &subject, 2, "");
    let mut listed = Vec::new();
    for data in [&about_another, &about_nothing, &own] {
        let descriptor = Descriptor::of(MANIFEST_TYPE, data);
        let reference = descriptor.digest.to_string();
        registry.put_manifest(REPOSITORY, &reference, MANIFEST_TYPE, data).expect(201);
        listed.push(descriptor);
    }
    let list = Index::new(listed).write().unwrap();
    let tag = subject.to_string().replace(':', "-");
    registry.put_manifest(REPOSITORY, &tag, INDEX_TYPE, &list).expect(201);
    registry.has_manifest(REPOSITORY, &tag, INDEX_TYPE, &list);
    let index = registry.get(&format!("/v2/{REPOSITORY}/referrers/{subject}")).expect(200).json();
    let found: Vec<_> =
        index["manifests"].as_array().unwrap().iter().map(|it| &it["digest"]).collect();
    assert_eq!(found, [ContentDigest::of(&own).to_string().as_str()]);
    // Whoever deletes the tag deletes no referrer.
    let path = format!("/v2/{REPOSITORY}/manifests/{tag}");
    registry.send("DELETE", &path, &[], &[]).expect(202);
    let after = registry.get(&format!("/v2/{REPOSITORY}/referrers/{subject}")).expect(200).json();
    assert_eq!(after, index);
}
