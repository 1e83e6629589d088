//! What may be downloaded, and what that may cost.

use std::path::PathBuf;
use std::time::Duration;

use kiln_net::Allowed;

use super::headers::CallerHeaders;

/// How long a web server may send nothing where nothing else is configured.
const IDLE: Duration = Duration::from_secs(60);

/// Limits of downloads.
#[derive(Debug, Clone)]
pub struct FetchConfig {
    /// Empty: nothing is downloaded.
    pub allowed: Allowed,
    /// What callers may have sent with it.
    pub headers: CallerHeaders,
    /// The directory in which content lies until its digest is known.
    pub directory: PathBuf,
    /// Most bytes of one download, and of all that are under way.
    pub max_size: u64,
    /// How long a web server may send nothing, before its answer and in it.
    pub idle: Duration,
}

impl Default for FetchConfig {
    fn default() -> Self {
        Self {
            allowed: Allowed::default(),
            headers: CallerHeaders::default(),
            directory: PathBuf::default(),
            max_size: 0,
            idle: IDLE,
        }
    }
}
