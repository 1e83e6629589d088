//! Manifests that exist, manifests that do not, and bodies that are no manifest.

use kiln_deploy::oci::{Algorithm, ContentDigest, Descriptor, INDEX_TYPE, MANIFEST_TYPE, Manifest};

use crate::registry::client::{REPOSITORY, Registry, bytes};

#[test]
fn missing_manifest_by_digest() {
    missing(&ContentDigest::of(b"nobody pushed this").to_string());
}

#[test]
fn missing_manifest_by_tag() {
    missing("latest");
}

fn missing(reference: &str) {
    let registry = Registry::start();
    let path = format!("/v2/{REPOSITORY}/manifests/{reference}");
    registry.get(&path).refused(404, "MANIFEST_UNKNOWN");
    registry.send("HEAD", &path, &[], &[]).expect(404);
}

#[test]
fn empty_tag_list() {
    let registry = Registry::start();
    registry.get("/v2/conformance/none/tags/list").refused(404, "NAME_UNKNOWN");
}

#[test]
fn invalid_digest_format() {
    let registry = Registry::start();
    let path = format!("/v2/{REPOSITORY}/manifests/sha256:baddigeststring");
    let headers = [("content-type", MANIFEST_TYPE)];
    registry.send("PUT", &path, &headers, b"{}").refused(400, "DIGEST_INVALID");
    registry.get(&path).refused(404, "MANIFEST_UNKNOWN");
}

#[test]
fn bad_digest_image() {
    let registry = Registry::start();
    let data = registry.image(REPOSITORY, &bytes(1, 500));
    let digest = ContentDigest::of(&data);
    let spaced = [&data[..], b"  "].concat();
    let answer = registry.put_manifest(REPOSITORY, &digest.to_string(), MANIFEST_TYPE, &spaced);
    answer.refused(400, "DIGEST_INVALID");
    registry.get(&format!("/v2/{REPOSITORY}/manifests/{digest}")).expect(404);
}

#[test]
fn a_manifest_that_names_a_missing_blob_is_refused() {
    let registry = Registry::start();
    let data = registry.image("conformance/two", &bytes(2, 500));
    let answer = registry.put_manifest(REPOSITORY, "v1", MANIFEST_TYPE, &data);
    answer.refused(400, "MANIFEST_BLOB_UNKNOWN");
    let gone = Descriptor::of(MANIFEST_TYPE, b"no manifest");
    let index = kiln_deploy::oci::Index::new(vec![gone]).write().unwrap();
    let answer = registry.put_manifest(REPOSITORY, "v1", INDEX_TYPE, &index);
    answer.refused(400, "MANIFEST_BLOB_UNKNOWN");
    registry.get(&format!("/v2/{REPOSITORY}/manifests/v1")).expect(404);
}

#[test]
fn a_manifest_that_lies_about_a_size_is_refused() {
    let registry = Registry::start();
    let layer = bytes(3, 500);
    let (config, layer_digest) =
        (registry.push(REPOSITORY, b"{}"), registry.push(REPOSITORY, &layer));
    let layers = vec![Descriptor::new("x/y", layer_digest, 501)];
    let manifest = Manifest::image(Descriptor::new("x/z", config, 2), layers);
    let answer = registry.put_manifest(REPOSITORY, "v1", MANIFEST_TYPE, &manifest.write().unwrap());
    answer.refused(400, "MANIFEST_INVALID");
}

#[test]
fn what_is_no_manifest_is_refused() {
    let registry = Registry::start();
    for (kind, data) in [
        (MANIFEST_TYPE, &b"{"[..]),
        (MANIFEST_TYPE, br#"{"schemaVersion":2,"schemaVersion":2}"#),
        (INDEX_TYPE, br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#),
        (
            MANIFEST_TYPE,
            br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#,
        ),
        ("text/html", b"<b>"),
        ("", b"{}"),
    ] {
        registry.put_manifest(REPOSITORY, "v1", kind, data).refused(400, "MANIFEST_INVALID");
    }
    let answer = registry.put_manifest(REPOSITORY, "-no-tag", MANIFEST_TYPE, b"{}");
    answer.refused(400, "DIGEST_INVALID");
}

#[test]
fn a_client_gets_only_what_it_accepts() {
    let registry = Registry::start();
    registry.push_image(REPOSITORY, "v1", &bytes(4, 100));
    let path = format!("/v2/{REPOSITORY}/manifests/v1");
    for accepted in [MANIFEST_TYPE, "*/*", "application/*"] {
        registry.send("GET", &path, &[("accept", accepted)], &[]).expect(200);
    }
    registry.send("GET", &path, &[("accept", INDEX_TYPE)], &[]).refused(404, "MANIFEST_UNKNOWN");
}

#[test]
fn what_a_client_has_already_is_not_sent_again() {
    let registry = Registry::start();
    let layer = bytes(9, 100);
    let blob = ContentDigest::of(&layer);
    let first = registry.push_image(REPOSITORY, "v1", &layer);
    let manifest = format!("/v2/{REPOSITORY}/manifests/v1");
    let ask = |path: &str, tags: &str| registry.send("GET", path, &[("if-none-match", tags)], &[]);
    for (path, digest) in [(&manifest, &first), (&format!("/v2/{REPOSITORY}/blobs/{blob}"), &blob)]
    {
        let tag = format!("\"{digest}\"");
        for tags in [tag.clone(), "*".to_owned(), format!("\"other\", W/{tag}")] {
            let answer = ask(path, &tags).expect(304);
            assert!(answer.body.is_empty());
            assert_eq!(answer.header("etag"), Some(tag.as_str()));
        }
        ask(path, "\"other\"").expect(200);
    }
    // The tag moves, and the client does not have what it names now.
    registry.push_image(REPOSITORY, "v1", &bytes(10, 100));
    ask(&manifest, &format!("\"{first}\"")).expect(200);
    let nothing = ContentDigest::of(b"nobody has this");
    ask(&format!("/v2/{REPOSITORY}/blobs/{nothing}"), "*").refused(404, "BLOB_UNKNOWN");
}

#[test]
fn tag_param() {
    let registry = Registry::start();
    let data = registry.image(REPOSITORY, &bytes(5, 100));
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let name = algorithm.name();
        let reference = format!("{}?tag=a-{name}&tag=b-{name}", algorithm.digest(&data));
        let answer =
            registry.put_manifest(REPOSITORY, &reference, MANIFEST_TYPE, &data).expect(201);
        let tags = answer.header("oci-tag").expect("the tags").to_owned();
        for tag in [format!("a-{name}"), format!("b-{name}")] {
            assert!(tags.split(',').any(|it| it.trim() == tag), "{tags}");
            registry.has_manifest(REPOSITORY, &tag, MANIFEST_TYPE, &data);
        }
        assert!(registry.get(&answer.location()).expect(200).body == data);
    }
}

#[test]
fn a_tag_moves_and_what_it_named_stays_by_its_digest() {
    let registry = Registry::start();
    let first = registry.push_image(REPOSITORY, "v1", &bytes(6, 100));
    let second = registry.push_image(REPOSITORY, "v1", &bytes(7, 100));
    let at = |reference: &str| {
        let answer = registry.get(&format!("/v2/{REPOSITORY}/manifests/{reference}")).expect(200);
        answer.header("docker-content-digest").unwrap().to_owned()
    };
    assert_eq!(at("v1"), second.to_string());
    assert_eq!(at(&first.to_string()), first.to_string());
}

#[test]
fn tags_come_in_pages() {
    let registry = Registry::start();
    let data = registry.image(REPOSITORY, &bytes(8, 100));
    for tag in ["v2", "v10", "latest", "V1", "v1"] {
        registry.put_manifest(REPOSITORY, tag, MANIFEST_TYPE, &data).expect(201);
    }
    let path = format!("/v2/{REPOSITORY}/tags/list");
    let list = registry.get(&path).expect(200).json();
    assert_eq!(list["name"], REPOSITORY);
    assert_eq!(list["tags"], serde_json::json!(["V1", "latest", "v1", "v10", "v2"]));
    let (mut all, mut next) = (Vec::new(), Some(format!("{path}?n=2")));
    while let Some(path) = next {
        let answer = registry.get(&path).expect(200);
        let tags = answer.json()["tags"].as_array().unwrap().clone();
        assert!(tags.len() <= 2);
        all.extend(tags);
        next = answer.header("link").map(|link| {
            let (path, rest) = link[1..].split_once('>').unwrap();
            assert_eq!(rest, "; rel=\"next\"");
            path.to_owned()
        });
    }
    assert_eq!(serde_json::json!(all), list["tags"]);
    let behind = registry.get(&format!("{path}?last=v10")).expect(200).json();
    assert_eq!(behind["tags"], serde_json::json!(["v2"]));
    let none = registry.get(&format!("{path}?n=0")).expect(200).json();
    assert_eq!(none["tags"], serde_json::json!([]));
}
