//! Keys that commands are given.

use std::path::Path;
use std::sync::Arc;

use kiln_deploy::signing::keys::{KeySource, Secrets as _};
use kiln_deploy::signing::{KeyRing, Signer, signer};
use kiln_net::causes;

use crate::cli::error::CliError;
use crate::config::Machine;

/// Bytes of a key, or of a policy of keys.
const MAX_KEY_BYTES: u64 = 1 << 20;
/// The variable with the passphrase of an encrypted key.
pub const PASSPHRASE: &str = "KILN_RELEASE_PASSPHRASE";

/// Reads the text of a file, or of a variable where `env:NAME` is written.
fn text(path: &Path) -> Result<String, CliError> {
    let shown = path.display().to_string();
    match shown.strip_prefix("env:") {
        Some(name) => Machine.variable(name).ok_or_else(|| {
            CliError::usage(format!("{name} is not set"))
                .hint("env:NAME takes the key from a variable, a path takes it from a file")
        }),
        None => Machine
            .file(path, MAX_KEY_BYTES)
            .map_err(|error| CliError::usage(format!("cannot read {shown}: {error}"))),
    }
}

pub fn ring(path: &Path) -> Result<KeyRing, CliError> {
    given(path).map(|(ring, _)| ring)
}

/// Keys that are trusted, and the text that says so.
pub fn given(path: &Path) -> Result<(KeyRing, String), CliError> {
    let text = text(path)?;
    let ring = KeyRing::read(&path.display().to_string(), &text);
    Ok((ring.map_err(|error| unusable(path, &error))?, text))
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
