//! The machine's clock, which anybody may set, and waiting until a moment that may never come.

use std::future::pending;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep_until};

/// Nanoseconds since the Unix epoch.
pub fn unix_nanos() -> i64 {
    i64::try_from(since_epoch().as_nanos()).unwrap_or(i64::MAX)
}

/// Milliseconds since the Unix epoch.
pub fn unix_millis() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since the Unix epoch.
pub fn unix_seconds() -> i64 {
    i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX)
}

/// A clock that stands before the epoch stands at it.
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Returns at `instant`, or never where that is `None`.
pub async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[test]
    fn all_units_say_the_same_time() {
        let (seconds, millis, nanos) = (unix_seconds(), unix_millis(), unix_nanos());
        assert!(seconds > 1_700_000_000, "{seconds}");
        let of_millis = i64::try_from(millis / 1_000).unwrap();
        assert!((seconds..seconds + 60).contains(&of_millis), "{millis}");
        assert!((seconds..seconds + 60).contains(&(nanos / 1_000_000_000)), "{nanos}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_moment_comes_or_never_does() {
        let (began, time) = (Instant::now(), Duration::from_secs(5));
        until(Some(began + time)).await;
        assert_eq!(began.elapsed(), time);
        timeout(time, until(None)).await.unwrap_err();
    }
}
