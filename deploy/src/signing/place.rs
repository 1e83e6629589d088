//! What signs, in the place that somebody names: a private key, or the description of a program that has one.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::command::{Program, SignByCommand};
use super::keys::{KeyError, KeySource, MAX_KEY_BYTES, PublicKey, Secrets, Signer, SigningKey};
use crate::json::{self, JsonError};

/// Seconds that a program may take, where nothing is said, and at most.
const TIMEOUT: u64 = 30;
const MAX_TIMEOUT: u64 = 300;

/// Why nothing can be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("what is said of the program that signs cannot be read")]
    Json(#[from] JsonError),
    #[error("command names no program that signs")]
    Nothing,
    #[error("timeoutSeconds is to be between 1 and {MAX_TIMEOUT}")]
    Timeout,
    #[error("the publicKey of the program that signs cannot be used")]
    Public(#[source] KeyError),
}

/// A program that signs.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Described {
    /// The program and its arguments.
    command: Vec<String>,
    /// The public key in PEM.
    public_key: String,
    #[serde(default = "timeout")]
    timeout_seconds: u64,
}

fn timeout() -> u64 {
    TIMEOUT
}

/// Reads a private key in PEM, or in JSON which program signs. `passphrase`: the name of the variable that holds it, needed
/// if the key is encrypted.
pub fn signer(
    source: &KeySource,
    passphrase: &str,
    secrets: &dyn Secrets,
) -> Result<Arc<dyn Signer>, SignerError> {
    let text = source.read(secrets)?;
    if text.trim_ascii_start().starts_with('{') {
        return described(&text);
    }
    let passphrase = secrets.variable(passphrase);
    Ok(Arc::new(SigningKey::from_pem(&text, passphrase.as_deref())?))
}

fn described(text: &str) -> Result<Arc<dyn Signer>, SignerError> {
    let described: Described = json::read(text.as_bytes(), MAX_KEY_BYTES as usize)?;
    let Described { command: argv, public_key, timeout_seconds } = described;
    if argv.first().is_none_or(String::is_empty) {
        return Err(SignerError::Nothing);
    }
    if !(1..=MAX_TIMEOUT).contains(&timeout_seconds) {
        return Err(SignerError::Timeout);
    }
    let public = PublicKey::from_pem(&public_key).map_err(SignerError::Public)?;
    let program = Program { argv, timeout: Duration::from_secs(timeout_seconds) };
    Ok(Arc::new(SignByCommand::new(program, public)))
}
