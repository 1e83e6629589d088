//! Times as runners write them: in seconds by the schema, in many ways in fact.

use std::borrow::Cow;
use std::time::Duration;

/// Longer than any test runs: what is above is a time of day or a mistake.
const LONGEST: f64 = 366.0 * 24.0 * 3600.0;

/// Reads times, and learns from those that leave no doubt how this report writes the others.
#[derive(Debug, Default)]
pub struct Times {
    /// A point has separated whole seconds from their parts.
    has_points: bool,
}

impl Times {
    /// Reads a time in seconds. `None` for what is missing, negative or no time at all.
    pub fn read(&mut self, text: &str) -> Option<Duration> {
        let text = text.trim();
        let (number, unit) = split_unit(text)?;
        self.has_points |= number.contains('.') && !number.contains(',');
        let seconds = plain(number, self.has_points)?.parse::<f64>().ok()? * unit;
        let is_time = (0.0..=LONGEST).contains(&seconds) && !text.starts_with('-');
        is_time.then(|| Duration::from_secs_f64(seconds))
    }
}

/// The number, and what its unit is in seconds.
fn split_unit(text: &str) -> Option<(&str, f64)> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.').map(|at| at + 1)?;
    let unit = match text[end..].trim() {
        "" | "s" | "sec" => 1.0,
        "ms" => 1e-3,
        // The micro sign and the Greek letter look alike.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
        "ns" => 1e-9,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Some((&text[..end], unit))
}

/// The number without separators of thousands, with a point before its parts.
fn plain(number: &str, has_points: bool) -> Option<Cow<'_, str>> {
    let digits = |c: char| c.is_ascii_digit() || matches!(c, '.' | ',' | '+' | '-' | 'e' | 'E');
    if !number.chars().all(digits) {
        return None;
    }
    let last = number.rfind([',', '.']);
    let Some((last, ',')) = last.map(|at| (at, char::from(number.as_bytes()[at]))) else {
        // `1,024.12`: commas stand before the point only.
        return Some(match number.contains(',') {
            true => number.replace(',', "").into(),
            false => number.into(),
        });
    };
    let (whole, rest) = (&number[..last], &number[last + 1..]);
    let groups = whole.split(',').skip(1).chain([rest]);
    let are_thousands = groups.clone().all(|group| group.len() == 3 && is_digits(group))
        && (1..=3).contains(&whole.split(',').next().unwrap_or_default().len())
        && !whole.starts_with('0')
        && !whole.contains('.');
    // `1,024` alone is a second and a bit where commas are decimal, and a thousand seconds where points
    // are: a time that long without parts is the rarer of the two.
    match are_thousands && (has_points || whole.contains(',')) {
        true => Some(number.replace(',', "").into()),
        false if whole.contains(',') => None,
        false => Some(format!("{}.{rest}", whole.replace('.', "")).into()),
    }
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<f64> {
        Times::default().read(text).map(|time| time.as_secs_f64())
    }

    #[test]
    fn times_are_read_as_they_occur() {
        for (text, seconds) in [
            ("0", 0.0),
            ("1.5", 1.5),
            (" 12 ", 12.0),
            (".25", 0.25),
            ("3.", 3.0),
            ("1,024.12", 1024.12),
            ("1,234,567.5", 1_234_567.5),
            ("1,234,567", 1_234_567.0),
            ("0,03", 0.03),
            ("1,024", 1.024),
            ("0,123", 0.123),
            ("1.024,12", 1024.12),
            ("80.803us", 80.803e-6),
            ("80.803\u{b5}s", 80.803e-6),
            ("12ms", 0.012),
            ("12 ms", 0.012),
            ("1.5s", 1.5),
            ("2m", 120.0),
            ("1e2", 100.0),
            ("1.5E-3", 0.0015),
        ] {
            let found = read(text).unwrap_or_else(|| panic!("{text:?} is a time"));
            assert!((found - seconds).abs() < 1e-9, "{text:?}: {found}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "-",
            "-1",
            "-0",
            "-0.5",
            "NaN",
            "nan",
            "inf",
            "infinity",
            "1e400",
            "1e12",
            "abc",
            "1.2.3",
            "12 parsecs",
            "1,2,3",
            "0x10",
            "\u{661}",
            "1,23,456",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_report_with_points_has_commas_between_thousands() {
        let mut times = Times::default();
        assert_eq!(times.read("0.034"), Some(Duration::from_millis(34)));
        assert_eq!(times.read("1,024"), Some(Duration::from_secs(1024)));
        assert_eq!(times.read("0,034"), Some(Duration::from_millis(34)));
    }
}
