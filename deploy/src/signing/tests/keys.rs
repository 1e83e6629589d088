//! Keys as OpenSSL writes them, and programs that have one.

use std::time::Duration;

use proptest::prelude::*;

use super::super::keys::{KeySource, Secrets};
use super::super::{
    KeyError, Program, PublicKey, RunProgram, Scheme, SignByCommand, SignError, Signer,
    SignerError, SigningKey, signer,
};
use super::key;

const P256: &str = include_str!("keys/p256.pem");
const P256_PUB: &str = include_str!("keys/p256.pub");
const PBKDF2: &str = include_str!("keys/p256.pbkdf2.pem");
const SCRYPT: &str = include_str!("keys/p256.scrypt.pem");
const TRADITIONAL: &str = include_str!("keys/p256.trad.pem");
const ED25519: &str = include_str!("keys/ed.pem");
const ED25519_PUB: &str = include_str!("keys/ed.pub");
const COSIGN: &str = include_str!("keys/cosign.pem");
const COSIGN_PUB: &str = include_str!("keys/cosign.pub");
const P384_PUB: &str = include_str!("keys/p384.pub");
/// `ssh-keygen -l` of the P-256 key.
const FINGERPRINT: &str = "SHA256:gNeu9KD1e2SNFk4EjnX9nZg9AyoFQMUo6hdgQ2aFejU";

#[test]
fn keys_of_openssl_and_cosign_sign_plain_and_encrypted() {
    let keys = [
        (P256, None, P256_PUB),
        (PBKDF2, Some("kiln"), P256_PUB),
        (SCRYPT, Some("kiln"), P256_PUB),
        (ED25519, None, ED25519_PUB),
        (COSIGN, Some("kiln"), COSIGN_PUB),
    ];
    for (private, passphrase, public) in keys {
        let key = SigningKey::from_pem(private, passphrase).unwrap();
        let public = PublicKey::from_pem(public).unwrap();
        assert_eq!(*key.public_key(), public);
        let signature = key.sign(b"message").unwrap();
        assert!(public.verify(b"message", &signature));
        assert!(!public.verify(b"massage", &signature));
    }
}

#[test]
fn a_key_that_cannot_be_used_says_why() {
    let read = |text, passphrase| SigningKey::from_pem(text, passphrase).map(|_| ());
    assert!(matches!(read(PBKDF2, None), Err(KeyError::NoPassphrase)));
    assert!(matches!(read(PBKDF2, Some("kilns")), Err(KeyError::Passphrase)));
    assert!(matches!(read(SCRYPT, Some("")), Err(KeyError::Passphrase)));
    assert!(matches!(read(COSIGN, Some("kilns")), Err(KeyError::Passphrase)));
    assert!(matches!(read(TRADITIONAL, None), Err(KeyError::Traditional)));
    assert!(matches!(read(P256_PUB, None), Err(KeyError::Label(_))));
    assert!(matches!(read("kiln", None), Err(KeyError::Pem(_))));
    assert!(matches!(PublicKey::from_pem(P384_PUB), Err(KeyError::Algorithm)));
    assert!(matches!(PublicKey::from_pem(P256), Err(KeyError::Label(_))));
}

#[test]
fn a_public_key_is_written_as_it_was_read_and_named_as_ssh_does() {
    for text in [P256_PUB, ED25519_PUB] {
        assert_eq!(PublicKey::from_pem(text).unwrap().to_pem().unwrap(), text);
    }
    assert_eq!(PublicKey::from_pem(P256_PUB).unwrap().id(), FINGERPRINT);
}

#[test]
fn a_key_that_was_made_is_read_again() {
    for scheme in [Scheme::EcdsaP256, Scheme::Ed25519] {
        let (key, pem) = SigningKey::generate(scheme).unwrap();
        let again = SigningKey::from_pem(&pem, None).unwrap();
        assert_eq!(key.public_key(), again.public_key());
        assert!(!format!("{key:?}").contains("PRIVATE KEY"));
    }
}

struct Kept;

impl Secrets for Kept {
    fn file(&self, path: &std::path::Path, _: u64) -> std::io::Result<String> {
        match path.to_str() {
            Some("/keys/release.pem") => Ok(SCRYPT.to_owned()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "PASSPHRASE" => Some("kiln".to_owned()),
            "PUBLIC" => Some(P256_PUB.to_owned()),
            _ => None,
        }
    }
}

#[test]
fn a_key_comes_from_a_file_or_from_the_environment() {
    let source = |text: &str| text.parse::<KeySource>().unwrap();
    let key = signer(&source("/keys/release.pem"), "PASSPHRASE", &Kept).unwrap();
    assert_eq!(*key.public_key(), source("env:PUBLIC").public_key(&Kept).unwrap());
    assert!(
        matches!(source("env:NONE").read(&Kept), Err(KeyError::NoVariable(name)) if name == "NONE")
    );
    assert!(matches!(source("/none").read(&Kept), Err(KeyError::Read { .. })));
    let no_passphrase = signer(&source("/keys/release.pem"), "NONE", &Kept).err();
    assert!(matches!(no_passphrase, Some(SignerError::Key(KeyError::NoPassphrase))));
}

fn program(argv: &[&str]) -> Program {
    let argv = argv.iter().map(|it| (*it).to_owned()).collect();
    Program { argv, timeout: Duration::from_secs(20) }
}

#[test]
fn a_program_signs_and_is_not_believed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/signing/tests/keys/p256.pem");
    let sign = format!("openssl dgst -sha256 -sign {path} | base64");
    let public = PublicKey::from_pem(P256_PUB).unwrap();
    let signer = SignByCommand::new(program(&["/bin/sh", "-c", &sign]), public.clone());
    assert!(public.verify(b"message", &signer.sign(b"message").unwrap()));

    let (_, other) = key(Scheme::EcdsaP256);
    let other = other.keys()[0].key.clone();
    let signer = SignByCommand::new(program(&["/bin/sh", "-c", &sign]), other);
    assert!(matches!(signer.sign(b"message"), Err(SignError::OtherKey)));
    let signer = SignByCommand::new(program(&["/bin/echo", "not base64!"]), public);
    assert!(matches!(signer.sign(b"message"), Err(SignError::OtherKey)));
}

/// A place with this text.
struct Place(String);

impl Secrets for Place {
    fn file(&self, _: &std::path::Path, _: u64) -> std::io::Result<String> {
        Ok(self.0.clone())
    }

    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

#[test]
fn a_program_that_signs_is_described_in_place_of_a_key() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/signing/tests/keys/p256.pem");
    let sign = format!("openssl dgst -sha256 -sign '{path}' | base64");
    let described = serde_json::json!({"command": ["sh", "-c", sign], "publicKey": P256_PUB});
    let open = |text: &serde_json::Value| {
        signer(&"kms.json".parse().unwrap(), "NONE", &Place(text.to_string()))
    };
    let made = open(&described).unwrap();
    assert!(made.public_key().verify(b"message", &made.sign(b"message").unwrap()));
    for (member, value) in [
        ("command", serde_json::json!([])),
        ("publicKey", "no key".into()),
        ("timeoutSeconds", 0.into()),
        ("timeoutSeconds", 3_600.into()),
        ("unknown", 1.into()),
    ] {
        let mut other = described.clone();
        other[member] = value;
        assert!(open(&other).is_err(), "{other}");
    }
}

#[test]
fn a_program_that_fails_hangs_or_chatters_is_an_error() {
    use kiln_net::process::ProcessError::{Failed, Loud, Slow, Start};

    use super::super::CommandError::{Nothing, Program as ByProgram};
    let run = |argv: &[&str]| program(argv).run(&[0; 1 << 20]);
    assert!(matches!(run(&["/bin/false"]), Err(ByProgram(Failed { .. }))));
    assert!(matches!(run(&["/nowhere/to/be/found"]), Err(ByProgram(Start { .. }))));
    assert!(matches!(run(&["/bin/cat"]), Err(ByProgram(Loud { .. }))));
    assert!(matches!(run(&[]), Err(Nothing)));
    let mut slow = program(&["/bin/sh", "-c", "exec sleep 60"]);
    slow.timeout = Duration::from_millis(50);
    assert!(matches!(slow.run(b""), Err(ByProgram(Slow { .. }))));
    // The program closes its stdout, so it has said everything, and then does not end.
    slow.argv[2] = "exec sleep 60 >&-".to_owned();
    assert!(matches!(slow.run(b""), Err(ByProgram(Slow { .. }))));
}

proptest! {
    #[test]
    fn whatever_a_key_file_holds_it_is_read_or_refused(data in prop::collection::vec(any::<u8>(), 0..200)) {
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode(&data);
        let lines: Vec<_> = body.as_bytes().chunks(64).map(|it| std::str::from_utf8(it).unwrap()).collect();
        for label in ["PRIVATE KEY", "ENCRYPTED SIGSTORE PRIVATE KEY", "PUBLIC KEY"] {
            let pem = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"));
            let _ = SigningKey::from_pem(&pem, Some("kiln"));
            let _ = PublicKey::from_pem(&pem);
        }
    }
}
