//! Signatures that other people's tools verify: DSSE envelopes over in-toto Statements, in Sigstore
//! bundles and in cosign's older tag form, by keys that are valid for a time.
//!
//! One envelope has one signature. Two keys sign in two envelopes, so that each can be checked,
//! and later be dropped, by itself.

mod attestation;
mod bundle;
mod command;
mod dsse;
pub mod keys;
mod place;
mod policy;
mod simple;
mod statement;

pub use attestation::{Attestation, AttestationError};
pub use bundle::{BUNDLE_TYPE, Bundle, BundleError, MAX_BUNDLE_BYTES};
pub use command::{CommandError, Program, RunProgram, SignByCommand};
pub use dsse::{
    DSSE_TYPE, Envelope, EnvelopeError, IN_TOTO_TYPE, MAX_ENVELOPE_BYTES, MAX_PAYLOAD_BYTES, pae,
};
pub use keys::{KeyError, PublicKey, Scheme, SignError, Signer, SigningKey};
pub use place::{SignerError, signer};
pub use policy::{Evidence, KeyRefused, KeyRing, KeyRingError, TrustedKey};
pub use simple::{SIGNATURE_ANNOTATION, SIMPLE_SIGNING_TYPE, SimpleError, SimpleSigning};
pub use statement::{COSIGN_SIGN_PREDICATE, Statement, StatementError};

#[cfg(test)]
mod tests;
