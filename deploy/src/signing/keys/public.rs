//! Public keys and their names.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use der::Decode as _;
use der::asn1::ObjectIdentifier;
use der::pem::{LineEnding, decode_vec, encode_string};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use sha2::{Digest as _, Sha256};
use spki::SubjectPublicKeyInfoRef;

use super::error::KeyError;
use crate::encoding::base64;

const LABEL: &str = "PUBLIC KEY";
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ED25519_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// What stands before the point, or the key, in a SubjectPublicKeyInfo.
const P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const ED25519_PREFIX: &[u8] =
    &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    EcdsaP256,
    Ed25519,
}

/// A key that verifies.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    scheme: Scheme,
    /// The uncompressed point (65 bytes), or the 32 bytes of an Ed25519 key.
    raw: Vec<u8>,
}

impl Scheme {
    fn algorithm(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::EcdsaP256 => &ECDSA_P256_SHA256_ASN1,
            Self::Ed25519 => &ED25519,
        }
    }

    fn is_key(self, raw: &[u8]) -> bool {
        match self {
            Self::EcdsaP256 => raw.len() == 65 && raw.first() == Some(&4),
            Self::Ed25519 => raw.len() == 32,
        }
    }
}

impl PublicKey {
    /// `raw`: the uncompressed point of P-256, or the bytes of an Ed25519 key.
    pub fn from_raw(scheme: Scheme, raw: &[u8]) -> Result<Self, KeyError> {
        let key = scheme.is_key(raw).then(|| Self { scheme, raw: raw.to_owned() });
        key.ok_or_else(|| KeyError::Malformed("the public key has another length".to_owned()))
    }

    /// Reads `-----BEGIN PUBLIC KEY-----`.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let (label, der) =
            decode_vec(text.trim_ascii().as_bytes()).map_err(|it| KeyError::Pem(it.to_string()))?;
        if label != LABEL {
            return Err(KeyError::Label(label.to_owned()));
        }
        Self::from_der(&der)
    }

    /// Reads a key from a SubjectPublicKeyInfo in DER.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let malformed = |it: der::Error| KeyError::Malformed(it.to_string());
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(malformed)?;
        let scheme = match (info.algorithm.oid, info.algorithm.parameters_oid().ok()) {
            (EC, Some(P256)) => Scheme::EcdsaP256,
            (ED25519_OID, None) => Scheme::Ed25519,
            _ => return Err(KeyError::Algorithm),
        };
        let unused = || KeyError::Malformed("the public key ends within a byte".to_owned());
        Self::from_raw(scheme, info.subject_public_key.as_bytes().ok_or_else(unused)?)
    }

    /// The key as a SubjectPublicKeyInfo in DER.
    pub fn to_der(&self) -> Vec<u8> {
        let prefix = match self.scheme {
            Scheme::EcdsaP256 => P256_PREFIX,
            Scheme::Ed25519 => ED25519_PREFIX,
        };
        [prefix, &self.raw].concat()
    }

    pub fn to_pem(&self) -> Result<String, KeyError> {
        let text = encode_string(LABEL, LineEnding::LF, &self.to_der());
        text.map_err(|it| KeyError::Pem(it.to_string()))
    }

    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The fingerprint that `ssh-keygen -l` prints: what an envelope calls the key.
    pub fn id(&self) -> String {
        let parts: &[&[u8]] = match self.scheme {
            Scheme::EcdsaP256 => &[b"ecdsa-sha2-nistp256", b"nistp256", &self.raw],
            Scheme::Ed25519 => &[b"ssh-ed25519", &self.raw],
        };
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u32).to_be_bytes());
            hash.update(part);
        }
        format!("SHA256:{}", STANDARD_NO_PAD.encode(hash.finalize()))
    }

    /// The name that cosign gives the key in its bundles.
    pub fn cosign_hint(&self) -> String {
        base64(&Sha256::digest(self.to_der()))
    }

    /// Whether this key signed `message`. An ECDSA signature is in ASN.1 DER.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.scheme.algorithm(), &self.raw)
            .verify(message, signature)
            .is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id())
    }
}
