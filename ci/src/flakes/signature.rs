//! What a failure looks like, without what differs each time.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What comes later in a message or trace does not count.
const MAX_BYTES: usize = 16 * 1024;
const MAX_LINES: usize = 64;

/// Directories of temporary files; what is below has names that nobody sees twice.
const TEMPORARY: [&str; 6] =
    ["/tmp/", "/var/tmp/", "/var/folders/", "/private/", "/dev/shm/", "/run/user/"];
const UNITS: [&str; 14] =
    ["ns", "us", "ms", "s", "sec", "m", "min", "h", "b", "kb", "mb", "gb", "kib", "mib"];
const NAMES_OF_TIME: [&str; 19] = [
    "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "Jan", "Feb", "Mar", "Apr", "May", "Jun",
    "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Equal for failures whose message and trace differ in numbers, addresses, times and temporary paths alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signature(u64);

impl Signature {
    /// The signature of a failure's message and trace; `None` when there is no text to go by.
    pub fn of(text: &str) -> Option<Self> {
        let text = normalised(text);
        if text.is_empty() {
            return None;
        }
        let hash = blake3::derive_key("kiln 2026 signature of a failure", text.as_bytes());
        let mut short = [0; 8];
        short.copy_from_slice(&hash[..8]);
        Some(Self(u64::from_be_bytes(short)))
    }

    /// The signature as it is stored.
    pub fn bits(self) -> u64 {
        self.0
    }

    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Signature({self})")
    }
}

/// The text that is hashed: numbers are `0`, long hexadecimal ones `#`, temporary paths `<tmp>`, other
/// absolute paths their last part.
fn normalised(text: &str) -> String {
    let text = without_colours(cut(text));
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = line_of(line);
        if !line.is_empty() {
            lines.push(line);
        }
        if lines.len() == MAX_LINES {
            break;
        }
    }
    lines.join("\n")
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_BYTES)]
}

/// Leaves out escape sequences (`ESC [ ... letter`) and other control characters but line feeds and tabs.
fn without_colours(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(it) = characters.next() {
        if it == '\u{1b}' {
            if characters.next_if_eq(&'[').is_some() {
                while characters.next().is_some_and(|it| !('@'..='~').contains(&it)) {}
            }
        } else if it == '\n' || it == '\t' || !it.is_control() {
            out.push(it);
        }
    }
    out
}

fn line_of(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for word in line.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        for token in word.split_inclusive(is_delimiter) {
            let bare = token.trim_end_matches(is_delimiter);
            token_of(bare, &mut out);
            out.push_str(&token[bare.len()..]);
        }
    }
    numbers_joined(&out)
}

fn is_delimiter(it: char) -> bool {
    "()[]{}<>\"'`,;=|".contains(it)
}

fn token_of(token: &str, out: &mut String) {
    let path = token.strip_prefix("file://").unwrap_or(token);
    let drive = path.get(1..3).is_some_and(|it| it == ":\\" || it == ":/");
    if TEMPORARY.iter().any(|it| path.starts_with(it)) || (drive && path.contains("Temp")) {
        out.push_str("<tmp>");
    } else if path.starts_with('/') || drive {
        scrubbed(path.rsplit(['/', '\\']).next().unwrap_or_default(), out);
    } else {
        scrubbed(token, out);
    }
}

/// Takes the numbers out of each run of letters and digits.
fn scrubbed(token: &str, out: &mut String) {
    let mut rest = token;
    while let Some(first) = rest.chars().next() {
        if let Some(behind) = behind_uuid(rest) {
            out.push('#');
            rest = behind;
            continue;
        }
        let length = rest.find(|it: char| !it.is_alphanumeric()).unwrap_or(rest.len());
        if length == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        run_of(&rest[..length], out);
        rest = &rest[length..];
    }
}

/// What follows an id written as 8-4-4-4-12 hexadecimal digits, where the text begins with one.
fn behind_uuid(text: &str) -> Option<&str> {
    const LENGTH: usize = 36;
    let (uuid, behind) = text.split_at_checked(LENGTH)?;
    let fits = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    uuid.bytes().enumerate().all(fits).then_some(behind)
}

/// Whether letters and digits alternate as they do in hashes and addresses, and do not in `case10000000`.
fn looks_random(run: &str) -> bool {
    let digits: Vec<_> = run.bytes().map(|it| it.is_ascii_digit()).collect();
    run.len() >= 8 && digits.windows(2).filter(|it| it[0] != it[1]).count() > 1
}

fn run_of(run: &str, out: &mut String) {
    let hex = |it: &str| it.bytes().all(|it| it.is_ascii_hexdigit());
    let unit = run.trim_start_matches(|it: char| it.is_ascii_digit());
    if run.strip_prefix("0x").is_some_and(hex) || (looks_random(run) && hex(run)) {
        out.push('#');
    } else if NAMES_OF_TIME.contains(&run) || is_number(run, unit) {
        out.push('0');
    } else if run.starts_with("tmp") && run.len() > 5 {
        out.push_str("<tmp>");
    } else {
        let mut within = false;
        for it in run.chars() {
            if !it.is_ascii_digit() {
                out.push(it);
            } else if !within {
                out.push('0');
            }
            within = it.is_ascii_digit();
        }
    }
}

/// Digits, perhaps with a unit or an exponent behind them.
fn is_number(run: &str, unit: &str) -> bool {
    let exponent =
        unit.strip_prefix(['e', 'E']).is_some_and(|it| it.bytes().all(|it| it.is_ascii_digit()));
    let known = UNITS.iter().any(|it| unit.eq_ignore_ascii_case(it));
    unit.len() < run.len() && (unit.is_empty() || exponent || known || unit == "Z" || unit == "T")
}

/// Dates, times, versions and thousands are one number; a sign is part of it.
fn numbers_joined(line: &str) -> String {
    let characters: Vec<char> = line.chars().collect();
    let mut out = String::with_capacity(line.len());
    let mut at = 0;
    while let Some(it) = characters.get(at) {
        let before = at.checked_sub(1).and_then(|it| characters.get(it));
        let sign = matches!(it, '-' | '+')
            && characters.get(at + 1) == Some(&'0')
            && before.is_none_or(|it| !it.is_alphanumeric());
        at += 1;
        if sign {
            continue;
        }
        out.push(*it);
        // The number goes on behind each of these.
        let goes_on = |at: usize| {
            characters.get(at).is_some_and(|it| ".,:-+T/".contains(*it))
                && characters.get(at + 1) == Some(&'0')
        };
        while *it == '0' && goes_on(at) {
            at += 2;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn same(one: &str, other: &str) {
        assert_eq!(normalised(one), normalised(other));
        assert_eq!(Signature::of(one), Signature::of(other));
    }

    #[test]
    fn what_differs_each_time_is_left_out() {
        same("expected 3, got 4", "expected 17, got 1,024.12");
        same("took 1.5s at 0x7ffe12", "took 250ms at 0xdeadbeef");
        same("object <Foo object at 0x7f21>", "object <Foo object at 0x9aa1>");
        same(
            "2026-03-04T05:06:07.123Z boom",
            "2025-12-31 23:59:59 boom".replace(' ', "T").replacen("Tb", " b", 1).as_str(),
        );
        same("Tue Mar 4 05:06:07 2026: x", "Wed Dec 31 23:59:59 2025: x");
        same("no such file: '/tmp/tmpx9_a/out.txt'", "no such file: '/tmp/pytest-of-me/q'");
        same(
            "id 550e8400-e29b-41d4-a716-446655440000 gone",
            "id 123e4567-e89b-12d3-a456-426614174000 gone",
        );
        same("\u{1b}[31mFAIL\u{1b}[0m at line 12", "FAIL at line 99");
        same(
            "  File \"/home/a/src/x/test_a.py\", line 3",
            "  File \"/build/b/test_a.py\", line 44",
        );
        same("x\r\n\r\n  y", "x\n y");
        same("rate -1.5e-3", "rate 2");
        same("connect to 127.0.0.1:4711 refused", "connect to 10.1.2.3:80 refused");
    }

    #[test]
    fn what_tells_failures_apart_stays() {
        let differ = |one: &str, other: &str| assert_ne!(Signature::of(one), Signature::of(other));
        differ("AssertionError: left", "AssertionError: right");
        differ("ValueError: x", "KeyError: x");
        differ("at /src/a.py line 3", "at /src/b.py line 3");
        differ("deadbeef cafe", "deadlock cafe");
        assert_eq!(Signature::of(" \n\t"), None);
    }

    #[test]
    fn it_does_not_change_between_versions() {
        assert_eq!(
            normalised("E  assert 3 == 4\nE  at /w/a/b.rs:12"),
            "E assert 0 == 0\nE at b.rs:0"
        );
        assert_eq!(Signature::of("assert 3 == 4").unwrap().to_string(), "5a57080837cc0aed");
    }

    proptest! {
        #[test]
        fn any_text_has_a_bounded_form(text in "\\PC{0,200}|.{0,200}") {
            let once = normalised(&text);
            prop_assert!(once.lines().count() <= MAX_LINES);
            prop_assert_eq!(Signature::of(&text), Signature::of(&text));
        }

        #[test]
        fn numbers_do_not_count(one in any::<u32>(), other in any::<u32>(), word in "[a-z]{1,12}") {
            let of = |number: u32| Signature::of(&format!("{word}: got {number} in {word}{number}()"));
            prop_assert_eq!(of(one), of(other));
        }
    }

    #[test]
    fn long_texts_are_cut() {
        let long = "é1 ".repeat(200_000);
        assert!(normalised(&long).len() <= MAX_BYTES);
        assert_eq!(normalised(&"x\n".repeat(10_000)).lines().count(), MAX_LINES);
    }
}
