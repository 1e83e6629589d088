//! Times, numbers and texts of the screen.

use std::time::Duration;

use kiln_deploy::timestamp::Timestamp;
use kiln_web::ansi;
use ratatui::text::Span;

/// The most characters that are shown of one text from a server.
const MAX_TEXT: usize = 400;

/// Cleans text from elsewhere: it is put on one line, without control characters, and cut at a
/// limit.
pub fn clean(text: &str) -> String {
    let plain = ansi::plain(text);
    let visible = plain.chars().map(|it| if it.is_control() { ' ' } else { it });
    visible.take(MAX_TEXT).collect()
}

/// The time of the day in a time of a server.
pub fn clock(at: &str) -> String {
    let time = at.split_once('T').map_or(at, |(_, time)| time);
    clean(time.trim_end_matches('Z'))
}

/// Seconds from one time of a server to another one; `None`: one of them is no time.
pub fn between(from: &str, to: &str) -> Option<i64> {
    let unix = |text: &str| text.parse::<Timestamp>().ok().map(Timestamp::unix);
    Some(unix(to)?.saturating_sub(unix(from)?))
}

/// A time as `0:42` or `1:02:03`; a negative one is `0:00`.
pub fn lasting(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (hours, minutes, rest) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{rest:02}"),
        _ => format!("{hours}:{minutes:02}:{rest:02}"),
    }
}

/// Seconds until a time of a server, whose clock said `now` when its answer came, which is `age` old.
pub fn until(at: &str, now: &str, age: Duration) -> Option<i64> {
    let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
    Some(between(now, at)?.saturating_sub(age))
}

/// A number with about four digits that count.
pub fn figure(value: f64) -> String {
    let digits = match value.abs() {
        it if it >= 1_000.0 || it == 0.0 => 0,
        it if it >= 10.0 => 1,
        it if it >= 1.0 => 2,
        _ => 4,
    };
    format!("{value:.digits$}")
}

/// The number of columns that a text takes.
pub fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// A text on lines of at most so many columns; those after the first are indented. A word that is too long is cut.
pub fn wrapped(text: &str, columns: usize, indent: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    // Columns of the line; a line without a word is only indented.
    let (mut taken, mut has_word) = (0, false);
    for word in text.split_whitespace() {
        let its = width(word);
        if has_word && its > columns.saturating_sub(taken + 1) {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            (taken, has_word) = (indent, false);
        }
        if has_word {
            line.push(' ');
            taken += 1;
        }
        line.push_str(word);
        (taken, has_word) = (taken + its, true);
    }
    if has_word {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_down_by_the_clock_of_the_server() {
        let (now, next) = ("2026-11-30T10:00:00Z", "2026-11-30T11:02:05Z");
        assert_eq!(until(next, now, Duration::from_secs(2)), Some(3_723));
        assert_eq!(
            (lasting(3_723), lasting(42), lasting(-5)),
            ("1:02:03".into(), "0:42".into(), "0:00".into())
        );
        assert_eq!(until("soon", now, Duration::ZERO), None);
        assert_eq!(clock(next), "11:02:05");
    }

    #[test]
    fn numbers_keep_what_tells_them_apart() {
        for (value, text) in
            [(0.0, "0"), (0.0123, "0.0123"), (1.234, "1.23"), (12.34, "12.3"), (1234.6, "1235")]
        {
            assert_eq!(figure(value), text);
        }
    }

    #[test]
    fn long_texts_are_wrapped_and_what_others_wrote_controls_nothing() {
        assert_eq!(
            wrapped("p99: the canary is higher", 12, 2),
            ["p99: the", "  canary is", "  higher"]
        );
        assert_eq!(wrapped("", 10, 0), [""; 0]);
        assert_eq!(wrapped("unbreakable", 4, 2), ["unbreakable"]);
        assert_eq!(clean("a\u{1b}[2Jb\nc"), "ab c");
        assert_eq!(clean(&"x".repeat(1_000)).len(), MAX_TEXT);
    }
}
