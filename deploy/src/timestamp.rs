//! Moments, as documents name them (RFC 3339, always in UTC).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// A time in seconds since the Unix epoch. Signatures and releases need no finer clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(i64);

/// A text that is no moment in the years 0 to 9999.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time such as 2026-01-31T12:00:00Z")]
pub struct NotATime(pub String);

impl Timestamp {
    /// A moment before the year 0 or after 9999 cannot be written and becomes the nearest that can.
    pub fn from_unix(seconds: i64) -> Self {
        const FIRST: i64 = -62_167_219_200;
        const LAST: i64 = 253_402_300_799;
        Self(seconds.clamp(FIRST, LAST))
    }

    /// The time in seconds since the Unix epoch.
    pub fn unix(self) -> i64 {
        self.0
    }

    /// The moment `seconds` later.
    pub fn plus(self, seconds: i64) -> Self {
        Self::from_unix(self.0.saturating_add(seconds))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = OffsetDateTime::from_unix_timestamp(self.0).map_err(|_| fmt::Error)?;
        f.write_str(&moment.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Timestamp {
    type Err = NotATime;

    /// Parts of a second are dropped.
    fn from_str(text: &str) -> Result<Self, NotATime> {
        let moment =
            OffsetDateTime::parse(text, &Rfc3339).map_err(|_| NotATime(text.to_owned()))?;
        Ok(Self::from_unix(moment.to_offset(UtcOffset::UTC).unix_timestamp()))
    }
}

impl TryFrom<String> for Timestamp {
    type Error = NotATime;

    fn try_from(text: String) -> Result<Self, NotATime> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(moment: Timestamp) -> Self {
        moment.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_in_any_zone_and_written_in_utc() {
        let moment: Timestamp = "2026-01-01T01:30:00.75+01:30".parse().unwrap();
        assert_eq!(moment.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(moment.unix(), 1_767_225_600);
        assert!("2026-01-01".parse::<Timestamp>().is_err());
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    #[test]
    fn what_cannot_be_written_is_the_nearest_that_can() {
        assert_eq!(Timestamp::from_unix(i64::MAX).to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(Timestamp::from_unix(i64::MIN).to_string(), "0000-01-01T00:00:00Z");
        assert_eq!(Timestamp::from_unix(0).plus(i64::MIN), Timestamp::from_unix(i64::MIN));
    }
}
