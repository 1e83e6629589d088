//! Numbers, times and names for people.

use kiln_cas::Digest;
pub use kiln_net::clock::unix_nanos as now;
use kiln_net::urls;
use time::OffsetDateTime;

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

/// `1 worker`, `2 workers`: `one` with an s for more or none.
pub fn counted(number: u64, one: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{} {one}{end}", count(number))
}

/// A number with thin spaces between thousands.
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
    // 64 bits of nanoseconds end in the year 2262, which a date can be.
    let at = OffsetDateTime::from_unix_timestamp(at.div_euclid(1_000_000_000));
    let at = at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, time) = (at.date(), at.time());
    let (month, day) = (u8::from(date.month()), date.day());
    let (hour, minute, second) = time.as_hms();
    format!("{:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z", date.year())
}

/// `2026-11-23` of a day's number since the Unix epoch.
pub fn date(day: u64) -> String {
    let at = i64::try_from(day).unwrap_or(i64::MAX).saturating_mul(86_400_000_000_000);
    utc(at)[..10].to_owned()
}

/// `07:41` of nanoseconds since the Unix epoch, in UTC.
pub fn clock(at: i64) -> String {
    utc(at)[11..16].to_owned()
}

/// The text cut to `limit` characters, with an ellipsis where some are left out.
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

/// Encodes text for the path of an address: one segment, or several where `keep_slashes` is set.
pub fn encode(text: &str, keep_slashes: bool) -> String {
    if keep_slashes { urls::path(text).to_string() } else { urls::component(text).to_string() }
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

/// The address that Bazel is given for a server with this base URL.
pub fn grpc_address(base_url: &str) -> String {
    match base_url.split_once("://") {
        Some(("https", rest)) => format!("grpcs://{rest}"),
        Some((_, rest)) => format!("grpc://{rest}"),
        None => "grpc://localhost:8980".to_owned(),
    }
}

/// The address that Buck2 is given for a server with this base URL, and its setting `tls`: Buck2 refuses `grpcs://`, so
/// that the scheme says nothing of TLS.
pub fn buck2_address(base_url: &str) -> (String, bool) {
    let address = grpc_address(base_url);
    match address.strip_prefix("grpcs://") {
        Some(rest) => (format!("grpc://{rest}"), true),
        None => (address, false),
    }
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
    fn one_is_one() {
        assert_eq!(counted(1, "worker"), "1 worker");
        assert_eq!((counted(0, "blob"), counted(2, "blob")), ("0 blobs".into(), "2 blobs".into()));
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
    fn a_command_line_breaks_before_options() {
        let arguments = ["gcc", "-c", "a b.c", "-o", "x.o"].map(String::from);
        assert_eq!(command_line(&arguments, 9), "gcc \\\n  -c 'a b.c' \\\n  -o x.o");
    }
}
