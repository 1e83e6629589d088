//! When drills begin by themselves, and what follows where one is overdue.

use std::time::Duration;

use crate::promotion::Recurrence;
use crate::releases::ReleaseName;
use crate::rollouts::machine::Millis;
use crate::toml::{Fields, TableError, time};

/// How late a drill may begin, where nothing else is said.
const LATE: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, Clone, PartialEq)]
pub struct Drilling {
    /// `None`: only people begin drills.
    pub schedule: Option<DrillSchedule>,
    /// Whether nothing is rolled out where a drill is overdue.
    pub blocks: bool,
}

/// When a drill begins, and with what.
#[derive(Debug, Clone, PartialEq)]
pub struct DrillSchedule {
    pub release: ReleaseName,
    /// How late a drill may begin; after that it is missed.
    pub late: Duration,
    recurrence: Recurrence,
}

/// Drills that should have begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// When the last one should have begun.
    pub at: Millis,
    /// How many others before the last one are missed.
    pub missed: usize,
}

fn moment(at: Millis) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(i64::try_from(at).ok()?).ok()
}

fn millis(moment: jiff::Timestamp) -> Millis {
    u64::try_from(moment.as_millisecond()).unwrap_or(0)
}

impl DrillSchedule {
    /// What is due now, where all until some moment are dealt with. A clock that was set back makes none due again.
    pub fn due(&self, until: Millis, now: Millis) -> Option<Due> {
        let moments = self.recurrence.between(moment(until)?, moment(now)?);
        let last = moments.last()?;
        Some(Due { at: millis(*last), missed: moments.len() - 1 })
    }

    /// When the next drill begins.
    pub fn next(&self, after: Millis) -> Option<Millis> {
        self.recurrence.next(moment(after)?).map(millis)
    }

    /// Whether it is too late to begin the drill that was due at `at`.
    pub fn is_late(&self, at: Millis, now: Millis) -> bool {
        let late = u64::try_from(self.late.as_millis()).unwrap_or(u64::MAX);
        now > at.saturating_add(late)
    }
}

/// Reads the table `[drill]`.
pub fn read(top: &Fields<'_>) -> Result<Drilling, TableError> {
    let Some(field) = top.get("drill") else {
        return Ok(Drilling { schedule: None, blocks: true });
    };
    let fields = field.fields()?;
    fields.only(&["release", "zone", "start", "rule", "late", "overdue"])?;
    let blocks = match fields.get("overdue") {
        None => true,
        Some(field) => match field.text()? {
            "block" => true,
            "say" => false,
            _ => return Err(field.error("expected block or say")),
        },
    };
    let named =
        ["release", "zone", "start", "rule", "late"].iter().any(|it| fields.get(it).is_some());
    let schedule = named.then(|| schedule(&fields)).transpose()?;
    Ok(Drilling { schedule, blocks })
}

fn schedule(fields: &Fields<'_>) -> Result<DrillSchedule, TableError> {
    let (zone, start) = (fields.need("zone")?, fields.need("start")?);
    let rule = fields.need("rule")?;
    let found = Recurrence::new(zone.text()?, start.text()?, Some(rule.text()?), &[]);
    let recurrence = found.map_err(|it| fields.error(kiln_net::causes::chain(&it).to_string()))?;
    Ok(DrillSchedule {
        release: fields.need("release")?.parsed(str::parse::<ReleaseName>)?,
        late: time(fields, "late")?.unwrap_or(LATE),
        recurrence,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::toml::document;

    const DAY: Millis = 86_400_000;

    fn of(text: &str) -> Result<Drilling, String> {
        document(text, read).map_err(|error| error.to_string())
    }

    fn nightly() -> DrillSchedule {
        let text = "[drill]\nrelease = \"team/app:drill\"\nzone = \"Europe/Berlin\"\nstart = \"2026-01-01T02:30\"\n\
                    rule = \"FREQ=DAILY\"";
        of(text).unwrap().schedule.unwrap()
    }

    fn at(text: &str) -> Millis {
        millis(text.parse().unwrap())
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert_eq!(of("").unwrap(), Drilling { schedule: None, blocks: true });
        assert!(!of("[drill]\noverdue = \"say\"").unwrap().blocks);
        let whole = "[drill]\nrelease = \"a:1\"\nzone = \"UTC\"\nstart = \"2026-01-06T10:00\"\nrule = \"FREQ=WEEKLY\"";
        assert!(of(whole).unwrap().schedule.is_some());
        for (from, to, part) in [
            ("UTC", "Mars", "no zone such as"),
            ("FREQ=WEEKLY", "FREQ=HOURLY", "is not supported"),
            ("2026-01-06T10:00", "tomorrow", "is no time such as"),
            ("a:1", "a", "release: "),
            ("zone = \"UTC\"\n", "", "zone is missing"),
            ("zone", "zne", "did you mean zone?"),
        ] {
            let error = of(&whole.replace(from, to)).unwrap_err();
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(of("[drill]\noverdue = \"no\"").unwrap_err().contains("expected block or say"));
    }

    #[test]
    fn an_hour_that_is_left_out_or_comes_twice_has_one_drill() {
        let drills = nightly();
        // Clocks go from 2:00 to 3:00 on 29 March, and from 3:00 to 2:00 on 25 October.
        for (day, moment) in [
            ("2026-03-28", "2026-03-28T01:30:00Z"),
            ("2026-03-29", "2026-03-29T01:30:00Z"),
            ("2026-03-30", "2026-03-30T00:30:00Z"),
            ("2026-10-25", "2026-10-25T00:30:00Z"),
            ("2026-10-26", "2026-10-26T01:30:00Z"),
        ] {
            let begins = at(&format!("{day}T00:00:00Z"));
            let due = drills.due(begins, begins + DAY - 1).unwrap();
            assert_eq!((due.at, due.missed), (at(moment), 0), "{day}");
            assert_eq!(drills.next(begins), Some(at(moment)), "{day}");
            assert_eq!(drills.due(due.at, begins + DAY - 1), None, "{day}: once");
        }
        assert!(drills.is_late(0, 3_600_001) && !drills.is_late(0, 3_600_000));
    }

    #[test]
    fn one_that_was_missed_is_counted_and_the_last_is_due() {
        let drills = nightly();
        let (monday, friday) = (at("2026-06-01T00:00:00Z"), at("2026-06-05T12:00:00Z"));
        let due = drills.due(monday, friday).unwrap();
        assert_eq!((due.at, due.missed), (at("2026-06-05T00:30:00Z"), 4));
        // After years away the server looks at the last one only.
        let late = drills.due(monday, friday + 4_000 * DAY).unwrap();
        assert!((365..=366).contains(&late.missed), "{late:?}");
    }

    proptest! {
        /// Whatever a clock does, each moment is due once or counted as missed, and none comes twice.
        #[test]
        fn none_is_due_twice(jumps in proptest::collection::vec(-3 * DAY as i64..6 * DAY as i64, 1..60)) {
            let drills = nightly();
            let begins = at("2026-03-20T12:00:00Z");
            let (mut now, mut until, mut seen) = (begins, begins, Vec::new());
            let mut dealt = 0;
            for jump in jumps {
                now = now.saturating_add_signed(jump).max(begins);
                if let Some(due) = drills.due(until, now) {
                    prop_assert!(due.at > until && due.at <= now);
                    seen.push(due.at);
                    dealt += due.missed + 1;
                    until = due.at;
                }
            }
            prop_assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
            let all = drills.recurrence.between(moment(begins).unwrap(), moment(until).unwrap());
            prop_assert_eq!(dealt, all.len());
        }
    }
}
