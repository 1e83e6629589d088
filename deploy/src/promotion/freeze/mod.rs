//! Times in which nothing is promoted: windows in the sense of RFC 5545, in a zone of the IANA database.

mod error;
mod recurrence;
mod rule;

use std::collections::BTreeSet;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::{Span, ZonedDateTime};

pub use self::error::FreezeError;
pub use self::recurrence::Recurrence;
pub use self::rule::{Rule, RuleError};
use crate::timestamp::Timestamp;

/// Days that one window lasts at most; so many days are looked at to know whether a moment is in one.
const MAX_DAYS: i64 = 366;
/// Hours of the same.
const MAX_HOURS: i64 = MAX_DAYS * 24;

/// How long a window lasts: days of the calendar keep the hour across a change of daylight saving time, hours do not (RFC
/// 5545, section 3.3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasts {
    Days(i64),
    Seconds(i64),
}

/// Windows of one name. Wherever one of them is, nothing is promoted.
#[derive(Debug, Clone)]
pub struct Freeze {
    pub name: String,
    pub reason: String,
    /// The environments that the freeze holds; `None`: all of them.
    pub environments: Option<BTreeSet<String>>,
    begins: Recurrence,
    lasts: Lasts,
}

/// When the windows of a freeze are, as a policy writes it.
#[derive(Debug, Clone, Default)]
pub struct Schedule<'a> {
    /// The time zone, such as `Europe/Berlin`.
    pub zone: &'a str,
    /// `2026-01-02T17:00`, in that zone.
    pub start: &'a str,
    /// How long a window lasts, such as `3d`, `63h` or `90m`.
    pub lasts: &'a str,
    pub rule: Option<&'a str>,
    /// Days of the zone on which no window begins: `2026-12-24`.
    pub except: Vec<&'a str>,
}

impl FromStr for Lasts {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(())?;
        let plain = number.len() <= 9 && number.bytes().all(|it| it.is_ascii_digit());
        let number: i64 = number.parse().ok().filter(|it| plain && *it > 0).ok_or(())?;
        let lasts = match unit {
            "d" => Self::Days(number),
            "h" => Self::Seconds(number * 3_600),
            "m" => Self::Seconds(number * 60),
            "s" => Self::Seconds(number),
            _ => return Err(()),
        };
        let fits = match lasts {
            Self::Days(days) => days <= MAX_DAYS,
            Self::Seconds(seconds) => seconds <= MAX_HOURS * 3_600,
        };
        fits.then_some(lasts).ok_or(())
    }
}

impl Lasts {
    /// Days of the calendar that it reaches over at most.
    fn reach(self) -> i64 {
        match self {
            Self::Days(days) => days,
            Self::Seconds(seconds) => seconds / 86_400 + 1,
        }
    }

    fn after(self, start: &ZonedDateTime) -> Option<ZonedDateTime> {
        let span = match self {
            Self::Days(days) => Span::new().days(days),
            Self::Seconds(seconds) => Span::new().seconds(seconds),
        };
        start.checked_add(span).ok()
    }
}

impl Freeze {
    pub fn new(name: &str, reason: &str, schedule: &Schedule<'_>) -> Result<Self, FreezeError> {
        let Schedule { zone, start, lasts, rule, except } = schedule;
        let begins = Recurrence::new(zone, start, *rule, except)?;
        let lasts = lasts.parse().map_err(|()| FreezeError::Lasts((*lasts).to_owned()))?;
        let (name, reason) = (name.to_owned(), reason.to_owned());
        Ok(Self { name, reason, environments: None, begins, lasts })
    }

    /// The end of the window that `at` is in; `None`: it is in none. Where windows overlap, the latest end.
    pub fn covers(&self, at: Timestamp) -> Option<Timestamp> {
        let moment = jiff::Timestamp::from_second(at.unix()).ok()?;
        let today = self.begins.day(moment);
        let ends = (0..=self.lasts.reach() + 1)
            .filter_map(|back| today.checked_sub(Span::new().days(back)).ok())
            .filter_map(|day| self.window(day))
            .filter(|(start, end)| *start <= moment && moment < *end)
            .map(|(_, end)| end);
        ends.max().map(|it| Timestamp::from_unix(it.as_second()))
    }

    /// The window that begins on this day of the zone.
    fn window(&self, day: Date) -> Option<(jiff::Timestamp, jiff::Timestamp)> {
        let start = self.begins.on(day)?;
        let end = self.lasts.after(&start)?;
        Some((start.timestamp(), end.timestamp()))
    }
}
