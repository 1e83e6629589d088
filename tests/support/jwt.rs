//! Makes and signs JWTs, good ones and forged ones.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use ring::{hmac, rsa};
use serde_json::{Value, json};

/// An issuer of JWTs, with the key that it signs by.
pub enum Signer {
    Hs256(Vec<u8>),
    Rs256(Box<RsaKeyPair>),
    Es256(Box<EcdsaKeyPair>),
}

impl Signer {
    pub fn hs256(secret: &[u8]) -> Self {
        Self::Hs256(secret.to_vec())
    }

    /// An issuer with RS256. The key is always the same, and nothing but tests uses it: ring cannot
    /// make RSA keys.
    pub fn rs256() -> Self {
        Self::Rs256(Box::new(RsaKeyPair::from_pkcs8(include_bytes!("rsa.p8")).expect("a key")))
    }

    /// An issuer with ES256 and a new key.
    pub fn es256() -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random);
        Self::Es256(Box::new(pair.expect("a key")))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Hs256(_) => "HS256",
            Self::Rs256(_) => "RS256",
            Self::Es256(_) => "ES256",
        }
    }

    /// Signs claims under a header that names the algorithm, and the key where `id` is its name.
    pub fn sign(&self, id: Option<&str>, claims: &Value) -> String {
        let mut header = json!({ "alg": self.name(), "typ": "JWT" });
        if let Some(id) = id {
            header["kid"] = id.into();
        }
        self.sign_with(&header, claims)
    }

    pub fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.signature(message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Hs256(secret) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                hmac::sign(&key, message).as_ref().to_vec()
            }
            Self::Rs256(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("it signs");
                signature
            }
            Self::Es256(pair) => pair.sign(&random, message).expect("it signs").as_ref().to_vec(),
        }
    }

    /// The public key as PEM; empty for a secret, which has none.
    pub fn public_pem(&self) -> String {
        let (label, der) = match self {
            Self::Hs256(_) => return String::new(),
            Self::Rs256(pair) => ("RSA PUBLIC KEY", pair.public().as_ref().to_vec()),
            Self::Es256(pair) => {
                // SubjectPublicKeyInfo of a point on P-256: this head, then the point.
                const HEAD: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
                let mut der: Vec<u8> = (0..HEAD.len())
                    .step_by(2)
                    .map(|at| u8::from_str_radix(&HEAD[at..at + 2], 16).expect("hexadecimal"))
                    .collect();
                der.extend(pair.public_key().as_ref());
                ("PUBLIC KEY", der)
            }
        };
        let text = STANDARD.encode(der);
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).expect("ASCII"))
            .collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    /// The public key, or the secret, as an entry of a key set (JWK) with this id.
    pub fn jwk(&self, id: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Hs256(secret) => json!({ "kty": "oct", "k": text(secret), "kid": id }),
            Self::Rs256(pair) => {
                let key: rsa::PublicKeyComponents<Vec<u8>> = pair.public().into();
                json!({ "kty": "RSA", "n": text(&key.n), "e": text(&key.e), "kid": id,
                    "use": "sig", "alg": "RS256" })
            }
            Self::Es256(pair) => {
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "x": text(&point[1..33]),
                    "y": text(&point[33..]), "kid": id })
            }
        }
    }
}
