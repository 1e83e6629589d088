//! Numbers, times and names for people.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_cas::Digest;

const SECOND: u64 = 1_000_000_000;
/// Longest argument shown, in characters.
const MAX_ARGUMENT: usize = 4000;

/// `850 µs`, `12.3 ms`, `4.20 s`, `3 m 05 s`, `2 h 04 m`.
pub fn duration(nanos: u64) -> String {
    let value = nanos as f64;
    match nanos {
        0 => "0".to_owned(),
        1..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.0} µs", value / 1e3),
        1_000_000..10_000_000 => format!("{:.1} ms", value / 1e6),
        10_000_000..SECOND => format!("{:.0} ms", value / 1e6),
        _ if nanos < 10 * SECOND => format!("{:.2} s", value / 1e9),
        _ if nanos < 60 * SECOND => format!("{:.1} s", value / 1e9),
        _ if nanos < 3600 * SECOND => {
            let seconds = nanos / SECOND;
            format!("{} m {:02} s", seconds / 60, seconds % 60)
        }
        _ => {
            let minutes = nanos / (60 * SECOND);
            format!("{} h {:02} m", minutes / 60, minutes % 60)
        }
    }
}

/// `512 B`, `4.0 KiB`, `1.3 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 10.0 {
        format!("{value:.1} {}", UNITS[unit])
    } else {
        format!("{value:.0} {}", UNITS[unit])
    }
}

/// With thin spaces between thousands.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// `97.4 %`; never rounded up to 100.
pub fn percent(share: f64) -> String {
    let tenths = (share * 1000.0).floor() / 10.0;
    if tenths >= 100.0 { "100 %".to_owned() } else { format!("{tenths:.1} %") }
}

/// Nanoseconds since the Unix epoch.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// `just now`, `4 min ago`, `3 h ago`, `2 d ago`.
pub fn ago(at: i64, now: i64) -> String {
    let seconds = now.saturating_sub(at).max(0) / 1_000_000_000;
    match seconds {
        0..5 => "just now".to_owned(),
        5..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// `2026-11-23 07:41:08Z` of nanoseconds since the Unix epoch.
pub fn utc(at: i64) -> String {
    let seconds = at.div_euclid(1_000_000_000);
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// `07:41` of nanoseconds since the Unix epoch, in UTC.
pub fn clock(at: i64) -> String {
    utc(at)[11..16].to_owned()
}

/// Year, month and day of days since 1970-01-01 in the Gregorian calendar, which repeats
/// every 400 years (146,097 days). Years are counted from March, so that leap days come last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// At most `limit` characters, with an ellipsis where some are left out.
pub fn short(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// The first characters of an invocation id or a hash.
pub fn abbreviated(text: &str) -> String {
    match text.char_indices().nth(12) {
        Some(_) => text.chars().take(8).collect(),
        None => text.to_owned(),
    }
}

/// One segment, or with `keep_slashes` several, of a path in an address.
pub fn encode(text: &str, keep_slashes: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if plain || (keep_slashes && byte == b'/') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// `{function}/{hash}/{size}`: how pages name a blob.
pub fn path_of(digest: &Digest) -> String {
    format!("{}/{}/{}", digest.function, digest.hex(), digest.size)
}

/// An argument as a shell would need it.
pub fn shell(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%^".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

/// The first `limit` arguments, ready to be copied, one option a line.
pub fn command_line(arguments: &[String], limit: usize) -> String {
    let mut text = String::new();
    for (i, argument) in arguments.iter().take(limit).enumerate() {
        if i > 0 {
            // An option begins a line; its value stays beside it.
            text.push_str(if argument.starts_with('-') { " \\\n  " } else { " " });
        }
        text.push_str(&shell(&short(argument, MAX_ARGUMENT)));
    }
    text
}

/// Without the escape sequences that colour a terminal.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        // A control sequence ends with its first letter.
        let end = after.find(|c: char| ('@'..='~').contains(&c));
        rest = end.map_or("", |end| &after[end + 1..]);
    }
    plain.push_str(rest);
    plain.retain(|c| c == '\n' || c == '\t' || !c.is_control());
    plain
}

/// `google.rpc.Code` in plain words.
pub fn code_name(code: i32) -> &'static str {
    const NAMES: [&str; 17] = [
        "ok",
        "cancelled",
        "unknown error",
        "invalid argument",
        "timed out",
        "not found",
        "already exists",
        "permission denied",
        "resource exhausted",
        "failed precondition",
        "aborted",
        "out of range",
        "unimplemented",
        "internal error",
        "unavailable",
        "data loss",
        "unauthenticated",
    ];
    usize::try_from(code).ok().and_then(|code| NAMES.get(code)).copied().unwrap_or("error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        assert_eq!(duration(850_000), "850 µs");
        assert_eq!(duration(12_345_678), "12 ms");
        assert_eq!(duration(4_200_000_000), "4.20 s");
        assert_eq!(duration(185 * SECOND), "3 m 05 s");
        assert_eq!(utc(1_795_419_668_000_000_000), "2026-11-23 07:41:08Z");
        assert_eq!(utc(951_782_400_000_000_000), "2000-02-29 00:00:00Z");
        assert_eq!(utc(-1), "1969-12-31 23:59:59Z");
        assert_eq!(clock(1_795_419_668_000_000_000), "07:41");
    }

    #[test]
    fn numbers_are_readable_and_never_flatter() {
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(bytes(1_400_000_000), "1.3 GiB");
        assert_eq!(percent(0.99999), "99.9 %");
        assert_eq!(percent(1.0), "100 %");
    }

    #[test]
    fn arguments_survive_a_shell() {
        assert_eq!(shell("-O2"), "-O2");
        assert_eq!(shell("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(shell(""), "''");
        assert_eq!(encode("a/b c?", true), "a/b%20c%3F");
        assert_eq!(encode("a/b", false), "a%2Fb");
    }

    #[test]
    fn colours_of_terminals_are_left_out() {
        assert_eq!(plain("\u{1b}[1;31merror:\u{1b}[0m x\r\n\ty\u{7}"), "error: x\n\ty");
        assert_eq!(plain("cut \u{1b}[3"), "cut ");
    }

    #[test]
    fn a_command_line_breaks_before_options() {
        let arguments = ["gcc", "-c", "a b.c", "-o", "x.o"].map(String::from);
        assert_eq!(command_line(&arguments, 9), "gcc \\\n  -c 'a b.c' \\\n  -o x.o");
    }
}
