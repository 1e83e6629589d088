//! When a schedule is due next.
//!
//! A time that a clock leaves out (it is put forward) is due as much later; one that comes twice (it is put back) is due the first
//! time alone, unless the schedule is one of every hour.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::field::{CronError, Sets, read};
use crate::model::Time;

/// Days that are looked through: there are eight years without a 29th of February.
const DAYS: usize = 9 * 366;
/// Characters of a time zone that a message repeats.
const SHOWN: usize = 100;

/// An expression in its time zone.
#[derive(Debug, Clone, PartialEq)]
pub struct Cron {
    text: String,
    sets: Sets,
    zone: TimeZone,
    zone_name: String,
}

impl Cron {
    /// Errors: also where no day ever fits, as the 30th of February.
    pub fn read(text: &str, zone: &str) -> Result<Self, CronError> {
        let sets = read(text)?;
        let unknown = |_| CronError::Zone(zone.chars().take(SHOWN).collect());
        let found = TimeZone::get(zone).map_err(unknown)?;
        let cron =
            Self { text: text.trim().to_owned(), sets, zone: found, zone_name: zone.to_owned() };
        cron.next(Time(0)).ok_or(CronError::Never)?;
        Ok(cron)
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn zone(&self) -> &str {
        &self.zone_name
    }

    /// The first time after another one at which it is due.
    pub fn next(&self, after: Time) -> Option<Time> {
        let after = Timestamp::from_millisecond(i64::try_from(after.0).ok()?).ok()?;
        // A day before: what a clock leaves out on one day may be due on the next one.
        let mut day = self.zone.to_datetime(after).date().yesterday().ok()?;
        for _ in 0..DAYS {
            if self.is_day(day)
                && let Some(due) = self.first_of(day, after)
            {
                return u64::try_from(due.as_millisecond()).ok().map(Time);
            }
            day = day.tomorrow().ok()?;
        }
        None
    }

    /// The last time up to `until` at which it is due after another one, however many there are between them.
    pub fn latest(&self, after: Time, until: Time) -> Option<Time> {
        let due = |at: Time| self.next(at).filter(|next| *next <= until);
        let mut last = due(after)?;
        // One alone, as a rule.
        if due(last).is_none() {
            return Some(last);
        }
        // As time goes on, what is due next never lies further back: so half of what is left is decided with each look.
        let (mut low, mut high) = (last.0, until.0);
        while low < high {
            let middle = low + (high - low) / 2;
            match due(Time(middle)) {
                Some(next) => (last, low) = (next, next.0),
                None => high = middle,
            }
        }
        Some(last)
    }

    /// If both fields of days say something, one of them has to fit.
    fn is_day(&self, day: Date) -> bool {
        let of_month = self.sets.day.has(day.day());
        let of_week = self.sets.weekday.has(day.weekday().to_sunday_zero_offset());
        let fits = match self.sets.day.is_any || self.sets.weekday.is_any {
            true => of_month && of_week,
            false => of_month || of_week,
        };
        fits && self.sets.month.has(day.month())
    }

    fn first_of(&self, day: Date, after: Timestamp) -> Option<Timestamp> {
        let hours = (0..24).filter(|hour| self.sets.hour.has(*hour));
        let minute = self.sets.minute;
        let minutes =
            move |hour: i8| (0..60).filter(move |it| minute.has(*it)).map(move |it| (hour, it));
        let times = hours.flat_map(minutes);
        let due = times.flat_map(|(hour, minute)| self.at(day, hour, minute));
        due.filter(|it| *it > after).min()
    }

    /// The moments at which clocks show a time on a day: none, one or two.
    fn at(&self, day: Date, hour: i8, minute: i8) -> impl Iterator<Item = Timestamp> + use<> {
        let shown = self.zone.to_ambiguous_timestamp(day.at(hour, minute, 0, 0));
        let again = match shown.offset() {
            AmbiguousOffset::Fold { .. } if self.sets.hour.is_any => shown.later().ok(),
            _ => None,
        };
        shown.compatible().ok().into_iter().chain(again)
    }
}
