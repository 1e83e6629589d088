//! Manifests and indexes: what is taken, what is refused, and what is written.

use serde_json::{Value, json};

use super::super::{
    Descriptor, Document, DocumentError, EMPTY_CONFIG, INDEX_TYPE, Index, LAYER_TYPE,
    MANIFEST_TYPE, MAX_DOCUMENT_BYTES, Manifest,
};

fn manifest() -> Value {
    let config = Descriptor::of("c/t", EMPTY_CONFIG);
    let layers = vec![Descriptor::of(LAYER_TYPE, b"layer").with("k", "v")];
    serde_json::from_slice(&Manifest::image(config, layers).write().unwrap()).unwrap()
}

fn read(media_type: &str, value: &Value) -> Result<Document, DocumentError> {
    Document::read(media_type, value.to_string().as_bytes())
}

#[test]
fn the_same_manifest_is_written_the_same() {
    let make = || {
        let mut manifest = Manifest::artifact("a/b", Vec::new());
        for name in ["z", "a", "m"] {
            manifest.annotations.insert(name.to_owned(), name.to_owned());
        }
        manifest.write().unwrap()
    };
    assert_eq!(make(), make());
    let text = String::from_utf8(make()).unwrap();
    assert!(text.starts_with(r#"{"schemaVersion":2,"mediaType":"#), "{text}");
    assert!(text.ends_with(r#""annotations":{"a":"a","m":"m","z":"z"}}"#), "{text}");
}

#[test]
fn members_that_nobody_knows_are_let_through() {
    let mut value = manifest();
    value["org.example.more"] = json!({"a": [1, 2]});
    value["config"]["more"] = json!("x");
    assert!(read(MANIFEST_TYPE, &value).is_ok());
}

#[test]
fn a_document_is_one_kind_whatever_it_came_as() {
    let mut both = manifest();
    both["manifests"] = json!([]);
    for media_type in [MANIFEST_TYPE, INDEX_TYPE] {
        assert!(matches!(read(media_type, &both), Err(DocumentError::Ambiguous)));
    }
    let mut silent = manifest();
    drop(silent.as_object_mut().unwrap().remove("mediaType"));
    assert!(read(MANIFEST_TYPE, &silent).is_ok());
    assert!(matches!(read(INDEX_TYPE, &silent), Err(DocumentError::Json(_))));
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    assert!(matches!(read(docker, &manifest()), Err(DocumentError::OtherType { .. })));
    assert!(read(docker, &silent).is_ok());
    assert!(matches!(read("text/plain", &manifest()), Err(DocumentError::MediaType(_))));
}

#[test]
fn what_a_manifest_says_must_be_possible() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 6] = [
        ("version", |it| it["schemaVersion"] = json!(1)),
        ("no config", |it| drop(it.as_object_mut().unwrap().remove("config"))),
        ("digest", |it| it["config"]["digest"] = json!("sha256:abc")),
        ("size", |it| it["config"]["size"] = json!(-1)),
        ("annotation", |it| it["annotations"] = json!({"a": 1})),
        ("data", |it| it["config"]["data"] = json!("e30x")),
    ];
    for (name, change) in changes {
        let mut changed = manifest();
        change(&mut changed);
        assert!(read(MANIFEST_TYPE, &changed).is_err(), "{name}");
    }
    let twice = manifest().to_string().replacen('{', r#"{"schemaVersion":2,"#, 1);
    assert!(Document::read(MANIFEST_TYPE, twice.as_bytes()).is_err());
}

#[test]
fn bytes_in_a_descriptor_are_used_if_they_are_the_right_ones() {
    let mut value = manifest();
    value["config"]["data"] = json!("e30=");
    let Document::Manifest(read) = read(MANIFEST_TYPE, &value).unwrap() else { panic!() };
    assert_eq!(read.config.inline(), Some(EMPTY_CONFIG));
}

#[test]
fn four_mebibytes_are_taken_and_one_byte_more_is_not() {
    let mut value = manifest();
    value["annotations"] = json!({"a": ""});
    let length = MAX_DOCUMENT_BYTES - value.to_string().len();
    value["annotations"]["a"] = json!("x".repeat(length));
    assert_eq!(value.to_string().len(), MAX_DOCUMENT_BYTES);
    assert!(read(MANIFEST_TYPE, &value).is_ok());
    value["annotations"]["a"] = json!("x".repeat(length + 1));
    assert!(matches!(read(MANIFEST_TYPE, &value), Err(DocumentError::Json(_))));
}

#[test]
fn an_index_names_manifests_and_may_be_empty() {
    let empty = Index::new(Vec::new()).write().unwrap();
    assert!(Document::read(INDEX_TYPE, &empty).unwrap().names().next().is_none());
    let one = Index::new(vec![Descriptor::of(MANIFEST_TYPE, b"{}")]).write().unwrap();
    assert_eq!(Document::read(INDEX_TYPE, &one).unwrap().names().count(), 1);
}
