//! Time, which is passed in.

use std::sync::Arc;
use std::time::Duration;

/// Answers with the time in nanoseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The number of a day, counted from the Unix epoch.
pub(super) fn day(nanoseconds: i64) -> u32 {
    u32::try_from(nanoseconds.div_euclid(DAY.as_nanos() as i64)).unwrap_or(0)
}
