//! Points in time, as they are stored: passed in, never taken.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, by whatever clock the caller trusts.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Time(pub u64);

impl Time {
    const DAY: u64 = 24 * 60 * 60 * 1000;

    /// How long ago `earlier` was; nothing when it lies ahead, as it does after a clock ran backwards.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    pub fn plus(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// The number of the day, in UTC.
    pub fn day(self) -> u64 {
        self.0 / Self::DAY
    }
}
