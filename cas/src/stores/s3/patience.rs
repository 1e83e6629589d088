//! Requests are repeated while the store is away.

use std::time::Duration;

use kiln_net::Backoff;
use tokio::time::Instant;

use crate::error::StoreError;

/// Between two requests of which the first found the store away: it may be back at any moment.
const PAUSE: Duration = Duration::from_secs(1);
const BACKOFF: Backoff = Backoff::new(PAUSE, PAUSE);

/// How long one request, which may be repeated, is repeated while the store is away. The SDK does
/// so for some seconds where connections are refused; a store that is started again takes longer.
pub struct Patience {
    until: Instant,
}

impl Patience {
    /// Repeats for so long from now on.
    pub fn new(patience: Duration) -> Self {
        Self { until: Instant::now() + patience }
    }

    /// What the request came to; `None`, after a pause: it is to be repeated.
    pub async fn judge<T>(&self, result: Result<T, StoreError>) -> Option<Result<T, StoreError>> {
        match result {
            Err(StoreError::Unavailable(reason))
                if self.until.duration_since(Instant::now()) > PAUSE =>
            {
                tracing::debug!(%reason, "S3 is away: a request is repeated");
                tokio::time::sleep(BACKOFF.pause(1)).await;
                None
            }
            result => Some(result),
        }
    }
}
