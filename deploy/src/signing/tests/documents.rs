//! Envelopes, bundles and statements: written, read, changed.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::{
    Attestation, AttestationError, Bundle, BundleError, COSIGN_SIGN_PREDICATE, Envelope,
    EnvelopeError, IN_TOTO_TYPE, MAX_PAYLOAD_BYTES, Scheme, SimpleError, SimpleSigning, Statement,
    StatementError, pae,
};
use super::key;
use crate::resource::{DigestSet, NotADigest, ResourceDescriptor};

const SLSA: &str = "https://slsa.dev/provenance/v1";
const IMAGE: &str = "sha256:a0252675a9a6aee58cdec98c1083cbf4c9831d7751d2e27788db39bbd4e5d462";

fn digest(digit: char) -> DigestSet {
    DigestSet::from([("sha256".to_owned(), digit.to_string().repeat(64))])
}

fn statement() -> Statement {
    let subject = ResourceDescriptor::new("app", "sha256", &"a".repeat(64));
    Statement::new(vec![subject], SLSA, Map::new()).unwrap()
}

/// A signed bundle, as JSON to be changed.
fn bundle() -> (Value, super::super::KeyRing) {
    let (key, ring) = key(Scheme::EcdsaP256);
    let bytes = Attestation::sign(&statement(), &key).unwrap();
    (serde_json::from_slice(&bytes).unwrap(), ring)
}

#[test]
fn lengths_are_part_of_what_is_signed() {
    // The protocol's own example.
    let signed = pae("http://example.com/HelloWorld", b"hello world");
    assert_eq!(signed, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
    assert_eq!(pae("ä", "ö".as_bytes()), "DSSEv1 2 ä 2 ö".as_bytes());
}

#[test]
fn what_was_signed_is_verified_by_both_schemes() {
    for scheme in [Scheme::EcdsaP256, Scheme::Ed25519] {
        let (key, ring) = key(scheme);
        let bytes = Attestation::sign(&statement(), &key).unwrap();
        let verified = Attestation::from_bundle(&bytes, &ring).unwrap();
        let verified = verified.expect(SLSA, &digest('a')).unwrap();
        assert_eq!(verified.statement, statement());
        assert_eq!(verified.key.name, "test");
    }
}

#[test]
fn a_statement_about_something_else_is_refused() {
    let (json, ring) = bundle();
    let read = || Attestation::from_bundle(json.to_string().as_bytes(), &ring).unwrap();
    assert!(matches!(read().expect(SLSA, &digest('b')), Err(AttestationError::Subject)));
    assert!(matches!(
        read().expect(COSIGN_SIGN_PREDICATE, &digest('a')),
        Err(AttestationError::PredicateType { .. })
    ));
    // One of two digests that agree is not enough.
    let both = |other: char| {
        let mut set = digest('a');
        set.insert("sha512".to_owned(), other.to_string().repeat(128));
        set
    };
    let subject = ResourceDescriptor { digest: both('c'), ..ResourceDescriptor::default() };
    assert!(subject.names(&digest('a')) && subject.names(&both('c')));
    assert!(!subject.names(&both('d')));
    assert!(!subject.names(&DigestSet::new()));
}

/// What each change makes of a good bundle.
#[test]
fn every_change_of_a_bundle_is_noticed() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 14] = [
        ("media type", |it| it["mediaType"] = json!("application/json")),
        ("no material", |it| drop(it.as_object_mut().unwrap().remove("verificationMaterial"))),
        ("no key", |it| {
            drop(it["verificationMaterial"].as_object_mut().unwrap().remove("publicKey"))
        }),
        ("certificate", |it| it["verificationMaterial"]["certificate"] = json!({"rawBytes": ""})),
        ("unknown member", |it| it["more"] = json!(1)),
        ("no envelope", |it| drop(it.as_object_mut().unwrap().remove("dsseEnvelope"))),
        ("message", |it| it["messageSignature"] = json!({})),
        ("no signature", |it| it["dsseEnvelope"]["signatures"] = json!([])),
        ("two signatures", |it| {
            let one = it["dsseEnvelope"]["signatures"][0].clone();
            it["dsseEnvelope"]["signatures"] = json!([one, one]);
        }),
        ("payload type", |it| it["dsseEnvelope"]["payloadType"] = json!("text/plain")),
        ("payload", |it| it["dsseEnvelope"]["payload"] = json!("e30=")),
        ("signature", |it| it["dsseEnvelope"]["signatures"][0]["sig"] = json!("AAAA")),
        ("key id", |it| it["dsseEnvelope"]["signatures"][0]["keyid"] = json!("SHA256:other")),
        ("base64", |it| it["dsseEnvelope"]["payload"] = json!("e30")),
    ];
    let (good, ring) = bundle();
    assert!(Attestation::from_bundle(good.to_string().as_bytes(), &ring).is_ok());
    for (name, change) in changes {
        let mut changed = good.clone();
        change(&mut changed);
        let read = Attestation::from_bundle(changed.to_string().as_bytes(), &ring);
        assert!(read.is_err(), "{name}");
    }
    // Hints are not signed, and may be wrong.
    let mut hint = good;
    hint["verificationMaterial"]["publicKey"]["hint"] = json!("nobody");
    assert!(Attestation::from_bundle(hint.to_string().as_bytes(), &ring).is_ok());
}

#[test]
fn a_signature_without_a_name_is_tried_with_every_key() {
    let (mut json, ring) = bundle();
    drop(json["dsseEnvelope"]["signatures"][0].as_object_mut().unwrap().remove("keyid"));
    assert!(Attestation::from_bundle(json.to_string().as_bytes(), &ring).is_ok());
    let (_, other) = key(Scheme::EcdsaP256);
    assert!(matches!(
        Attestation::from_bundle(json.to_string().as_bytes(), &other),
        Err(AttestationError::Envelope(EnvelopeError::Untrusted))
    ));
}

#[test]
fn a_member_that_stands_twice_is_refused_before_anything_is_verified() {
    let (json, ring) = bundle();
    let text = json.to_string();
    let twice = text.replacen('{', r#"{"mediaType":"text/plain","#, 1);
    assert!(matches!(
        Attestation::from_bundle(twice.as_bytes(), &ring),
        Err(AttestationError::Bundle(BundleError::Json(_)))
    ));
}

#[test]
fn a_payload_has_a_largest_size() {
    let (key, _) = key(Scheme::Ed25519);
    let sign = |size| Envelope::sign(IN_TOTO_TYPE, vec![b' '; size], &key);
    assert!(matches!(sign(MAX_PAYLOAD_BYTES + 1), Err(EnvelopeError::TooLarge(_))));
    let largest = sign(MAX_PAYLOAD_BYTES).unwrap().write().unwrap();
    assert!(Envelope::read(&largest).is_ok());
    assert!(Bundle::read(&largest).is_err());
}

#[test]
fn statements_are_strict() {
    let read = |text: &str| Statement::read(text.as_bytes());
    let with = |subject: &str, more: &str| {
        read(&format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":{subject},"predicateType":"p"{more}}}"#
        ))
    };
    let sha = "a".repeat(64);
    let good = format!(r#"[{{"digest":{{"sha256":"{sha}","future":"00ff"}}}}]"#);
    assert!(with(&good, "").is_ok());
    assert!(with(&good, r#","predicate":{}"#).is_ok());
    assert!(with(&good, r#","predicate":[]"#).is_err());
    assert!(with(&good, r#","more":{}"#).is_err());
    assert!(matches!(with("[]", ""), Err(StatementError::Subjects(0))));
    assert!(matches!(with("[{}]", ""), Err(StatementError::Digest(NotADigest::None))));
    for wrong in ["A".repeat(64), "a".repeat(63), String::new()] {
        let subject = format!(r#"[{{"digest":{{"sha256":"{wrong}"}}}}]"#);
        assert!(
            matches!(with(&subject, ""), Err(StatementError::Digest(NotADigest::Malformed { .. }))),
            "{wrong}"
        );
    }
    assert!(matches!(
        read(&format!(r#"{{"_type":"x","subject":{good},"predicateType":"p"}}"#)),
        Err(StatementError::Type(_))
    ));
}

#[test]
fn the_claim_that_cosign_looks_for_names_the_image_alone() {
    let written = Statement::cosign_signature(&digest('a')).unwrap().write().unwrap();
    let sha = "a".repeat(64);
    assert_eq!(
        String::from_utf8(written).unwrap(),
        format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{sha}"}}}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{{}}}}"#
        )
    );
}

#[test]
fn the_older_form_names_one_image() {
    let (key, ring) = key(Scheme::EcdsaP256);
    let annotations = BTreeMap::from([("build".to_owned(), "7".to_owned())]);
    let signed = SimpleSigning::sign("registry.example/app", IMAGE, &annotations, &key).unwrap();
    let (_, optional) = signed.verify(IMAGE, &ring).unwrap();
    assert_eq!(optional["build"], "7");
    let other = format!("sha256:{}", "b".repeat(64));
    assert!(matches!(signed.verify(&other, &ring), Err(SimpleError::Image(_))));
    let changed = SimpleSigning {
        payload: String::from_utf8(signed.payload.clone()).unwrap().replace("app", "apq").into(),
        ..signed.clone()
    };
    assert!(matches!(changed.verify(IMAGE, &ring), Err(SimpleError::Untrusted)));
    let garbled = SimpleSigning { signature: "?".to_owned(), ..signed };
    assert!(matches!(garbled.verify(IMAGE, &ring), Err(SimpleError::Encoding)));
    let no_digest = SimpleSigning::sign("app", "latest", &annotations, &key);
    assert!(matches!(no_digest, Err(SimpleError::Digest(_))));
}

proptest! {
    #[test]
    fn no_other_pair_is_signed_as_the_same_bytes(
        one in ("[ -~]{0,20}", prop::collection::vec(any::<u8>(), 0..20)),
        two in ("[ -~]{0,20}", prop::collection::vec(any::<u8>(), 0..20)),
    ) {
        prop_assert_eq!(pae(&one.0, &one.1) == pae(&two.0, &two.1), one == two);
    }

    #[test]
    fn one_changed_byte_of_a_bundle_is_no_signature_of_something_else(at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let (json, ring) = bundle();
        let mut bytes = json.to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = with;
        if let Ok(read) = Attestation::from_bundle(&bytes, &ring) {
            prop_assert_eq!(read.statement, statement());
        }
    }
}
