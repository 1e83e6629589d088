//! Keys that commands are given.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use kiln_deploy::signing::keys::KeySource;
use kiln_deploy::signing::{KeyRing, PublicKey, SigningKey};
use kiln_net::causes;

use crate::cli::error::CliError;
use crate::config::Machine;

/// Bytes of a key, or of a policy of keys.
const MAX_KEY_BYTES: u64 = 1 << 20;
/// The variable with the passphrase of an encrypted key.
pub const PASSPHRASE: &str = "KILN_RELEASE_PASSPHRASE";

fn text(path: &Path) -> Result<String, CliError> {
    let shown = path.display().to_string();
    let failed = |error| CliError::usage(format!("cannot read {shown}: {error}"));
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_KEY_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

pub fn ring(path: &Path) -> Result<KeyRing, CliError> {
    KeyRing::read(&path.display().to_string(), &text(path)?)
        .map_err(|error| CliError::usage(causes::chain(&error)))
}

pub fn public(path: &Path) -> Result<PublicKey, CliError> {
    PublicKey::from_pem(&text(path)?).map_err(|error| CliError::usage(causes::chain(&error)))
}

pub fn private(source: &KeySource) -> Result<SigningKey, CliError> {
    source.signing_key(PASSPHRASE, &Machine).map_err(|error| {
        CliError::usage(format!("the key cannot be used: {}", causes::chain(&error))).hint(format!(
            "docs/releases.md says how keys are made; {PASSPHRASE} has the passphrase of one"
        ))
    })
}
