//! What goes wrong in the stores.

use kiln_ci::storage::StorageError;
use kiln_net::causes::chain;

/// In the words of the history; what caused it goes along in words.
pub fn unavailable(error: impl std::error::Error + 'static) -> StorageError {
    StorageError::Unavailable(chain(&error).to_string())
}
