//! Reads keys from where they are kept: a file or an environment variable.

use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use super::error::KeyError;
use super::public::PublicKey;

/// A key in PEM, encrypted or not, is far smaller.
pub const MAX_KEY_BYTES: u64 = 64 << 10;

/// Names the place of a key; written `FILE` or `env:NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    File(PathBuf),
    Environment(String),
}

/// What a key is read from. A command passes the machine's, a test its own.
pub trait Secrets {
    /// The content of a file of at most `limit` bytes; more is an error.
    fn file(&self, path: &std::path::Path, limit: u64) -> io::Result<String>;
    fn variable(&self, name: &str) -> Option<String>;
}

impl FromStr for KeySource {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.strip_prefix("env:") {
            Some(name) => Self::Environment(name.to_owned()),
            None => Self::File(PathBuf::from(text)),
        })
    }
}

impl KeySource {
    /// The text of the key.
    pub fn read(&self, secrets: &dyn Secrets) -> Result<String, KeyError> {
        match self {
            Self::File(path) => secrets.file(path, MAX_KEY_BYTES).map_err(|source| {
                KeyError::Read { source_name: path.display().to_string(), source }
            }),
            Self::Environment(name) => {
                secrets.variable(name).ok_or_else(|| KeyError::NoVariable(name.clone()))
            }
        }
    }

    pub fn public_key(&self, secrets: &dyn Secrets) -> Result<PublicKey, KeyError> {
        PublicKey::from_pem(&self.read(secrets)?)
    }
}
