//! Times as declarations write them.

use std::time::Duration;

use super::{Fields, TableError};

/// Ten years.
const MAX_TIME: Duration = Duration::from_secs(3_650 * 86_400);

/// A time such as `10m`; `None`: there is none.
pub fn time(fields: &Fields<'_>, key: &str) -> Result<Option<Duration>, TableError> {
    let Some(field) = fields.get(key) else { return Ok(None) };
    let read = parse_time(field.text()?).filter(|time| *time <= MAX_TIME);
    read.map(Some)
        .ok_or_else(|| field.error("expected a time like \"90s\", \"10m\", \"6h\" or \"7d\""))
}

fn parse_time(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let seconds = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}
