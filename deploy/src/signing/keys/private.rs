//! Keys that sign, in this process.

use der::asn1::{ObjectIdentifier, OctetStringRef};
use der::pem::{LineEnding, decode_vec, encode_string};
use der::{Reader as _, SliceReader};
use pkcs5::EncryptionScheme;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use spki::AlgorithmIdentifierRef;

use super::error::KeyError;
use super::public::{PublicKey, Scheme};
use super::secretbox;
use super::signer::{SignError, Signer};

const PLAIN: &str = "PRIVATE KEY";
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
const COSIGN: [&str; 2] = ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];
const TRADITIONAL: [&str; 1] = ["EC PRIVATE KEY"];
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A private key. It is never printed.
pub struct SigningKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Ecdsa(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
}

impl SigningKey {
    /// Reads PKCS#8 in PEM: plain, encrypted as OpenSSL does (PBES2), or as cosign does.
    pub fn from_pem(text: &str, passphrase: Option<&str>) -> Result<Self, KeyError> {
        let (label, body) =
            decode_vec(text.trim_ascii().as_bytes()).map_err(|it| KeyError::Pem(it.to_string()))?;
        let password = || passphrase.ok_or(KeyError::NoPassphrase);
        match label {
            PLAIN => Self::from_der(&body),
            ENCRYPTED => Self::from_encrypted(&body, password()?),
            _ if COSIGN.contains(&label) => Self::from_der(&secretbox::open(&body, password()?)?),
            _ if TRADITIONAL.contains(&label) => Err(KeyError::Traditional),
            _ => Err(KeyError::Label(label.to_owned())),
        }
    }

    fn from_encrypted(body: &[u8], passphrase: &str) -> Result<Self, KeyError> {
        let malformed = |it: der::Error| KeyError::Malformed(it.to_string());
        let (scheme, encrypted) = encrypted_parts(body).map_err(malformed)?;
        let plain = scheme.decrypt(passphrase, encrypted.as_bytes());
        Self::from_der(&plain.map_err(|_| KeyError::Passphrase)?)
    }

    /// Reads a key in PKCS#8.
    fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let malformed = |it: der::Error| KeyError::Malformed(it.to_string());
        // So ring calls another curve.
        let rejected = |it: ring::error::KeyRejected| match it.to_string().as_str() {
            "WrongAlgorithm" => KeyError::Algorithm,
            why => KeyError::Malformed(why.to_owned()),
        };
        match algorithm(der).map_err(malformed)? {
            EC => Self::ecdsa(der).map_err(rejected)?,
            ED25519 => Self::ed25519(der).map_err(rejected)?,
            _ => Err(KeyError::Algorithm),
        }
    }

    fn ecdsa(der: &[u8]) -> Result<Result<Self, KeyError>, ring::error::KeyRejected> {
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, der, &SystemRandom::new())?;
        let public = PublicKey::from_raw(Scheme::EcdsaP256, pair.public_key().as_ref());
        Ok(public.map(|public| Self { pair: Pair::Ecdsa(Box::new(pair)), public }))
    }

    fn ed25519(der: &[u8]) -> Result<Result<Self, KeyError>, ring::error::KeyRejected> {
        // OpenSSL writes the older form, which has no public key to compare with.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)?;
        let public = PublicKey::from_raw(Scheme::Ed25519, pair.public_key().as_ref());
        Ok(public.map(|public| Self { pair: Pair::Ed25519(Box::new(pair)), public }))
    }

    /// Makes a key. The second value is the private key in PEM, not encrypted.
    pub fn generate(scheme: Scheme) -> Result<(Self, String), KeyError> {
        let random = SystemRandom::new();
        let document = match scheme {
            Scheme::EcdsaP256 => {
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
            }
            Scheme::Ed25519 => Ed25519KeyPair::generate_pkcs8(&random),
        };
        let document = document.map_err(|_| KeyError::Generate)?;
        let pem = encode_string(PLAIN, LineEnding::LF, document.as_ref());
        let pem = pem.map_err(|it| KeyError::Pem(it.to_string()))?;
        Ok((Self::from_der(document.as_ref())?, pem))
    }
}

/// How an encrypted key is encrypted, and the encrypted bytes (RFC 5958, EncryptedPrivateKeyInfo).
fn encrypted_parts(body: &[u8]) -> der::Result<(EncryptionScheme, &OctetStringRef)> {
    let mut reader = SliceReader::new(body)?;
    let parts = reader.sequence(|it| Ok::<_, der::Error>((it.decode()?, it.decode()?)))?;
    reader.finish()?;
    Ok(parts)
}

/// What kind of key it is (RFC 5958, OneAsymmetricKey); the rest is read by whoever signs with it.
fn algorithm(key: &[u8]) -> der::Result<ObjectIdentifier> {
    let mut reader = SliceReader::new(key)?;
    let algorithm = reader.sequence(|it| {
        let _version: u8 = it.decode()?;
        let algorithm: AlgorithmIdentifierRef<'_> = it.decode()?;
        it.drain(it.remaining_len())?;
        Ok::<_, der::Error>(algorithm.oid)
    })?;
    reader.finish()?;
    Ok(algorithm)
}

impl Signer for SigningKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        match &self.pair {
            Pair::Ecdsa(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message);
                Ok(signature.map_err(|_| SignError::Refused)?.as_ref().to_owned())
            }
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_owned()),
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "private key of {:?}", self.public)
    }
}
