//! Moments of a zone that recur: on the days of a rule, at the hour of their start.

use std::collections::BTreeSet;
use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, ZonedDateTime};

use super::error::FreezeError;
use super::rule::{Rule, Until};

/// Days that are looked at for the next moment, or the last one.
const MAX_DAYS: i64 = 366;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recurrence {
    zone: TimeZone,
    start: DateTime,
    rule: Option<Rule>,
    except: BTreeSet<Date>,
}

impl Recurrence {
    /// `zone`: of the IANA database. `start`: `2026-01-02T17:00`, in that zone. `except`: days on which there is none.
    pub fn new(
        zone: &str,
        start: &str,
        rule: Option<&str>,
        except: &[&str],
    ) -> Result<Self, FreezeError> {
        let known = TimeZone::get(zone).map_err(|_| FreezeError::Zone(zone.to_owned()))?;
        // What names a zone of its own would be read without it.
        let local = |it: &&str| it.bytes().all(|it| it.is_ascii_digit() || b"-:T".contains(&it));
        let read = Some(start).filter(local).and_then(|it| it.parse().ok());
        let start: DateTime = read.ok_or_else(|| FreezeError::Start(start.to_owned()))?;
        let rule = rule.map(Rule::from_str).transpose()?;
        if rule.as_ref().is_some_and(|it| !it.is_on(start.date(), start.date())) {
            return Err(FreezeError::NotOfRule(start.date()));
        }
        let day = |text: &&str| text.parse().map_err(|_| FreezeError::Except((*text).to_owned()));
        let except = except.iter().map(day).collect::<Result<_, _>>()?;
        Ok(Self { zone: known, start, rule, except })
    }

    /// The day of the zone that a moment is in.
    pub fn day(&self, moment: jiff::Timestamp) -> Date {
        moment.to_zoned_datetime(self.zone.clone()).date()
    }

    /// The moment of a day of the zone; `None`: it has none.
    pub fn on(&self, day: Date) -> Option<ZonedDateTime> {
        let recurs = match &self.rule {
            None => day == self.start.date(),
            Some(rule) => rule.is_on(self.start.date(), day),
        };
        if !recurs || self.except.contains(&day) {
            return None;
        }
        let local = day.to_datetime(self.start.time());
        // A time that a day does not have is read with the offset before the gap, one that it has twice is the first
        // of both (RFC 5545, section 3.3.5).
        let moment = self.zone.to_ambiguous_zoned_datetime(local).compatible().ok()?;
        let until = self.rule.as_ref().and_then(|it| it.until);
        let over = match until {
            Some(Until::Day(last)) => day > last,
            Some(Until::Local(last)) => local > last,
            Some(Until::Utc(last)) => {
                moment.timestamp() > TimeZone::UTC.to_ambiguous_timestamp(last).compatible().ok()?
            }
            None => false,
        };
        (!over).then_some(moment)
    }

    /// Moments after one and not after another, of the last year before that; earliest first.
    pub fn between(&self, after: jiff::Timestamp, last: jiff::Timestamp) -> Vec<jiff::Timestamp> {
        let end = self.day(last);
        let year = end.checked_sub(Span::new().days(MAX_DAYS)).unwrap_or(Date::MIN);
        // One that a day does not have may be on the next.
        let first = self.day(after).yesterday().unwrap_or(Date::MIN).max(year);
        let mut moments = self.moments(first, end);
        moments.retain(|moment| *moment > after && *moment <= last);
        moments
    }

    /// The first moment after one, within a year.
    pub fn next(&self, after: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let first = self.day(after);
        let end = first.checked_add(Span::new().days(MAX_DAYS)).unwrap_or(Date::MAX);
        let moments = self.moments(first.yesterday().unwrap_or(Date::MIN), end);
        moments.into_iter().find(|moment| *moment > after)
    }

    fn moments(&self, first: Date, last: Date) -> Vec<jiff::Timestamp> {
        let days = std::iter::successors(Some(first), |day| day.tomorrow().ok());
        let days = days.take_while(|day| *day <= last);
        let mut moments: Vec<_> = days.filter_map(|day| Some(self.on(day)?.timestamp())).collect();
        // A zone may leave out a whole day.
        moments.dedup();
        moments
    }
}
