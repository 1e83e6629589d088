//! Keys that JWTs are signed with: a secret, PEM files, and key sets (JWKS).

use std::path::{Path, PathBuf};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde_json::Value;

/// The most keys that are taken from one origin.
const MAX_KEYS: usize = 100;
/// Shortest secret in bytes: as many as the hash has (RFC 7518, section 3.2).
const MIN_SECRET: usize = 32;

/// A key with the one algorithm that it is used for: a token cannot choose another.
#[derive(Clone)]
pub struct Key {
    /// The key's id (`kid`); `None`: tokens need not name it.
    pub id: Option<String>,
    pub algorithm: Algorithm,
    pub key: DecodingKey,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read {path}: {message}")]
    Unreadable { path: PathBuf, message: String },
    #[error("{origin}: {problem}")]
    Unusable { origin: String, problem: String },
}

fn unusable(origin: &str, problem: impl Into<String>) -> KeyError {
    KeyError::Unusable { origin: origin.to_owned(), problem: problem.into() }
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    kiln_net::files::read(path)
        .map_err(|error| KeyError::Unreadable { path: path.to_owned(), message: error.to_string() })
}

/// A file with a secret for HS256; a line break at its end is none of it.
pub fn secret_file(path: &Path) -> Result<Key, KeyError> {
    let bytes = read(path)?;
    let secret = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    if secret.len() < MIN_SECRET {
        let problem = format!(
            "the secret has {} bytes, fewer than {MIN_SECRET}: it could be guessed; make one with \
             `openssl rand -base64 48`",
            secret.len()
        );
        return Err(unusable(&path.display().to_string(), problem));
    }
    Ok(Key { id: None, algorithm: Algorithm::HS256, key: DecodingKey::from_secret(secret) })
}

/// A file with public keys: PEM, or a key set.
pub fn key_file(path: &Path) -> Result<Vec<Key>, KeyError> {
    let origin = path.display().to_string();
    let bytes = read(path)?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_| unusable(&origin, "it is not a text file"))?;
    match text.trim_start().starts_with('{') {
        true => key_set(&origin, text, true),
        false => pem_keys(&origin, text),
    }
}

fn pem_keys(origin: &str, text: &str) -> Result<Vec<Key>, KeyError> {
    const BEGIN: &str = "-----BEGIN ";
    let keys: Vec<Key> = text
        .match_indices(BEGIN)
        .map(|(at, _)| pem_key(origin, &text[at..]))
        .collect::<Result<_, _>>()?;
    match keys.len() {
        0 => Err(unusable(origin, "it holds neither a key in PEM form nor a key set (JSON)")),
        1..=MAX_KEYS => Ok(keys),
        _ => Err(unusable(origin, format!("it holds more than {MAX_KEYS} keys"))),
    }
}

/// Reads the first PEM key of `text`.
fn pem_key(origin: &str, text: &str) -> Result<Key, KeyError> {
    let label = text.lines().next().unwrap_or_default();
    if label.contains("PRIVATE") {
        return Err(unusable(
            origin,
            "it holds a private key, which belongs to whoever makes tokens; give the public key \
             (`openssl pkey -pubout`)",
        ));
    }
    // Only the first of several is looked at by the library.
    let end = text[1..].find("-----BEGIN ").map_or(text.len(), |end| end + 1);
    let pem = &text.as_bytes()[..end];
    let (algorithm, key) = DecodingKey::from_rsa_pem(pem)
        .map(|key| (Algorithm::RS256, key))
        .or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key)))
        .map_err(|_| unusable(origin, format!("{label} holds no RSA and no P-256 public key")))?;
    let key = Key { id: None, algorithm, key };
    key.check().map_err(|problem| unusable(origin, problem))?;
    Ok(key)
}

/// A JWKS. Keys of other kinds and for other uses are left out, and secrets where the set is not
/// `private`: whoever reads one can sign with it.
pub fn key_set(origin: &str, text: &str, private: bool) -> Result<Vec<Key>, KeyError> {
    let set: Value = serde_json::from_str(text)
        .map_err(|error| unusable(origin, format!("it is not JSON: {error}")))?;
    let listed = set["keys"]
        .as_array()
        .ok_or_else(|| unusable(origin, "it is not a key set: there is no list named keys"))?;
    let keys = listed.iter().take(MAX_KEYS).filter_map(from_jwk);
    let keys: Vec<Key> = keys.filter(|key| private || key.algorithm != Algorithm::HS256).collect();
    if keys.is_empty() {
        let count = listed.len();
        let problem = format!("none of its {count} keys can be used: RS256, ES256 and HS256 can");
        return Err(unusable(origin, problem));
    }
    Ok(keys)
}

fn from_jwk(value: &Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    let named = jwk.common.key_algorithm;
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) if fits(named, KeyAlgorithm::RS256) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key)
            if key.curve == EllipticCurve::P256 && fits(named, KeyAlgorithm::ES256) =>
        {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKey(_) if fits(named, KeyAlgorithm::HS256) => Algorithm::HS256,
        _ => return None,
    };
    if jwk.common.public_key_use.as_ref().is_some_and(|used| *used != PublicKeyUse::Signature) {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let key = Key { id: jwk.common.key_id, algorithm, key };
    key.check().ok()?;
    Some(key)
}

fn fits(named: Option<KeyAlgorithm>, wanted: KeyAlgorithm) -> bool {
    named.is_none_or(|named| named == wanted)
}

impl Key {
    /// Refuses a key with which every token would fail, or any token could pass.
    fn check(&self) -> Result<(), String> {
        let bytes = self.key.try_get_as_bytes().map_or(0, <[u8]>::len);
        match self.key.family() {
            AlgorithmFamily::Ec if bytes != 65 => {
                Err("the elliptic curve is not P-256, which ES256 needs".to_owned())
            }
            AlgorithmFamily::Hmac if bytes < MIN_SECRET => {
                Err(format!("the secret has fewer than {MIN_SECRET} bytes"))
            }
            _ => Ok(()),
        }
    }

    /// Whether a token with this header may be signed by it.
    pub fn may_sign(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        let named = match (&self.id, id) {
            (Some(own), Some(id)) => own == id,
            _ => true,
        };
        self.algorithm == algorithm && named
    }
}
