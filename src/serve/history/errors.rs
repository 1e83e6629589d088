//! Turns errors of the stores into those of the history.

use kiln_ci::storage::StorageError;
use kiln_net::causes::chain;

/// The history's error for a store that does not answer; the causes go along in words.
pub fn unavailable(error: impl std::error::Error + 'static) -> StorageError {
    StorageError::Unavailable(chain(&error).to_string())
}
