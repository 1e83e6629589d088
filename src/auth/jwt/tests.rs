//! Good tokens are taken; expired, foreign and forged ones are refused with the reason.

#[path = "../../../tests/support/jwt.rs"]
pub mod signer;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::keys::{Key, key_file, key_set, secret_file};
use super::{JwtOptions, Verifier};
use crate::auth::failures::Reason;
use signer::Signer;

const SECRET: &[u8] = b"a secret of forty bytes, no fewer, no mor";
const NOW: i64 = 1_800_000_000;

fn options() -> JwtOptions {
    JwtOptions {
        key_files: Vec::new(),
        secret_file: None,
        jwks: None,
        issuer: Some("https://idp.example".into()),
        audience: vec!["kiln".into()],
        leeway: Duration::from_secs(30),
    }
}

fn claims() -> Value {
    json!({ "sub": "al", "iss": "https://idp.example", "aud": "kiln", "exp": NOW + 60 })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn set(signers: &[(&Signer, &str)]) -> Vec<Key> {
    let keys: Vec<Value> = signers.iter().map(|(signer, id)| signer.jwk(id)).collect();
    key_set("test", &json!({ "keys": keys }).to_string(), true).unwrap()
}

fn verifier(signers: &[(&Signer, &str)]) -> Verifier {
    Verifier::new(&options(), set(signers), None)
}

fn reason(verifier: &Verifier, token: &str) -> Reason {
    verifier.verify(token, NOW).expect_err("it is refused").reason
}

#[test]
fn tokens_of_all_three_kinds_are_taken() {
    let signers = [(Signer::hs256(SECRET), "h"), (Signer::rs256(), "r"), (Signer::es256(), "e")];
    let all: Vec<_> = signers.iter().map(|(signer, id)| (signer, *id)).collect();
    let verifier = verifier(&all);
    for (signer, id) in &signers {
        for id in [Some(*id), None] {
            let (claims, until) = verifier.verify(&signer.sign(id, &claims()), NOW).unwrap();
            assert_eq!(claims["sub"], "al");
            assert_eq!(until, NOW + 90, "its end and the leeway");
        }
        let misnamed = signer.sign(Some("other"), &claims());
        assert_eq!(reason(&verifier, &misnamed), Reason::UnknownKey);
    }
    let stranger = Signer::es256().sign(Some("e"), &claims());
    assert_eq!(reason(&verifier, &stranger), Reason::Signature);
}

#[test]
fn claims_decide_with_a_bounded_leeway() {
    let signer = Signer::hs256(SECRET);
    let verifier = verifier(&[(&signer, "h")]);
    let good = [
        claims(),
        with("exp", json!(NOW - 29)),
        with("exp", json!(NOW as f64 + 0.5)),
        with("nbf", json!(NOW + 30)),
        with("aud", json!(["other", "kiln"])),
    ];
    for claims in good {
        assert!(verifier.verify(&signer.sign(None, &claims), NOW).is_ok(), "{claims}");
    }
    let bad = [
        (with("exp", json!(NOW - 30)), Reason::Expired),
        (with("exp", json!(0)), Reason::Expired),
        (with("exp", json!("tomorrow")), Reason::Malformed),
        (without("exp"), Reason::Malformed),
        (with("nbf", json!(NOW + 31)), Reason::NotYetValid),
        (with("nbf", json!("yesterday")), Reason::NotYetValid),
        (with("aud", json!("other")), Reason::Audience),
        (with("aud", json!([])), Reason::Audience),
        (with("aud", json!(7)), Reason::Audience),
        (without("aud"), Reason::Audience),
        (with("iss", json!("https://evil.example")), Reason::Issuer),
        (without("iss"), Reason::Issuer),
    ];
    for (claims, expected) in bad {
        assert_eq!(reason(&verifier, &signer.sign(None, &claims)), expected, "{claims}");
    }
}

#[test]
fn forged_tokens_are_refused() {
    let signer = Signer::rs256();
    let verifier = verifier(&[(&signer, "r")]);
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let body = part(claims());
    for algorithm in ["none", "None", "NONE", ""] {
        let header = part(json!({ "alg": algorithm, "typ": "JWT" }));
        for token in [format!("{header}.{body}."), format!("{header}.{body}")] {
            assert_eq!(reason(&verifier, &token), Reason::Malformed, "{token}");
        }
    }
    // The public key is public: as the secret of an HMAC it proves nothing.
    for secret in [signer.public_pem(), signer.jwk("r").to_string()] {
        let forged = Signer::hs256(secret.as_bytes());
        assert_eq!(reason(&verifier, &forged.sign(Some("r"), &claims())), Reason::UnknownKey);
        let header = json!({ "alg": "RS256", "kid": "r" });
        assert_eq!(reason(&verifier, &forged.sign_with(&header, &claims())), Reason::Signature);
    }
    // A key that comes with the token is nobody's.
    let own = Signer::es256();
    let header = json!({ "alg": "ES256", "jwk": own.jwk("own"), "kid": "own" });
    assert_eq!(reason(&verifier, &own.sign_with(&header, &claims())), Reason::UnknownKey);
    let header = json!({ "alg": "RS256", "kid": "r", "crit": ["b64"], "b64": false });
    assert_eq!(reason(&verifier, &signer.sign_with(&header, &claims())), Reason::Malformed);
}

#[test]
fn without_the_keys_of_the_url_nothing_is_known_yet() {
    let jwks = super::JwksOptions { url: "https://idp/".parse().unwrap(), refresh: Duration::ZERO };
    let options = JwtOptions { jwks: Some(jwks), ..options() };
    let signer = Signer::es256();
    let token = signer.sign(Some("e"), &claims());
    let unfetched = Verifier::new(&options, Vec::new(), None);
    assert_eq!(reason(&unfetched, &token), Reason::KeysUnavailable);
    let keys = set(&[(&signer, "e")]);
    assert!(Verifier::new(&options, Vec::new(), Some(&keys)).verify(&token, NOW).is_ok());
    let other = set(&[(&signer, "f")]);
    let rotated = Verifier::new(&options, Vec::new(), Some(&other));
    assert_eq!(reason(&rotated, &token), Reason::UnknownKey);
}

#[test]
fn keys_are_read_from_files_and_what_is_none_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (rsa, ec) = (Signer::rs256(), Signer::es256());
    let both = write("both.pem", &format!("{}\n{}", rsa.public_pem(), ec.public_pem()));
    let mut keys = key_file(&both).unwrap();
    assert_eq!(keys.len(), 2);
    let secret = std::str::from_utf8(SECRET).unwrap();
    keys.push(secret_file(&write("secret", &format!("{secret}\n"))).unwrap());
    let verifier = Verifier::new(&options(), keys, None);
    for signer in [&rsa, &ec, &Signer::hs256(SECRET)] {
        assert!(verifier.verify(&signer.sign(Some("any"), &claims()), NOW).is_ok());
    }
    let jwks = json!({ "keys": [ec.jwk("e"), { "kty": "OKP", "crv": "Ed25519", "x": "AA" }, 7] });
    assert_eq!(key_file(&write("set.json", &jwks.to_string())).unwrap().len(), 1);

    let said = |text: &str| key_file(&write("bad", text)).err().unwrap().to_string();
    assert!(said("nothing").contains("neither a key in PEM form"));
    assert!(said("-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----").contains("pubout"));
    assert!(said("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----").contains("P-256"));
    assert!(said("{}").contains("no list named keys"));
    assert!(said(r#"{"keys": []}"#).contains("none of its 0 keys"));
    let short = secret_file(&write("short", "hunter2\n")).err().unwrap().to_string();
    assert!(short.contains("7 bytes") && !short.contains("hunter2"), "{short}");
    assert!(key_file(&dir.path().join("nowhere")).err().unwrap().to_string().contains("nowhere"));
}

/// Whoever can read the set could sign.
#[test]
fn a_secret_in_a_published_key_set_is_no_key() {
    let text = json!({ "keys": [Signer::hs256(SECRET).jwk("h")] }).to_string();
    assert!(key_set("url", &text, false).is_err());
    assert!(key_set("file", &text, true).is_ok());
}

proptest! {
    #[test]
    fn a_changed_byte_is_refused(at: proptest::sample::Index, byte in 33_u8..127) {
        let signer = Signer::hs256(SECRET);
        let verifier = verifier(&[(&signer, "h")]);
        let mut token = signer.sign(Some("h"), &claims()).into_bytes();
        let at = at.index(token.len());
        prop_assume!(token[at] != byte);
        token[at] = byte;
        let token = String::from_utf8(token).unwrap();
        prop_assert!(verifier.verify(&token, NOW).is_err());
    }

    #[test]
    fn a_token_is_valid_from_its_start_to_its_end(
        start in -100_i64..100, end in -100_i64..100, now in -200_i64..200,
    ) {
        let signer = Signer::hs256(SECRET);
        let verifier = verifier(&[(&signer, "h")]);
        let mut claims = claims();
        claims["nbf"] = (NOW + start).into();
        claims["exp"] = (NOW + end).into();
        let valid = start - 30 <= now && now < end + 30;
        let result = verifier.verify(&signer.sign(None, &claims), NOW + now);
        prop_assert_eq!(result.is_ok(), valid);
        if let Ok((_, until)) = result {
            prop_assert_eq!(until, NOW + end + 30);
        }
    }

    #[test]
    fn arbitrary_text_is_no_token(text: String, parts in "[a-zA-Z0-9_.-]{0,60}") {
        let verifier = verifier(&[(&Signer::hs256(SECRET), "h")]);
        prop_assert!(verifier.verify(&text, NOW).is_err());
        prop_assert!(verifier.verify(&parts, NOW).is_err());
    }
}
