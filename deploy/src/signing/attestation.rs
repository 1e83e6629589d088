//! A statement that a trusted key signed, out of whatever it was wrapped in.

use super::bundle::{Bundle, BundleError};
use super::dsse::{Envelope, EnvelopeError, IN_TOTO_TYPE};
use super::keys::Signer;
use super::policy::{KeyRing, TrustedKey};
use super::statement::{Statement, StatementError};
use crate::json::JsonError;
use crate::resource::DigestSet;

/// A statement and the key whose signature of it was verified. Whether the key could sign at that
/// time is asked of [`TrustedKey::accepts`], once it is known which time that was.
#[derive(Debug, Clone, PartialEq)]
pub struct Attestation<'a> {
    pub key: &'a TrustedKey,
    pub statement: Statement,
}

/// The first thing that is wrong with an attestation.
#[derive(Debug, thiserror::Error)]
pub enum AttestationError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error("the key is trusted, but what it signed is no statement")]
    Statement(#[from] StatementError),
    #[error("the statement is about something else")]
    Subject,
    #[error("the statement claims {found:?}, not {expected:?}")]
    PredicateType { expected: String, found: String },
    #[error("the attestation cannot be written")]
    Write(#[source] JsonError),
}

impl<'a> Attestation<'a> {
    /// Verifies a Sigstore bundle.
    pub fn from_bundle(data: &[u8], keys: &'a KeyRing) -> Result<Self, AttestationError> {
        Self::from_envelope(Bundle::read(data)?.envelope()?, keys)
    }

    /// Verifies an envelope: cosign's older form.
    pub fn from_envelope(envelope: &Envelope, keys: &'a KeyRing) -> Result<Self, AttestationError> {
        let (payload, key) = envelope.verify(IN_TOTO_TYPE, keys)?;
        Ok(Self { key, statement: Statement::read(payload)? })
    }

    /// Refuses a claim of another kind, or about other content.
    pub fn expect(self, predicate: &str, content: &DigestSet) -> Result<Self, AttestationError> {
        if self.statement.predicate_type != predicate {
            let (expected, found) = (predicate.to_owned(), self.statement.predicate_type);
            return Err(AttestationError::PredicateType { expected, found });
        }
        if !self.statement.is_about(content) {
            return Err(AttestationError::Subject);
        }
        Ok(self)
    }

    /// Signs a statement, as the bytes of a Sigstore bundle.
    pub fn sign(statement: &Statement, signer: &dyn Signer) -> Result<Vec<u8>, AttestationError> {
        let payload = statement.write().map_err(AttestationError::Write)?;
        let bundle = Bundle::sign(IN_TOTO_TYPE, payload, signer)?;
        bundle.write().map_err(AttestationError::Write)
    }
}
