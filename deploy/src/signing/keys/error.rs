//! What can be wrong with a key.

use crate::json::JsonError;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key is not in PEM: {0}")]
    Pem(String),
    #[error("{0:?} is no kind of key that is known here")]
    Label(String),
    #[error(
        "the key is in the older form of OpenSSL: convert it with `openssl pkcs8 -topk8 -in FILE`"
    )]
    Traditional,
    #[error("the key cannot be read: {0}")]
    Malformed(String),
    #[error("the key is neither ECDSA over P-256 nor Ed25519")]
    Algorithm,
    #[error("the key is encrypted and no passphrase was given")]
    NoPassphrase,
    #[error("the passphrase is wrong, or the key was damaged")]
    Passphrase,
    #[error("the encrypted key cannot be read")]
    Json(#[from] JsonError),
    #[error("the key is encrypted in a way that is not known here: {0}")]
    Encryption(String),
    #[error("no key could be made")]
    Generate,
    #[error("{0} is not set")]
    NoVariable(String),
    #[error("{source_name} cannot be read")]
    Read {
        source_name: String,
        #[source]
        source: std::io::Error,
    },
}
