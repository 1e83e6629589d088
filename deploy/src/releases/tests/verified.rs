//! Each way to break a release, and the link at which it shows.

use serde_json::{Value, json};

use super::super::{Checked, Expected, Failure, VerifyError, verify};
use super::made::{COMMIT, Made, SIGNED};
use crate::oci::{Descriptor, DirectoryLayout, LAYER_TYPE, LayoutError};
use crate::provenance::{SLSA_PREDICATE, SignedBy};
use crate::signing::{KeyRefused, KeyRing, Scheme, Signer as _, SigningKey, TrustedKey};
use crate::timestamp::Timestamp;

fn key() -> (SigningKey, KeyRing) {
    let (key, _) = SigningKey::generate(Scheme::EcdsaP256).unwrap();
    let ring = KeyRing::single("release", key.public_key().clone());
    (key, ring)
}

fn now() -> Timestamp {
    Timestamp::from_unix(SIGNED + 1000)
}

fn check(layout: &DirectoryLayout, keys: &KeyRing) -> Result<Vec<Checked>, Failure> {
    verify(layout, keys, &Expected::default(), now())
}

fn broken(made: &Made, subject: &Descriptor, keys: &KeyRing) -> VerifyError {
    let (_directory, layout) = made.export(subject);
    check(&layout, keys).unwrap_err().broken
}

#[test]
fn a_whole_release_is_verified_and_every_step_is_told() {
    let (key, keys) = key();
    let (made, subject) = Made::complete(&key);
    let (_directory, layout) = made.export(&subject);
    let checked = check(&layout, &keys).unwrap();
    let steps: Vec<_> = checked.iter().map(|it| it.what).collect();
    let signature = "signature";
    let expected =
        ["content", "release", "layers", signature, signature, signature, "provenance", "closure"];
    assert_eq!(steps, expected);
    assert!(checked[6].detail.contains("SLSA build level 3"), "{}", checked[6].detail);
}

#[test]
fn one_release_is_exported_to_the_same_bytes() {
    let (key, _) = key();
    let (made, subject) = Made::complete(&key);
    let files = |directory: &std::path::Path| -> Vec<(String, Vec<u8>)> {
        let mut open = vec![directory.to_owned()];
        let mut files = Vec::new();
        while let Some(next) = open.pop() {
            for entry in std::fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => open.push(path),
                    false => {
                        let name = path.strip_prefix(directory).unwrap().display().to_string();
                        files.push((name, std::fs::read(&path).unwrap()));
                    }
                }
            }
        }
        files.sort();
        files
    };
    let (one, two) = (made.export(&subject), made.export(&subject));
    assert_eq!(files(one.0.path()), files(two.0.path()));
}

/// No file of an export can be changed, cut or taken away without being noticed.
#[test]
fn every_file_counts() {
    let (key, keys) = key();
    let (made, subject) = Made::complete(&key);
    let (_directory, layout) = made.export(&subject);
    for digest in made.blobs.keys() {
        let path = layout.blob_path(digest);
        let Ok(data) = std::fs::read(&path) else { continue };
        let mut changed = data.clone();
        changed[data.len() / 2] ^= 1;
        for other in [Some(&changed[..]), Some(&data[..data.len() - 1]), None] {
            match other {
                Some(other) => std::fs::write(&path, other).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let failure = check(&layout, &keys).unwrap_err();
            assert!(matches!(failure.broken, VerifyError::Layout(_)), "{:?}", failure.broken);
        }
        std::fs::write(&path, data).unwrap();
    }
    assert!(check(&layout, &keys).is_ok());
}

#[test]
fn another_key_is_not_trusted() {
    let (key, _) = key();
    let (made, subject) = Made::complete(&key);
    let (_, other) = self::key();
    assert!(matches!(broken(&made, &subject, &other), VerifyError::Attestation { .. }));
}

#[test]
fn a_key_that_was_revoked_or_not_yet_valid_does_not_count() {
    let (key, _) = key();
    let (made, subject) = Made::complete(&key);
    let trusted = |from: Option<i64>, until: Option<i64>, revoked: Option<i64>| {
        let moment = |it: Option<i64>| it.map(|it| Timestamp::from_unix(SIGNED + it));
        KeyRing::new(vec![TrustedKey {
            not_before: moment(from),
            not_after: moment(until),
            revoked_from: moment(revoked),
            ..TrustedKey::always("release", key.public_key().clone())
        }])
        .unwrap()
    };
    let (_directory, layout) = made.export(&subject);
    assert!(check(&layout, &trusted(Some(-1), Some(1), None)).is_ok());
    let refused = |keys: &KeyRing| match check(&layout, keys).unwrap_err().broken {
        VerifyError::Key { source, .. } => source,
        other => panic!("{other}"),
    };
    assert!(matches!(refused(&trusted(Some(1), None, None)), KeyRefused::TooEarly { .. }));
    assert!(matches!(refused(&trusted(None, Some(-1), None)), KeyRefused::TooLate { .. }));
    assert!(matches!(refused(&trusted(None, None, Some(-1))), KeyRefused::Revoked { .. }));
    // The provenance says that it is older than the revocation; so would a thief.
    let late = refused(&trusted(None, None, Some(1)));
    assert!(matches!(late, KeyRefused::RevokedWithoutRecord { .. }));
}

#[test]
fn a_signature_of_another_release_proves_nothing() {
    let (key, keys) = key();
    let (mut made, subject) = Made::complete(&key);
    let other = made.image("another program");
    // Everything is attached to the other image, and the claims are about the first.
    let foreign = broken(&made, &other, &keys);
    assert!(matches!(foreign, VerifyError::Stranger(_)), "{foreign}");
    let mut moved = Made { blobs: made.blobs.clone(), ..Made::default() };
    let claim = made.provenance(SignedBy::Server).predicate;
    let mut signer = Made { blobs: moved.blobs.clone(), ..Made::default() };
    signer.attest(&subject, SLSA_PREDICATE, claim, &key);
    let bundle = signer.blobs.iter().find(|(digest, data)| {
        !moved.blobs.contains_key(digest)
            && data.starts_with(br#"{"mediaType":"application/vnd.dev"#)
    });
    moved.attach(&other, SLSA_PREDICATE, &bundle.unwrap().1.clone());
    let replayed = broken(&moved, &other, &keys);
    assert!(matches!(replayed, VerifyError::Attestation { .. }), "{replayed}");
}

#[test]
fn without_provenance_nothing_is_known() {
    let (key, keys) = key();
    let mut made = Made::default();
    let subject = made.image("program");
    assert!(matches!(broken(&made, &subject, &keys), VerifyError::NoProvenance));
    made.attest(&subject, "https://example.com/other", serde_json::Map::new(), &key);
    assert!(matches!(broken(&made, &subject, &keys), VerifyError::NoProvenance));
}

#[test]
fn two_provenances_could_say_different_things() {
    let (key, keys) = key();
    let (mut made, subject) = Made::complete(&key);
    let other = made.provenance(SignedBy::Client).predicate;
    made.attest(&subject, SLSA_PREDICATE, other, &key);
    assert!(matches!(broken(&made, &subject, &keys), VerifyError::Provenances(2)));
}

/// Provenance with something changed in it, signed by the right key.
fn with(change: impl Fn(&mut Value), closure: bool) -> (Made, Descriptor, KeyRing) {
    let (key, keys) = key();
    let mut made = Made::default();
    let subject = made.image("program");
    let of = made.provenance(SignedBy::Server);
    let mut claim = Value::Object(of.predicate);
    change(&mut claim);
    let Value::Object(claim) = claim else { panic!() };
    made.attest(&subject, SLSA_PREDICATE, claim, &key);
    if closure {
        made.attach_closure(&subject, &of.index);
    }
    (made, subject, keys)
}

#[test]
fn the_list_of_the_closure_belongs_to_the_provenance() {
    let (made, subject, keys) = with(|_| {}, false);
    assert!(matches!(broken(&made, &subject, &keys), VerifyError::NoClosure(_)));
    let other = |it: &mut Value| {
        let list = &mut it["buildDefinition"]["resolvedDependencies"][1];
        list["digest"]["sha256"] = json!("0".repeat(64));
    };
    let (made, subject, keys) = with(other, true);
    assert!(matches!(broken(&made, &subject, &keys), VerifyError::NoClosure(_)));
    let fewer = |it: &mut Value| {
        it["buildDefinition"]["internalParameters"]["notBuiltHere"]["uploadedSources"] = json!(0);
    };
    let (made, subject, keys) = with(fewer, true);
    let counts = broken(&made, &subject, &keys);
    assert!(matches!(counts, VerifyError::Counts { says: 0, found: 1, .. }), "{counts}");
}

#[test]
fn what_the_provenance_does_not_say_is_missed() {
    for pointer in [
        "/runDetails/builder/id",
        "/buildDefinition/internalParameters/slsa/buildLevel",
        "/buildDefinition/internalParameters/closure/actions",
        "/buildDefinition/resolvedDependencies/1/mediaType",
    ] {
        let (made, subject, keys) =
            with(|it| *it.pointer_mut(pointer).unwrap() = json!(null), true);
        assert!(matches!(broken(&made, &subject, &keys), VerifyError::Unsaid(_)), "{pointer}");
    }
}

#[test]
fn whoever_verifies_may_demand_more() {
    let (key, keys) = key();
    let (made, subject) = Made::complete(&key);
    let (_directory, layout) = made.export(&subject);
    let with = |change: fn(&mut Expected)| {
        let mut expected = Expected::default();
        change(&mut expected);
        verify(&layout, &keys, &expected, now()).map(|_| ()).map_err(|it| it.broken)
    };
    assert!(with(|it| it.name = "team/app:1.0".parse().ok()).is_ok());
    assert!(matches!(
        with(|it| it.name = "team/app:1.1".parse().ok()),
        Err(VerifyError::OtherRelease { .. })
    ));
    assert!(with(|it| it.builder = Some("https://kiln.example".to_owned())).is_ok());
    assert!(with(|it| it.builder = Some("https://kiln.exampl".to_owned())).is_err());
    assert!(with(|it| it.source = Some("git+https://git.example/app".to_owned())).is_ok());
    assert!(with(|it| it.source = Some(format!("git+https://git.example/app@{COMMIT}"))).is_ok());
    for other in ["git+https://git.example/ap", "git+https://git.example/app@1234", ""] {
        let expected = Expected { source: Some(other.to_owned()), ..Expected::default() };
        let verified = verify(&layout, &keys, &expected, now());
        assert!(verified.is_err(), "{other:?}");
    }
    assert!(with(|it| it.level = Some(3)).is_ok());
    assert!(matches!(with(|it| it.level = Some(4)), Err(VerifyError::Unexpected { .. })));
}

#[test]
fn a_layer_that_leads_out_is_found_before_anybody_unpacks_it() {
    let (_, keys) = key();
    let mut made = Made::default();
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.as_mut_bytes()[..5].copy_from_slice(b"../up");
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, std::io::empty()).unwrap();
    let layer = made.put(LAYER_TYPE, &builder.into_inner().unwrap());
    let config = made.put("application/vnd.oci.image.config.v1+json", b"{}");
    let manifest = crate::oci::Manifest::image(config, vec![layer]).write().unwrap();
    let subject = made.put(crate::oci::MANIFEST_TYPE, &manifest);
    assert!(matches!(broken(&made, &subject, &keys), VerifyError::Layer { .. }));
}

#[test]
fn an_export_that_was_cut_short_is_no_release() {
    let (key, keys) = key();
    let (made, subject) = Made::complete(&key);
    let (directory, layout) = made.export(&subject);
    std::fs::remove_file(directory.path().join("oci-layout")).unwrap();
    assert!(matches!(
        check(&layout, &keys).unwrap_err().broken,
        VerifyError::Layout(LayoutError::File { .. })
    ));
}

#[test]
fn an_index_with_two_releases_or_none_is_refused() {
    let (key, keys) = key();
    let (made, subject) = Made::complete(&key);
    let (directory, layout) = made.export(&subject);
    let path = directory.path().join("index.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("build.kiln.release", "build.kiln.released")).unwrap();
    assert!(matches!(check(&layout, &keys).unwrap_err().broken, VerifyError::Releases(0)));
    let mut index: Value = serde_json::from_str(&text).unwrap();
    let twice = index["manifests"][0].clone();
    index["manifests"].as_array_mut().unwrap().push(twice);
    std::fs::write(&path, index.to_string()).unwrap();
    assert!(matches!(check(&layout, &keys).unwrap_err().broken, VerifyError::Releases(2)));
}
