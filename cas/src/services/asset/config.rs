//! What may be downloaded, and what that may cost.

use std::path::PathBuf;

use kiln_net::Allowed;

use super::headers::CallerHeaders;

/// Limits of downloads.
#[derive(Debug, Clone, Default)]
pub struct FetchConfig {
    /// Empty: nothing is downloaded.
    pub allowed: Allowed,
    /// What callers may have sent with it.
    pub headers: CallerHeaders,
    /// The directory in which content lies until its digest is known.
    pub directory: PathBuf,
    /// Most bytes of one download, and of all that are under way.
    pub max_size: u64,
}
