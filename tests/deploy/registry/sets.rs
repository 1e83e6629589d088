//! The data sets of the conformance suite: each is pushed, listed, pulled and deleted.

use kiln_deploy::oci::{Algorithm, ContentDigest, INDEX_TYPE, MANIFEST_TYPE};
use serde_json::{Value, json};

use crate::registry::client::{REPOSITORY, Registry, bytes};

const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const COMPRESSED_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A data set, with what has been pushed of it so far.
struct Set<'a> {
    registry: &'a Registry,
    algorithm: Algorithm,
    blobs: Vec<(ContentDigest, Vec<u8>)>,
    manifests: Vec<(ContentDigest, &'static str, Vec<u8>)>,
    tags: Vec<(String, usize)>,
}

impl<'a> Set<'a> {
    fn new(registry: &'a Registry) -> Self {
        let (blobs, manifests, tags) = (Vec::new(), Vec::new(), Vec::new());
        Self { registry, algorithm: Algorithm::Sha256, blobs, manifests, tags }
    }

    fn blob(&mut self, kind: &str, data: &[u8]) -> Value {
        let digest = self.registry.push_as(self.algorithm, REPOSITORY, data);
        self.blobs.push((digest.clone(), data.to_owned()));
        json!({ "mediaType": kind, "digest": digest, "size": data.len() })
    }

    /// Pushes a manifest by its digest, pulls it again, and returns its descriptor.
    fn manifest(&mut self, kind: &'static str, document: &Value) -> Value {
        let data = serde_json::to_vec(document).unwrap();
        let digest = self.algorithm.digest(&data);
        let pushed = self.registry.put_manifest(REPOSITORY, &digest.to_string(), kind, &data);
        let pushed = pushed.expect(201);
        let pulled = self.registry.get(&pushed.location()).expect(200);
        assert!(pulled.body == data);
        assert_eq!(pulled.header("content-type"), Some(kind));
        if let Some(subject) = document["subject"]["digest"].as_str() {
            assert_eq!(pushed.header("oci-subject"), Some(subject));
        }
        let descriptor = json!({ "mediaType": kind, "digest": digest, "size": data.len() });
        self.manifests.push((digest, kind, data));
        descriptor
    }

    fn image(&mut self, seed: u64) -> Value {
        let document = self.image_document(seed);
        self.manifest(MANIFEST_TYPE, &document)
    }

    fn image_document(&mut self, seed: u64) -> Value {
        self.image_of(seed, LAYER)
    }

    /// The manifest of an image whose layers are said to be of this type.
    fn image_of(&mut self, seed: u64, layer: &str) -> Value {
        let config = self.blob(CONFIG, format!("{{\"seed\":{seed}}}").as_bytes());
        let layers =
            [self.blob(layer, &bytes(seed, 700)), self.blob(layer, &bytes(seed + 100, 900))];
        json!({ "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers })
    }

    /// Gives the tag to the manifest that was pushed last.
    fn tag(&mut self, tag: &str) {
        let place = self.manifests.len() - 1;
        let (_, kind, data) = &self.manifests[place];
        let pushed = self.registry.put_manifest(REPOSITORY, tag, kind, data).expect(201);
        let pulled = self.registry.get(&pushed.location()).expect(200);
        assert!(pulled.body == *data);
        assert_eq!(pulled.header("content-type"), Some(*kind));
        self.tags.push((tag.to_owned(), place));
    }

    /// Lists and pulls the whole set, and deletes it: tags first, then manifests, then blobs. After each deletion the
    /// thing has to be gone at once.
    fn finish(self) {
        let registry = self.registry;
        self.listed();
        for (tag, place) in &self.tags {
            let (_, kind, data) = &self.manifests[*place];
            registry.has_manifest(REPOSITORY, tag, kind, data);
        }
        for (digest, kind, data) in &self.manifests {
            registry.has_manifest(REPOSITORY, &digest.to_string(), kind, data);
        }
        for (digest, data) in &self.blobs {
            registry.has_blob(REPOSITORY, digest, data);
        }
        for (tag, _) in &self.tags {
            gone(registry, &format!("manifests/{tag}"));
        }
        for (digest, ..) in self.manifests.iter().rev() {
            gone(registry, &format!("manifests/{digest}"));
        }
        let mut digests: Vec<_> = self.blobs.iter().map(|(digest, _)| digest).collect();
        digests.sort();
        digests.dedup();
        for digest in digests {
            gone(registry, &format!("blobs/{digest}"));
        }
    }

    fn listed(&self) {
        let mut expected: Vec<_> = self.tags.iter().map(|(tag, _)| tag.as_str()).collect();
        expected.sort_unstable();
        if expected.is_empty() {
            return;
        }
        let path = format!("/v2/{REPOSITORY}/tags/list");
        let list = |path: &str| {
            let list = self.registry.get(path).expect(200).json();
            let tags = list["tags"].as_array().unwrap().iter();
            tags.map(|it| it.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(list(&path), expected);
        let middle = expected.len() / 2;
        let behind = list(&format!("{path}?last={}", expected[middle]));
        assert_eq!(behind, expected[middle + 1..]);
    }

    /// Asserts that the registry lists exactly the expected manifests as referrers of `subject`, in the list of all
    /// and in that of their type.
    fn refer(&self, subject: &Value, expected: &[(&Value, &str)]) {
        let digest = subject["digest"].as_str().unwrap();
        let path = format!("/v2/{REPOSITORY}/referrers/{digest}");
        let index = self.registry.get(&path).expect(200);
        assert_eq!(index.header("content-type"), Some(INDEX_TYPE));
        let index = index.json();
        assert_eq!((&index["mediaType"], &index["schemaVersion"]), (&json!(INDEX_TYPE), &json!(2)));
        let listed = index["manifests"].as_array().unwrap();
        assert_eq!(listed.len(), expected.len(), "{index}");
        for (descriptor, kind) in expected {
            let found = listed.iter().find(|it| it["digest"] == descriptor["digest"]).unwrap();
            assert_eq!(found["size"], descriptor["size"]);
            assert_eq!(found["mediaType"], descriptor["mediaType"]);
            assert_eq!(found["artifactType"], *kind);
            let place = self.manifests.iter().find(|it| it.0.to_string() == descriptor["digest"]);
            let document: Value = serde_json::from_slice(&place.unwrap().2).unwrap();
            assert_eq!(found["annotations"], document["annotations"]);
            let escaped = kind.replace('/', "%2F").replace('+', "%2B");
            let answer = self.registry.get(&format!("{path}?artifactType={escaped}")).expect(200);
            assert_eq!(answer.header("oci-filters-applied"), Some("artifactType"));
            let filtered = answer.json();
            let filtered = filtered["manifests"].as_array().unwrap();
            assert!(filtered.iter().all(|it| it["artifactType"] == *kind));
            assert!(filtered.iter().any(|it| it["digest"] == descriptor["digest"]));
        }
    }
}

fn gone(registry: &Registry, rest: &str) {
    let path = format!("/v2/{REPOSITORY}/{rest}");
    registry.send("DELETE", &path, &[], &[]).expect(202);
    registry.send("HEAD", &path, &[], &[]).expect(404);
}

fn index(manifests: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests })
}

fn artifact(set: &mut Set, kind: &str, layers: &[Value]) -> Value {
    let config = set.blob(EMPTY, b"{}");
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "artifactType": kind,
        "config": config, "layers": layers,
    })
}

#[test]
fn set_image() {
    let registry = Registry::start();
    let mut set = Set::new(&registry);
    for (seed, tag) in ["one", "two", "three"].into_iter().enumerate() {
        let document = set.image_of(seed as u64, COMPRESSED_LAYER);
        set.manifest(MANIFEST_TYPE, &document);
        set.tag(tag);
    }
    set.finish();
}

#[test]
fn set_image_uncompressed() {
    let registry = Registry::start();
    let mut set = Set::new(&registry);
    set.image(1);
    set.tag("uncompressed");
    set.finish();
}

#[test]
fn set_large_manifest() {
    let registry = Registry::start();
    let mut set = Set::new(&registry);
    let mut document = set.image_document(1);
    for number in 0..390 {
        document["annotations"][format!("{number}")] = json!("x".repeat(10_000));
    }
    set.manifest(MANIFEST_TYPE, &document);
    set.tag("large");
    set.finish();
}

#[test]
fn set_index() {
    let registry = Registry::start();
    let mut set = Set::new(&registry);
    let images = [set.image(1), set.image(2)];
    set.manifest(INDEX_TYPE, &index(&images));
    set.tag("index");
    set.finish();
}

#[test]
fn set_nested_index() {
    let registry = Registry::start();
    let mut set = Set::new(&registry);
    let images = [set.image(1), set.image(2)];
    let inner = set.manifest(INDEX_TYPE, &index(&images));
    let third = set.image(3);
    set.manifest(INDEX_TYPE, &index(&[inner, third]));
    set.tag("nested");
    set.finish();
}

#[test]
fn set_empty_index() {
    let registry = Registry::start();
    let mut set = Set::new(&registry);
    set.manifest(INDEX_TYPE, &index(&[]));
    set.tag("empty");
    set.finish();
}

#[test]
fn set_artifact() {
    let registry = Registry::start();
    let mut set = Set::new(&registry);
    let layers = [set.blob("text/plain", b"hello")];
    let document = artifact(&mut set, "application/vnd.example.a", &layers);
    set.manifest(MANIFEST_TYPE, &document);
    set.tag("artifact");
    set.finish();
}

#[test]
fn set_artifact_index() {
    let registry = Registry::start();
    let mut set = Set::new(&registry);
    let layers = [set.blob("text/plain", b"hello")];
    let document = artifact(&mut set, "application/vnd.example.a", &layers);
    let first = set.manifest(MANIFEST_TYPE, &document);
    let mut list = index(&[first]);
    list["artifactType"] = json!("application/vnd.example.i");
    set.manifest(INDEX_TYPE, &list);
    set.tag("artifact-index");
    set.finish();
}

#[test]
fn set_artifact_without_layers() {
    let registry = Registry::start();
    let mut set = Set::new(&registry);
    let layers = [set.blob(EMPTY, b"{}")];
    let document = artifact(&mut set, "application/vnd.example.n", &layers);
    set.manifest(MANIFEST_TYPE, &document);
    set.tag("without-layers");
    set.finish();
}

#[test]
fn set_artifacts_with_subject() {
    let registry = Registry::start();
    let mut set = Set::new(&registry);
    let subject = set.image(1);
    set.tag("subject");
    let mut plain = set.image_document(2);
    plain["subject"] = subject.clone();
    let plain = set.manifest(MANIFEST_TYPE, &plain);
    let mut artifacts = Vec::new();
    for kind in ["application/vnd.example.a+json", "application/vnd.example.b"] {
        let mut document = artifact(&mut set, kind, &[]);
        document["subject"] = subject.clone();
        document["annotations"] = json!({ "org.example.kind": kind, "other": "ä \"quoted\"" });
        artifacts.push((set.manifest(MANIFEST_TYPE, &document), kind));
    }
    let expected: Vec<_> = std::iter::once((&plain, CONFIG))
        .chain(artifacts.iter().map(|(descriptor, kind)| (descriptor, *kind)))
        .collect();
    set.refer(&subject, &expected);
    set.finish();
}

#[test]
fn set_index_with_subject() {
    let registry = Registry::start();
    let mut set = Set::new(&registry);
    let (subject, image) = (set.image(1), set.image(2));
    let mut document = index(&[image]);
    document["subject"] = subject.clone();
    document["artifactType"] = json!("application/vnd.example.i");
    document["annotations"] = json!({ "a": "b" });
    let list = set.manifest(INDEX_TYPE, &document);
    set.refer(&subject, &[(&list, "application/vnd.example.i")]);
    set.finish();
}

#[test]
fn set_missing_subject() {
    let registry = Registry::start();
    let mut set = Set::new(&registry);
    let digest = ContentDigest::of(b"nobody has it");
    let subject = json!({ "mediaType": MANIFEST_TYPE, "digest": digest, "size": 13 });
    let mut document = artifact(&mut set, "application/vnd.example.a", &[]);
    document["subject"] = subject.clone();
    document["annotations"] = json!({ "a": "b" });
    let artifact = set.manifest(MANIFEST_TYPE, &document);
    set.refer(&subject, &[(&artifact, "application/vnd.example.a")]);
    set.finish();
}

#[test]
fn set_data_field() {
    let registry = Registry::start();
    let mut set = Set::new(&registry);
    let mut document = artifact(&mut set, "application/vnd.example.d", &[]);
    document["config"]["data"] = json!("e30=");
    set.manifest(MANIFEST_TYPE, &document);
    set.tag("data-field");
    set.finish();
}

#[test]
fn set_custom_fields() {
    let registry = Registry::start();
    let mut set = Set::new(&registry);
    let mut document = set.image_document(1);
    document["org.example"] = json!({ "unknown": [1, null] });
    document["config"]["custom"] = json!("kept");
    let image = set.manifest(MANIFEST_TYPE, &document);
    let mut list = index(&[image]);
    list["custom"] = json!({ "unknown": true });
    set.manifest(INDEX_TYPE, &list);
    set.tag("custom-fields");
    set.finish();
}

#[test]
fn set_no_layers() {
    let registry = Registry::start();
    let mut set = Set::new(&registry);
    let mut document = set.image_document(2);
    document["layers"] = json!([]);
    set.manifest(MANIFEST_TYPE, &document);
    set.tag("no-layers");
    set.finish();
}

#[test]
fn set_non_distributable_layers() {
    let registry = Registry::start();
    let mut set = Set::new(&registry);
    let mut document = set.image_document(1);
    let foreign = |seed| {
        json!({
            "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar",
            "digest": ContentDigest::of(&bytes(seed, 10)), "size": 123,
            "urls": ["https://store.example/layer"],
        })
    };
    document["layers"] = json!([foreign(7), foreign(8)]);
    set.manifest(MANIFEST_TYPE, &document);
    set.tag("foreign");
    set.finish();
}

#[test]
fn set_sha512() {
    let registry = Registry::start();
    let mut set = Set::new(&registry);
    set.algorithm = Algorithm::Sha512;
    let images = [set.image(1), set.image(2)];
    set.manifest(INDEX_TYPE, &index(&images));
    set.finish();
}
