//! Why forges cannot be set up.

use kiln_ci::forges::{ApiError, SecretError};

#[derive(Debug, thiserror::Error)]
pub enum ForgesError {
    #[error("forges.file: {0}")]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Api(#[from] ApiError),
}
