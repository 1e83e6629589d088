//! The store of a server, as the commands for blobs use it.

use kiln_cas::stores::RemoteStore;
use kiln_cas::{Digest, DigestFunction, StoreError};
use kiln_net::causes;

use crate::cli::error::CliError;

/// The store on the server, with errors as users read them.
pub struct Remote<'a> {
    pub store: RemoteStore,
    pub server: &'a str,
}

impl Remote<'_> {
    pub fn error(&self, error: StoreError) -> CliError {
        match error {
            StoreError::NotFound(digest) => CliError::not_found(format!(
                "the server has no blob {digest}"
            ))
            .hint("it was never uploaded, or removed after its lease; a build uploads it again"),
            StoreError::Unavailable(cause) => CliError::unreachable(self.server, cause.to_string()),
            StoreError::Denied(said) => CliError::answered(said.to_string()),
            StoreError::Io { .. } => CliError::of_machine(&error),
            error => CliError::answered(causes::chain(&error)),
        }
    }
}

/// A digest as `--json` prints it.
pub fn named(digest: &Digest) -> serde_json::Value {
    serde_json::json!({
        "digest_function": digest.function.to_string(),
        "hash": digest.hex(),
        "size_bytes": digest.size,
    })
}

pub fn parse_function(name: &str) -> Result<DigestFunction, String> {
    DigestFunction::ALL
        .into_iter()
        .find(|function| function.to_string() == name)
        .ok_or_else(|| "choose sha256 or blake3".to_owned())
}
