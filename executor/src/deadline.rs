//! Waiting until a moment that may never come.

use tokio::time::Instant;

/// Returns at `instant`, or never where that is `None`.
pub async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
