//! Envelopes of the Dead Simple Signing Envelope protocol, version 1.

use serde::{Deserialize, Serialize};

use super::keys::{SignError, Signer};
use super::policy::{KeyRing, TrustedKey};
use crate::encoding::Base64;
use crate::json::{self, JsonError};

/// The payload type of in-toto Statements.
pub const IN_TOTO_TYPE: &str = "application/vnd.in-toto+json";
/// The media type of an envelope by itself: the layer of cosign's older attestations.
pub const DSSE_TYPE: &str = "application/vnd.dsse.envelope.v1+json";
/// Bytes of a payload. Provenance stays below a fourth of it.
pub const MAX_PAYLOAD_BYTES: usize = 4 << 20;
/// Bytes of an envelope: a payload in base64, with room for signatures.
pub const MAX_ENVELOPE_BYTES: usize = 6 << 20;
/// Signatures that are read, to say how many there are; one is accepted.
const MAX_SIGNATURES: usize = 16;

/// A payload with what it is, signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope {
    payload: Base64,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    sig: Base64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keyid: Option<String>,
}

/// Why an envelope says nothing.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    #[error("the envelope cannot be read")]
    Json(#[from] JsonError),
    #[error("the payload has {0} bytes, more than the {MAX_PAYLOAD_BYTES} that are allowed")]
    TooLarge(usize),
    #[error("the envelope has no signature")]
    Unsigned,
    #[error("the envelope has {0} signatures: one is expected, so that nothing unsigned hides")]
    Several(usize),
    #[error("the payload is of type {0:?}, not {IN_TOTO_TYPE:?}")]
    PayloadType(String),
    #[error("the signature names the key {0:?}, which is not among the trusted ones")]
    UnknownKey(String),
    #[error("the signature is by none of the trusted keys, or what it signs was changed")]
    Untrusted,
    #[error("the envelope cannot be signed")]
    Sign(#[from] SignError),
}

/// What is signed: type and body, each with its length in bytes, so that no other pair gives the same.
pub fn pae(payload_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), body.len());
    [head.as_bytes(), body].concat()
}

impl Envelope {
    /// Signs a payload. The signature names the key by its identifier, which all verifiers accept.
    pub fn sign(
        payload_type: &str,
        payload: Vec<u8>,
        signer: &dyn Signer,
    ) -> Result<Self, EnvelopeError> {
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(EnvelopeError::TooLarge(payload.len()));
        }
        let sig = Base64(signer.sign(&pae(payload_type, &payload))?);
        let signatures = vec![Signature { sig, keyid: Some(signer.public_key().id()) }];
        Ok(Self { payload: Base64(payload), payload_type: payload_type.to_owned(), signatures })
    }

    /// Reads an envelope of at most [`MAX_ENVELOPE_BYTES`] bytes; nothing is verified yet.
    pub fn read(data: &[u8]) -> Result<Self, EnvelopeError> {
        let envelope: Self = json::read(data, MAX_ENVELOPE_BYTES)?;
        envelope.check_size()?;
        Ok(envelope)
    }

    /// An envelope that came as a part of another document has the same bounds.
    pub(super) fn check_size(&self) -> Result<(), EnvelopeError> {
        match (self.payload.0.len(), self.signatures.len()) {
            (size, _) if size > MAX_PAYLOAD_BYTES => Err(EnvelopeError::TooLarge(size)),
            (_, many) if many > MAX_SIGNATURES => Err(EnvelopeError::Several(many)),
            _ => Ok(()),
        }
    }

    pub fn write(&self) -> Result<Vec<u8>, JsonError> {
        json::write(self)
    }

    /// What is said of the payload, verified or not.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The key that the one signature names.
    pub fn key(&self) -> Result<Option<&str>, EnvelopeError> {
        Ok(self.only_signature()?.keyid.as_deref())
    }

    /// The payload and the key that signed it. Whether that key could sign at that time is a question to
    /// [`TrustedKey::accepts`].
    pub fn verify<'a>(
        &self,
        expected_type: &str,
        keys: &'a KeyRing,
    ) -> Result<(&[u8], &'a TrustedKey), EnvelopeError> {
        let signature = self.only_signature()?;
        if self.payload_type != expected_type {
            return Err(EnvelopeError::PayloadType(self.payload_type.clone()));
        }
        let signed = pae(&self.payload_type, &self.payload.0);
        let named = signature.keyid.as_deref().filter(|it| !it.is_empty());
        let mut candidates = keys.named(named).peekable();
        if let (Some(name), None) = (named, candidates.peek()) {
            return Err(EnvelopeError::UnknownKey(name.to_owned()));
        }
        let key = candidates.find(|it| it.key.verify(&signed, &signature.sig.0));
        Ok((&self.payload.0, key.ok_or(EnvelopeError::Untrusted)?))
    }

    fn only_signature(&self) -> Result<&Signature, EnvelopeError> {
        match self.signatures.as_slice() {
            [only] => Ok(only),
            [] => Err(EnvelopeError::Unsigned),
            several => Err(EnvelopeError::Several(several.len())),
        }
    }
}
