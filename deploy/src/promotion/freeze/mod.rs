//! Times in which nothing is promoted: windows in the sense of RFC 5545, in a zone of the IANA database.

mod rule;

use std::collections::BTreeSet;
use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, ZonedDateTime};

pub use self::rule::{Rule, RuleError, Until};
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
    /// Where it holds; `None`: everywhere.
    pub environments: Option<BTreeSet<String>>,
    zone: TimeZone,
    start: DateTime,
    lasts: Lasts,
    rule: Option<Rule>,
    except: BTreeSet<Date>,
}

/// When windows are.
#[derive(Debug, Clone, Default)]
pub struct Schedule<'a> {
    /// `Europe/Berlin`.
    pub zone: &'a str,
    /// `2026-01-02T17:00`, in that zone.
    pub start: &'a str,
    /// `3d`, `63h`, `90m`.
    pub lasts: &'a str,
    pub rule: Option<&'a str>,
    /// Days of the zone on which no window begins: `2026-12-24`.
    pub except: Vec<&'a str>,
}

/// Why there is no such window.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    #[error("zone: {0:?} is no zone such as Europe/Berlin or UTC")]
    Zone(String),
    #[error("start: {0:?} is no time such as 2026-01-02T17:00, which is of the zone")]
    Start(String),
    #[error("lasts: {0:?} is no time such as 90m, 63h or 3d; at most 366 days")]
    Lasts(String),
    #[error("rule")]
    Rule(#[from] RuleError),
    #[error("start: {0} is no day of the rule")]
    NotOfRule(Date),
    #[error("except: {0:?} is no day such as 2026-12-24")]
    Except(String),
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
        let zone = schedule.zone;
        let known = TimeZone::get(zone).map_err(|_| FreezeError::Zone(zone.to_owned()))?;
        // What names a zone of its own would be read without it.
        let local = |it: &&str| it.bytes().all(|it| it.is_ascii_digit() || b"-:T".contains(&it));
        let start = Some(schedule.start).filter(local).and_then(|it| it.parse().ok());
        let start: DateTime = start.ok_or_else(|| FreezeError::Start(schedule.start.to_owned()))?;
        let lasts =
            schedule.lasts.parse().map_err(|()| FreezeError::Lasts(schedule.lasts.to_owned()))?;
        let rule = schedule.rule.map(Rule::from_str).transpose()?;
        if rule.as_ref().is_some_and(|it| !it.is_on(start.date(), start.date())) {
            return Err(FreezeError::NotOfRule(start.date()));
        }
        let day = |text: &&str| text.parse().map_err(|_| FreezeError::Except((*text).to_owned()));
        let except = schedule.except.iter().map(day).collect::<Result<_, _>>()?;
        let (name, reason) = (name.to_owned(), reason.to_owned());
        Ok(Self { name, reason, environments: None, zone: known, start, lasts, rule, except })
    }

    /// The end of the window that `at` is in; `None`: it is in none. Where windows overlap, the latest end.
    pub fn covers(&self, at: Timestamp) -> Option<Timestamp> {
        let moment = jiff::Timestamp::from_second(at.unix()).ok()?;
        let today = moment.to_zoned_datetime(self.zone.clone()).date();
        let ends = (0..=self.lasts.reach() + 1)
            .filter_map(|back| today.checked_sub(Span::new().days(back)).ok())
            .filter_map(|day| self.window(day))
            .filter(|(start, end)| *start <= moment && moment < *end)
            .map(|(_, end)| end);
        ends.max().map(|it| Timestamp::from_unix(it.as_second()))
    }

    /// The window that begins on this day of the zone.
    fn window(&self, day: Date) -> Option<(jiff::Timestamp, jiff::Timestamp)> {
        let begins = match &self.rule {
            None => day == self.start.date(),
            Some(rule) => rule.is_on(self.start.date(), day),
        };
        if !begins || self.except.contains(&day) {
            return None;
        }
        let local = day.to_datetime(self.start.time());
        // A time that a day does not have is read with the offset before the gap, one that it has twice is the first
        // of both (RFC 5545, section 3.3.5).
        let start = self.zone.to_ambiguous_zoned_datetime(local).compatible().ok()?;
        let until = self.rule.as_ref().and_then(|it| it.until);
        let over = match until {
            Some(Until::Day(last)) => day > last,
            Some(Until::Local(last)) => local > last,
            Some(Until::Utc(last)) => {
                start.timestamp() > TimeZone::UTC.to_ambiguous_timestamp(last).compatible().ok()?
            }
            None => false,
        };
        let end = self.lasts.after(&start)?;
        (!over).then(|| (start.timestamp(), end.timestamp()))
    }
}
