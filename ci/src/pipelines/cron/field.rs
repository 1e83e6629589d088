//! The five fields of an expression: minute, hour, day of the month, month, day of the week.

/// Characters of an expression.
const MAX_LENGTH: usize = 300;
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    #[error("an expression has five fields (minute hour day month weekday), this has {0}")]
    Fields(usize),
    #[error(
        "an expression has at most {MAX_LENGTH} characters: use ranges and steps, or several triggers"
    )]
    TooLong,
    #[error("{0:?} is no {1}: expected *, numbers from {2} to {3}, ranges, lists and steps")]
    Field(String, &'static str, u8, u8),
    #[error("there is no time zone {0:?}; names are like Europe/Zurich")]
    Zone(String),
    #[error("no day of the next years fits")]
    Never,
}

/// The values of a field that fit, one bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    bits: u64,
    /// Whether the field begins with `*`: for days this says that the other field of days counts alone.
    pub is_any: bool,
}

impl Set {
    pub fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|at| at < u64::BITS && self.bits & (1 << at) != 0)
    }
}

/// What an expression says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sets {
    pub minute: Set,
    pub hour: Set,
    pub day: Set,
    pub month: Set,
    /// Days of the week, where Sunday is 0.
    pub weekday: Set,
}

pub fn read(text: &str) -> Result<Sets, CronError> {
    if text.len() > MAX_LENGTH {
        return Err(CronError::TooLong);
    }
    let text = match text.trim() {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        other => other,
    };
    let fields: Vec<_> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields[..] else {
        return Err(CronError::Fields(fields.len()));
    };
    Ok(Sets {
        minute: field(minute, "minute", (0, 59), &[])?,
        hour: field(hour, "hour", (0, 23), &[])?,
        day: field(day, "day of a month", (1, 31), &[])?,
        month: field(month, "month", (1, 12), &MONTHS)?,
        weekday: weekdays(weekday)?,
    })
}

/// 7 is Sunday as well.
fn weekdays(text: &str) -> Result<Set, CronError> {
    let mut set = field(text, "day of the week", (0, 7), &DAYS)?;
    if set.has(7) {
        set.bits = (set.bits | 1) & 0x7f;
    }
    Ok(set)
}

fn field(
    text: &str,
    what: &'static str,
    (low, high): (u8, u8),
    names: &[&str],
) -> Result<Set, CronError> {
    let wrong = || CronError::Field(text.to_owned(), what, low, high);
    let mut bits = 0u64;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((range, step)) => (range, Some(step.parse::<u8>().map_err(|_| wrong())?)),
        };
        let value = |text: &str| value(text, low, names).filter(|it| (low..=high).contains(it));
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (low, high),
            Some((first, last)) => {
                (value(first).ok_or_else(wrong)?, value(last).ok_or_else(wrong)?)
            }
            // `5/10` begins at 5.
            None => {
                let first = value(range).ok_or_else(wrong)?;
                (first, if step.is_some() { high } else { first })
            }
        };
        let step = step.unwrap_or(1);
        if step == 0 || first > last {
            return Err(wrong());
        }
        // `*` of weekdays has each of them once.
        (first..=last).step_by(usize::from(step)).for_each(|at| bits |= 1 << at);
    }
    Ok(Set { bits, is_any: text.starts_with('*') })
}

fn value(text: &str, low: u8, names: &[&str]) -> Option<u8> {
    let small = text.to_ascii_lowercase();
    let named = names.iter().position(|name| *name == small);
    let named = named.and_then(|at| u8::try_from(at).ok()).map(|at| at + low);
    let plain = || text.bytes().all(|it| it.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    named.or_else(plain)
}
