//! Lines of the log: what others wrote cannot begin a new one, nor speak to the terminal.

use std::borrow::Cow;
use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

/// Makes writers to stderr that keep each event on one line.
#[derive(Debug, Clone, Copy)]
pub struct Lines {
    /// Whether colours are written, which begin with a control character.
    pub colours: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = LineWriter;

    fn make_writer(&'a self) -> LineWriter {
        LineWriter(*self)
    }
}

/// Takes one event at a time, which is how the subscriber writes.
pub struct LineWriter(Lines);

impl Write for LineWriter {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        io::stderr().write_all(harmless(&text, self.0.colours).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// `event` with every control character but the end of the line written out, as JSON does.
fn harmless(event: &str, colours: bool) -> Cow<'_, str> {
    let (line, end) = match event.strip_suffix('\n') {
        Some(line) => (line, "\n"),
        None => (event, ""),
    };
    if !line.contains(is_harmful) {
        return event.into();
    }
    let mut text = String::with_capacity(event.len() + 16);
    for (at, c) in line.char_indices() {
        let colour = colours && c == '\u{1b}' && is_colour(&line[at + 1..]);
        match c {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            c if colour || !is_harmful(c) => text.push(c),
            c => text.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    text.push_str(end);
    text.into()
}

/// Whether a character may not reach the log: control characters, ends of lines and what turns the
/// direction of text around.
fn is_harmful(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether an escape sequence goes on that only chooses colours.
fn is_colour(rest: &str) -> bool {
    let Some(rest) = rest.strip_prefix('[') else { return false };
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == ';'));
    end.is_some_and(|end| rest[end..].starts_with('m'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_stays_one_line_without_orders_to_the_terminal() {
        for (event, shown) in [
            ("INFO plain\ttext ü\n", "INFO plain\ttext ü\n"),
            ("worker=x\nINFO forged\r\n", "worker=x\\nINFO forged\\r\n"),
            ("\u{1b}]0;title\u{7}\u{9b}2J\n", "\\u001b]0;title\\u0007\\u009b2J\n"),
            ("a\u{202e}b\u{2028}c", "a\\u202eb\\u2028c"),
            ("\u{1b}[31mred\n", "\\u001b[31mred\n"),
        ] {
            assert_eq!(harmless(event, false), shown);
        }
        let coloured = "\u{1b}[2m12:00\u{1b}[0m \u{1b}[32m INFO\u{1b}[0m x\n";
        assert_eq!(harmless(coloured, true), coloured);
        assert_eq!(
            harmless("\u{1b}[2J\u{1b}[1;1H\u{1b}[\n", true),
            "\\u001b[2J\\u001b[1;1H\\u001b[\n"
        );
    }
}
