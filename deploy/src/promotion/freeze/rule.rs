//! Recurrence rules of RFC 5545, section 3.3.10, as far as days are concerned.
//!
//! A rule is asked whether it has an occurrence on a day; nothing is counted from its start on. So one question costs the
//! same however long ago that start was, and whatever the rule says. What would need counting (`COUNT`,
//! `BYSETPOS`), and what recurs within a day, is refused.

use std::str::FromStr;

use jiff::civil::{Date, DateTime, Weekday};

/// Entries of one list of a rule.
const MAX_LIST: usize = 64;
const MAX_INTERVAL: i64 = 1_000;
const MAX_TEXT: usize = 1_000;
const REFUSED: [&str; 9] = [
    "COUNT",
    "BYSETPOS",
    "BYYEARDAY",
    "BYWEEKNO",
    "BYHOUR",
    "BYMINUTE",
    "BYSECOND",
    "RSCALE",
    "SKIP",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frequency {
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

/// A weekday, or the n-th of a month or year; negative: from the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ByDay {
    ordinal: Option<i64>,
    day: Weekday,
}

/// The last moment at which a rule has an occurrence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    Day(Date),
    Local(DateTime),
    /// A moment in UTC, which ends with `Z`.
    Utc(DateTime),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    frequency: Frequency,
    interval: i64,
    pub(super) until: Option<Until>,
    by_day: Vec<ByDay>,
    by_month: Vec<i8>,
    by_month_day: Vec<i8>,
    week_start: Weekday,
}

/// Why a rule is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("a rule of {0} bytes; at most {MAX_TEXT} are taken: make several freezes of it")]
    TooLong(usize),
    #[error("{0:?} is no part of a rule such as FREQ=WEEKLY;BYDAY=FR")]
    Part(String),
    #[error("{0} is no part of a rule that is known (RFC 5545)")]
    Unknown(String),
    #[error(
        "{0} is not supported: say when it ends with UNTIL, and list days with BYDAY and BYMONTHDAY"
    )]
    Unsupported(String),
    #[error("{0} stands there twice")]
    Twice(String),
    #[error("FREQ is missing")]
    NoFrequency,
    #[error("FREQ={0} is not supported: DAILY, WEEKLY, MONTHLY and YEARLY are")]
    Frequency(String),
    #[error("{name}={value}: expected {expected}")]
    Value { name: &'static str, value: String, expected: &'static str },
    #[error("{0}")]
    Combination(&'static str),
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

fn weekday(text: &str) -> Option<Weekday> {
    Some(match text {
        "MO" => Weekday::Monday,
        "TU" => Weekday::Tuesday,
        "WE" => Weekday::Wednesday,
        "TH" => Weekday::Thursday,
        "FR" => Weekday::Friday,
        "SA" => Weekday::Saturday,
        "SU" => Weekday::Sunday,
        _ => return None,
    })
}

fn by_day(text: &str) -> Option<ByDay> {
    let (ordinal, day) = text.split_at_checked(text.len().checked_sub(2)?)?;
    let ordinal = match ordinal {
        "" => None,
        text => Some(text.parse().ok().filter(|it: &i64| *it != 0 && it.abs() <= 53)?),
    };
    Some(ByDay { ordinal, day: weekday(day)? })
}

fn list<T>(
    name: &'static str,
    value: &str,
    expected: &'static str,
    one: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, RuleError> {
    let wrong = || RuleError::Value { name, value: cut(value), expected };
    let parts: Vec<_> = value.split(',').take(MAX_LIST + 1).collect();
    if parts.len() > MAX_LIST {
        return Err(wrong());
    }
    parts.into_iter().map(|it| one(it).ok_or_else(wrong)).collect()
}

fn number(text: &str, most: i8, negative: bool) -> Option<i8> {
    let number: i8 = text.parse().ok()?;
    let fits = number != 0 && number.abs() <= most && (number > 0 || negative);
    fits.then_some(number)
}

fn until(text: &str) -> Option<Until> {
    if !text.bytes().all(|it| it.is_ascii_digit() || b"TZ".contains(&it)) {
        return None;
    }
    match text.strip_suffix('Z') {
        Some(utc) => utc.parse().ok().map(Until::Utc),
        None if text.contains('T') => text.parse().ok().map(Until::Local),
        None => text.parse().ok().map(Until::Day),
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text.len() > MAX_TEXT {
            return Err(RuleError::TooLong(text.len()));
        }
        let text = text.strip_prefix("RRULE:").unwrap_or(text).trim_end_matches(';');
        let mut seen: Vec<&str> = Vec::new();
        let mut frequency = None;
        let mut rule = Self {
            frequency: Frequency::Daily,
            interval: 1,
            until: None,
            by_day: Vec::new(),
            by_month: Vec::new(),
            by_month_day: Vec::new(),
            week_start: Weekday::Monday,
        };
        for part in text.split(';') {
            let (name, value) = part.split_once('=').ok_or_else(|| RuleError::Part(cut(part)))?;
            if seen.contains(&name) {
                return Err(RuleError::Twice(cut(name)));
            }
            seen.push(name);
            if name == "FREQ" {
                frequency = Some(read_frequency(value)?);
            } else {
                rule.set(name, value)?;
            }
        }
        rule.frequency = frequency.ok_or(RuleError::NoFrequency)?;
        rule.check()
    }
}

fn read_frequency(value: &str) -> Result<Frequency, RuleError> {
    match value {
        "DAILY" => Ok(Frequency::Daily),
        "WEEKLY" => Ok(Frequency::Weekly),
        "MONTHLY" => Ok(Frequency::Monthly),
        "YEARLY" => Ok(Frequency::Yearly),
        other => Err(RuleError::Frequency(cut(other))),
    }
}

impl Rule {
    fn set(&mut self, name: &str, value: &str) -> Result<(), RuleError> {
        let wrong = |name, expected| RuleError::Value { name, value: cut(value), expected };
        match name {
            "INTERVAL" => {
                let read = value.parse().ok().filter(|it| (1..=MAX_INTERVAL).contains(it));
                self.interval = read.ok_or_else(|| wrong("INTERVAL", "a number from 1 to 1000"))?;
            }
            "UNTIL" => {
                let expected = "a day or a time such as 20261231 or 20261231T235959Z";
                self.until = Some(until(value).ok_or_else(|| wrong("UNTIL", expected))?);
            }
            "WKST" => self.week_start = weekday(value).ok_or_else(|| wrong("WKST", "MO to SU"))?,
            "BYDAY" => self.by_day = list("BYDAY", value, "days such as MO or -1FR", by_day)?,
            "BYMONTH" => {
                self.by_month =
                    list("BYMONTH", value, "months from 1 to 12", |it| number(it, 12, false))?;
            }
            "BYMONTHDAY" => {
                let expected = "days from 1 to 31 or -31 to -1";
                self.by_month_day = list("BYMONTHDAY", value, expected, |it| number(it, 31, true))?;
            }
            name if REFUSED.contains(&name) => return Err(RuleError::Unsupported(cut(name))),
            name => return Err(RuleError::Unknown(cut(name))),
        }
        Ok(())
    }

    fn check(self) -> Result<Self, RuleError> {
        let ordinals = self.by_day.iter().any(|it| it.ordinal.is_some());
        let nth = matches!(self.frequency, Frequency::Monthly | Frequency::Yearly);
        if ordinals && !nth {
            return Err(RuleError::Combination(
                "BYDAY with a number, such as 1MO, goes with FREQ=MONTHLY and YEARLY alone",
            ));
        }
        if self.frequency == Frequency::Weekly && !self.by_month_day.is_empty() {
            return Err(RuleError::Combination("BYMONTHDAY does not go with FREQ=WEEKLY"));
        }
        Ok(self)
    }

    /// Whether there is an occurrence on `day`, of a rule that starts on `start`. `UNTIL` is not looked at: it is about moments.
    pub fn is_on(&self, start: Date, day: Date) -> bool {
        let in_month = self.by_month.is_empty() || self.by_month.contains(&day.month());
        day >= start && in_month && self.is_in_interval(start, day) && self.is_day(start, day)
    }

    fn is_in_interval(&self, start: Date, day: Date) -> bool {
        let apart = match self.frequency {
            Frequency::Daily => days(start, day),
            Frequency::Weekly => {
                days(week_of(start, self.week_start), week_of(day, self.week_start)) / 7
            }
            Frequency::Monthly => {
                i64::from(day.year() - start.year()) * 12 + i64::from(day.month() - start.month())
            }
            Frequency::Yearly => i64::from(day.year() - start.year()),
        };
        apart % self.interval == 0
    }

    fn is_day(&self, start: Date, day: Date) -> bool {
        let of_month = |it: &i8| {
            let day_of_month = if *it > 0 { *it } else { day.days_in_month() + 1 + *it };
            day_of_month == day.day()
        };
        let by_month_day = self.by_month_day.is_empty() || self.by_month_day.iter().any(of_month);
        let by_day = self.by_day.is_empty() || self.by_day.iter().any(|it| self.is_nth(*it, day));
        let unsaid = self.by_day.is_empty() && self.by_month_day.is_empty();
        let implied = match self.frequency {
            Frequency::Weekly => self.by_day.is_empty() && day.weekday() != start.weekday(),
            Frequency::Monthly => unsaid && day.day() != start.day(),
            Frequency::Yearly => {
                let other_month = self.by_month.is_empty() && day.month() != start.month();
                unsaid && (day.day() != start.day() || other_month)
            }
            Frequency::Daily => false,
        };
        by_month_day && by_day && !implied
    }

    fn is_nth(&self, by: ByDay, day: Date) -> bool {
        if by.day != day.weekday() {
            return false;
        }
        let Some(ordinal) = by.ordinal else { return true };
        // The n-th of the year, unless the months are named.
        let of_year = self.frequency == Frequency::Yearly && self.by_month.is_empty();
        let (at, all) = match of_year {
            true => (i64::from(day.day_of_year()), i64::from(day.days_in_year())),
            false => (i64::from(day.day()), i64::from(day.days_in_month())),
        };
        let from_start = (at - 1) / 7 + 1;
        let from_end = -((all - at) / 7 + 1);
        ordinal == if ordinal > 0 { from_start } else { from_end }
    }
}

/// Days from one to the other.
fn days(from: Date, to: Date) -> i64 {
    (to - from).get_days().into()
}

/// The first day of the week that `day` is in. Of the first week that there is the calendar's first day.
fn week_of(day: Date, start: Weekday) -> Date {
    let back = i64::from(start.until(day.weekday()));
    day.checked_sub(jiff::Span::new().days(back)).unwrap_or(Date::MIN)
}
