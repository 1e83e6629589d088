//! A worker's settings for container images.

use std::path::PathBuf;
use std::time::Duration;

use super::allow::AllowList;

/// Which images a worker takes, and from where.
#[derive(Debug, Clone, Default)]
pub struct ImagesConfig {
    /// Which images actions may name. Where it is empty, no action that names one is offered to be run.
    pub allow: AllowList,
    /// Registries that may be spoken to without TLS: `HOST` or `HOST:PORT`. Loopback always may.
    pub insecure: Vec<String>,
    /// The path of a docker `config.json` with credentials for registries; `None`: there are none.
    pub auth_file: Option<PathBuf>,
    /// The path of a PEM file with authorities that are trusted besides the system's; `None`: no
    /// others.
    pub ca: Option<PathBuf>,
    pub limits: ImageLimits,
    pub timing: Timing,
}

#[derive(Debug, Clone)]
pub struct ImageLimits {
    /// Most bytes of all unpacked images together, and of one; images in use are kept beyond it.
    pub bytes: u64,
    /// Most entries of all layers of one image.
    pub entries: u64,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { bytes: 20 << 30, entries: 2_000_000 }
    }
}

/// How long a registry may take, and how often it is asked.
#[derive(Debug, Clone)]
pub struct Timing {
    pub connect: Duration,
    /// Longest time from a request to the head of its answer.
    pub answer: Duration,
    /// Longest time between two pieces of an answer.
    pub idle: Duration,
    /// Longest time for one pull, from beginning to end.
    pub pull: Duration,
    /// How often one request is tried.
    pub attempts: u32,
    /// The pause before the second attempt; each further one doubles it.
    pub first_pause: Duration,
    pub longest_pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            pull: Duration::from_secs(3600),
            attempts: 5,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(15),
        }
    }
}
