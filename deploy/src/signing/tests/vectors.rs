//! Bundles that others made. They are no part of the repository: the directory is named by
//! `KILN_SIGSTORE_VECTORS` (docs/releases.md says what is in it).

use std::path::PathBuf;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::super::{Attestation, COSIGN_SIGN_PREDICATE, Envelope, KeyRing, PublicKey, Scheme, pae};
use crate::encoding::{from_base64, hex};
use crate::resource::DigestSet;

const SLSA: &str = "https://slsa.dev/provenance/v1";

/// Forms on which verifiers disagree, and that are refused here.
const REFUSED: [&str; 2] =
    ["ok_-unknown-bundle-field.sigstore.json", "ok_-keyid-mismatch.sigstore.json"];

struct Vectors(PathBuf);

impl Vectors {
    fn open() -> Self {
        Self(
            std::env::var_os("KILN_SIGSTORE_VECTORS").expect("KILN_SIGSTORE_VECTORS is set").into(),
        )
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.join(name)).expect(name)
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(name)).expect(name)
    }

    fn keys(&self, name: &str) -> KeyRing {
        KeyRing::read(name, std::str::from_utf8(&self.read(name)).unwrap()).unwrap()
    }

    fn content(&self, name: &str) -> DigestSet {
        DigestSet::from([("sha256".to_owned(), hex(&Sha256::digest(self.read(name))))])
    }
}

#[test]
#[ignore = "needs a directory of bundles that others made"]
fn good_bundles_are_accepted_and_tampered_ones_are_not() {
    let vectors = Vectors::open();
    let artifact = vectors.content("made/artifact.bin");
    let (mut accepted, mut refused) = (0, 0);
    for case in vectors.json("made/matrix.json").as_array().unwrap() {
        let file = case["file"].as_str().unwrap();
        let keys = vectors.keys(&format!("made/{}", case["key"].as_str().unwrap()));
        let verdict = Attestation::from_bundle(&vectors.read(&format!("made/{file}")), &keys)
            .and_then(|it| it.expect(SLSA, &artifact).map(|_| ()));
        println!("{file}: {verdict:?}");
        let good = file.starts_with("ok") && !REFUSED.contains(&file);
        assert_eq!(verdict.is_ok(), good, "{file}: {verdict:?}");
        *(if good { &mut accepted } else { &mut refused }) += 1;
    }
    println!("{accepted} accepted, {refused} refused");
    assert!(accepted >= 9 && refused >= 12);
}

#[test]
#[ignore = "needs a directory of bundles that others made"]
fn what_cosign_writes_is_read() {
    let vectors = Vectors::open();
    let keys = vectors.keys("cosign/cosign.pub");
    let image = vectors.content("cosign/subject.manifest.json");
    let artifact = vectors.content("cosign/artifact.bin");
    let cases = [
        ("cosign/blob-attest.bundle.json", SLSA, &artifact),
        ("cosign/image-attest.bundle.json", SLSA, &image),
        ("cosign/image-sign.bundle.json", COSIGN_SIGN_PREDICATE, &image),
    ];
    for (file, predicate, content) in cases {
        let read = Attestation::from_bundle(&vectors.read(file), &keys).expect(file);
        assert!(read.expect(predicate, content).is_ok(), "{file}");
        let hint = vectors.json(file)["verificationMaterial"]["publicKey"]["hint"].clone();
        assert_eq!(hint, keys.keys()[0].key.cosign_hint());
    }
    let older = vectors.read("cosign/image-attest.legacy-att-layer.dsse.json");
    let older = Envelope::read(&older).unwrap();
    let read = Attestation::from_envelope(&older, &keys).unwrap();
    assert!(read.expect(SLSA, &image).is_ok());
}

#[test]
#[ignore = "needs a directory of bundles that others made"]
fn the_vector_of_the_protocol_is_verified() {
    let vector = Vectors::open().json("dsse/protocol-vector.json");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let signed = pae(&text(&vector["payloadType"]), text(&vector["body"]).as_bytes());
    assert_eq!(signed, text(&vector["pae"]).into_bytes());
    let number = |name: &str| big_endian(&text(&vector["key"][name]));
    let point = [&[4][..], &number("x"), &number("y")].concat();
    let key = PublicKey::from_raw(Scheme::EcdsaP256, &point).unwrap();
    assert!(key.verify(&signed, &from_base64(&text(&vector["signatureDer"])).unwrap()));
    // Raw r and s, which some verifiers accept.
    let raw = text(&vector["envelope"]["signatures"][0]["sig"]);
    assert!(!key.verify(&signed, &from_base64(&raw).unwrap()));
}

/// A decimal number as 32 bytes.
fn big_endian(decimal: &str) -> Vec<u8> {
    let mut bytes = vec![0u8; 32];
    for digit in decimal.bytes() {
        let mut carry = u32::from(digit - b'0');
        for byte in bytes.iter_mut().rev() {
            carry += u32::from(*byte) * 10;
            *byte = carry as u8;
            carry >>= 8;
        }
    }
    bytes
}
