//! Sigstore bundles, version 0.3, over an envelope that a key signed. Bundles with certificates or
//! with a log's entries instead of a key are not Kiln's: it trusts keys that an operator names.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::dsse::{Envelope, EnvelopeError, MAX_ENVELOPE_BYTES};
use super::keys::Signer;
use crate::json::{self, JsonError};

/// The media type of bundles that Kiln writes.
pub const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// Bytes of a bundle: an envelope and what is around it.
pub const MAX_BUNDLE_BYTES: usize = MAX_ENVELOPE_BYTES + (1 << 20);

/// What others still write. With a key instead of a certificate they differ in nothing but the name.
const OLDER_TYPES: [&str; 3] = [
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
    "application/vnd.dev.sigstore.bundle+json;version=0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
];

/// A signed envelope with a hint at its key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bundle {
    media_type: String,
    verification_material: Material,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dsse_envelope: Option<Envelope>,
    #[serde(default, skip_serializing)]
    message_signature: Option<IgnoredAny>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Material {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_key: Option<Hint>,
    #[serde(default, skip_serializing)]
    certificate: Option<IgnoredAny>,
    #[serde(default, skip_serializing)]
    x509_certificate_chain: Option<IgnoredAny>,
    /// Some readers want the member to be there, empty as it is.
    #[serde(default)]
    tlog_entries: Vec<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp_verification_data: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hint {
    hint: String,
}

/// Why a bundle says nothing.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("the bundle cannot be read")]
    Json(#[from] JsonError),
    #[error("{0:?} is no Sigstore bundle that is known here")]
    MediaType(String),
    #[error("the bundle has a certificate where a key is expected")]
    Certificate,
    #[error("the bundle does not say what it is signed with")]
    NoKey,
    #[error("the bundle has no envelope: it signs bytes, not a statement")]
    NoEnvelope,
    #[error("the bundle has an envelope that is not accepted")]
    Envelope(#[from] EnvelopeError),
}

impl Bundle {
    /// Signs a payload of the given type.
    pub fn sign(
        payload_type: &str,
        payload: Vec<u8>,
        signer: &dyn Signer,
    ) -> Result<Self, BundleError> {
        let envelope = Envelope::sign(payload_type, payload, signer)?;
        Ok(Self::around(envelope, signer.public_key().id()))
    }

    fn around(envelope: Envelope, hint: String) -> Self {
        Self {
            media_type: BUNDLE_TYPE.to_owned(),
            verification_material: Material {
                public_key: Some(Hint { hint }),
                certificate: None,
                x509_certificate_chain: None,
                tlog_entries: Vec::new(),
                timestamp_verification_data: None,
            },
            dsse_envelope: Some(envelope),
            message_signature: None,
        }
    }

    /// A bundle around an envelope that was signed before. Errors: it does not name one key.
    pub fn of(envelope: Envelope) -> Result<Self, BundleError> {
        let hint = envelope.key()?.ok_or(BundleError::NoKey)?.to_owned();
        Ok(Self::around(envelope, hint))
    }

    /// Reads a bundle of at most [`MAX_BUNDLE_BYTES`] bytes; the signature is not verified yet.
    pub fn read(data: &[u8]) -> Result<Self, BundleError> {
        let bundle: Self = json::read(data, MAX_BUNDLE_BYTES)?;
        let known = [BUNDLE_TYPE].into_iter().chain(OLDER_TYPES);
        if !known.into_iter().any(|it| it == bundle.media_type) {
            return Err(BundleError::MediaType(bundle.media_type));
        }
        let material = &bundle.verification_material;
        if material.certificate.is_some() || material.x509_certificate_chain.is_some() {
            return Err(BundleError::Certificate);
        }
        if material.public_key.is_none() {
            return Err(BundleError::NoKey);
        }
        bundle.envelope()?.check_size()?;
        Ok(bundle)
    }

    pub fn write(&self) -> Result<Vec<u8>, JsonError> {
        json::write(self)
    }

    /// The envelope, to be verified. The hint at the key is not signed and decides nothing.
    pub fn envelope(&self) -> Result<&Envelope, BundleError> {
        let both = self.message_signature.is_some();
        self.dsse_envelope.as_ref().filter(|_| !both).ok_or(BundleError::NoEnvelope)
    }
}
