//! How long calls may take, and who is told of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::observe::Observer;

/// Terms of calls that are made together.
#[derive(Clone)]
pub(super) struct Terms {
    /// When the calls end at the latest, retries included.
    pub(super) deadline: Instant,
    /// A server that was silent for so long is taken for lost.
    pub(super) patience: Duration,
    pub(super) observer: Option<Arc<dyn Observer>>,
}
