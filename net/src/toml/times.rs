//! Times as declarations write them.

use std::time::Duration;

/// The longest time that a declaration may name: ten years.
const MAX_TIME: Duration = Duration::from_secs(3_650 * 86_400);

/// A time such as `10m`, of ten years at most.
pub fn parse_time(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let seconds = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let time = number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs);
    time.filter(|time| *time <= MAX_TIME)
}
