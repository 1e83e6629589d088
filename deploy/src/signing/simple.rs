//! cosign's older form of a signature: a small document that names an image, signed as it is, in the
//! layer of a manifest under the tag `sha256-….sig`. The signature is an annotation of the layer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::keys::{SignError, Signer};
use super::policy::{KeyRing, TrustedKey};
use crate::encoding::{base64, from_base64, is_hex};
use crate::json::{self, JsonError};

/// Media type of the layer.
pub const SIMPLE_SIGNING_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Annotation of the layer: the signature in base64.
pub const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
const SIGNATURE_KIND: &str = "cosign container image signature";
const MAX_BYTES: usize = 64 << 10;

/// The bytes of the layer and the value of its annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimpleSigning {
    pub payload: Vec<u8>,
    pub signature: String,
}

/// Why such a signature says nothing.
#[derive(Debug, thiserror::Error)]
pub enum SimpleError {
    #[error("the signed document cannot be read or written")]
    Json(#[from] JsonError),
    #[error("the annotation is no signature in base64")]
    Encoding,
    #[error("the signature is by none of the trusted keys, or what it signs was changed")]
    Untrusted,
    #[error("what is signed is {0:?}, and no image")]
    Kind(String),
    #[error("{0:?} is no digest of an image")]
    Digest(String),
    #[error("another image is signed: {0}")]
    Image(String),
    #[error("the document cannot be signed")]
    Sign(#[from] SignError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    critical: Critical,
    #[serde(default)]
    optional: Option<BTreeMap<String, Value>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

fn is_image(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|it| is_hex(it, 64))
        || digest.strip_prefix("sha512:").is_some_and(|it| is_hex(it, 128))
}

impl SimpleSigning {
    /// The document that is signed: `reference` without tag (`registry.example/app`), `image` as `sha256:…`.
    pub fn document(
        reference: &str,
        image: &str,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Vec<u8>, SimpleError> {
        if !is_image(image) {
            return Err(SimpleError::Digest(image.to_owned()));
        }
        let named = |(name, value): (&String, &String)| (name.clone(), value.clone().into());
        let optional: BTreeMap<_, _> = annotations.iter().map(named).collect();
        let document = Document {
            critical: Critical {
                identity: Identity { reference: reference.to_owned() },
                image: Image { digest: image.to_owned() },
                kind: SIGNATURE_KIND.to_owned(),
            },
            optional: (!optional.is_empty()).then_some(optional),
        };
        Ok(json::write(&document)?)
    }

    /// What a document says of the image beside. Errors: it is about something else.
    pub fn check(document: &[u8], image: &str) -> Result<BTreeMap<String, Value>, SimpleError> {
        let document: Document = json::read(document, MAX_BYTES)?;
        if document.critical.kind != SIGNATURE_KIND {
            return Err(SimpleError::Kind(document.critical.kind));
        }
        if document.critical.image.digest != image {
            return Err(SimpleError::Image(document.critical.image.digest));
        }
        Ok(document.optional.unwrap_or_default())
    }

    /// Signs an image: `reference` without tag (`registry.example/app`), `image` as `sha256:…`.
    pub fn sign(
        reference: &str,
        image: &str,
        annotations: &BTreeMap<String, String>,
        signer: &dyn Signer,
    ) -> Result<Self, SimpleError> {
        let payload = Self::document(reference, image, annotations)?;
        let signature = base64(&signer.sign(&payload)?);
        Ok(Self { payload, signature })
    }

    /// The key that signed the image, and what else it said of it.
    pub fn verify<'a>(
        &self,
        image: &str,
        keys: &'a KeyRing,
    ) -> Result<(&'a TrustedKey, BTreeMap<String, Value>), SimpleError> {
        let signature = from_base64(&self.signature).ok_or(SimpleError::Encoding)?;
        let signed = |key: &&TrustedKey| key.key.verify(&self.payload, &signature);
        let key = keys.named(None).find(signed).ok_or(SimpleError::Untrusted)?;
        Ok((key, Self::check(&self.payload, image)?))
    }
}
