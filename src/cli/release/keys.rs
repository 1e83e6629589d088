//! Keys that commands are given.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use kiln_deploy::signing::keys::KeySource;
use kiln_deploy::signing::{KeyRing, PublicKey, Signer, signer};
use kiln_net::causes;

use crate::cli::error::CliError;
use crate::config::Machine;

/// Bytes of a key, or of a policy of keys.
const MAX_KEY_BYTES: u64 = 1 << 20;
/// The variable with the passphrase of an encrypted key.
pub const PASSPHRASE: &str = "KILN_RELEASE_PASSPHRASE";

/// What a file holds, or a variable where `env:NAME` is written.
fn text(path: &Path) -> Result<String, CliError> {
    let shown = path.display().to_string();
    if let Some(name) = shown.strip_prefix("env:") {
        return std::env::var(name).map_err(|_| CliError::usage(format!("{name} is not set")));
    }
    let failed = |error| CliError::usage(format!("cannot read {shown}: {error}"));
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_KEY_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

pub fn ring(path: &Path) -> Result<KeyRing, CliError> {
    KeyRing::read(&path.display().to_string(), &text(path)?).map_err(|error| unusable(path, &error))
}

pub fn public(path: &Path) -> Result<PublicKey, CliError> {
    PublicKey::from_pem(&text(path)?).map_err(|error| unusable(path, &error))
}

fn unusable(path: &Path, error: &(dyn std::error::Error + 'static)) -> CliError {
    let message = format!("{} cannot be used: {}", path.display(), causes::chain(error));
    CliError::usage(message)
        .hint("docs/releases.md (Keys) says what is read; several keys stand in a policy")
}

pub fn private(source: &KeySource) -> Result<Arc<dyn Signer>, CliError> {
    signer(source, PASSPHRASE, &Machine).map_err(|error| {
        CliError::usage(format!("the key cannot be used: {}", causes::chain(&error))).hint(format!(
            "docs/releases.md says how keys are made; {PASSPHRASE} has the passphrase of one"
        ))
    })
}
