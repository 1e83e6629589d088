//! Keys: ECDSA over P-256 with SHA-256, and Ed25519, as OpenSSL and cosign write them.

mod error;
mod private;
mod public;
mod secretbox;
mod signer;
mod source;

pub use error::KeyError;
pub use private::SigningKey;
pub use public::{PublicKey, Scheme};
pub use signer::{SignError, Signer};
pub use source::{KeySource, MAX_KEY_BYTES, Secrets};
