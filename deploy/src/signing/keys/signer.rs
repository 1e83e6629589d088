//! What signs: a key in this process, or a program that has one.

use super::public::PublicKey;

/// Signs bytes with one key. A signature is what [`PublicKey::verify`] of that key accepts.
pub trait Signer: Send + Sync {
    fn public_key(&self) -> &PublicKey;

    /// ECDSA: ASN.1 DER over SHA-256 of `message`. Ed25519: 64 bytes over `message` itself.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("the key refused to sign")]
    Refused,
    #[error("the program that signs failed")]
    Program(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("what the program printed is no signature by the key that it was said to have")]
    OtherKey,
}
