//! Text for a terminal or a pipe.

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::LazyLock;

use serde::Serialize;

use crate::cli::error::CliError;
use kiln_web::ansi;

/// How a part of a text looks on a terminal that shows colours.
#[derive(Debug, Clone, Copy)]
pub enum Look {
    Bold,
    Dim,
    Good,
    Bad,
    Busy,
}

/// Stdout is a terminal, and nobody asked to go without colours (https://no-color.org).
static COLOURS: LazyLock<bool> = LazyLock::new(|| {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb
});

/// Whether colours are shown: for what draws by itself.
pub fn has_colours() -> bool {
    *COLOURS
}

/// `text` in a colour, for [`print`]: where there are none it is left out.
pub fn look(look: Look, text: &str) -> String {
    let code = match look {
        Look::Bold => "1",
        Look::Dim => "2",
        Look::Good => "32",
        Look::Bad => "31",
        Look::Busy => "36",
    };
    if text.is_empty() { String::new() } else { format!("\u{1b}[{code}m{text}\u{1b}[0m") }
}

/// Prints text that may hold what others wrote: of control sequences only colours are left, and
/// those for a terminal alone. A reader who has gone away, as `head` does, is no error.
pub fn print(text: &str) -> Result<(), CliError> {
    write_out(shown(text).as_bytes())
}

fn shown(text: &str) -> String {
    if *COLOURS { ansi::coloured(text) } else { ansi::plain(text) }
}

/// A value for programs, over several lines.
pub fn print_json<T: Serialize>(value: &T) -> Result<(), CliError> {
    let json = serde_json::to_string_pretty(value);
    let json = json.map_err(|error| CliError::machine(format!("cannot write JSON: {error}")))?;
    print(&format!("{json}\n"))
}

/// Prints over and over on a cleared terminal.
pub fn print_again(text: &str) -> Result<(), CliError> {
    const CLEAR: &str = "\u{1b}[H\u{1b}[2J";
    write_out(format!("{CLEAR}{}", shown(text)).as_bytes())
}

pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Writes bytes to stdout as they are.
pub fn write_out(data: &[u8]) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(data).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(CliError::machine(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Puts text from elsewhere on one line, so that no part of it passes for a line of Kiln's own.
pub fn one_line(text: &str) -> String {
    text.replace(['\n', '\r', '\t'], " ")
}

/// Puts each of the texts on a line of its own.
pub fn lines(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// The first few of these, and how many more there are.
pub fn names(all: &[String], most: usize) -> String {
    let shown = all.iter().take(most).cloned().collect::<Vec<_>>().join(", ");
    let more = all.len().saturating_sub(most);
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

/// Columns, each as wide as its widest cell; `right` says which are numbers.
pub struct Table {
    rows: Vec<Vec<String>>,
    right: &'static [usize],
}

impl Table {
    pub fn new(head: &[&str], right: &'static [usize]) -> Self {
        Self { rows: vec![head.iter().map(|&cell| cell.to_owned()).collect()], right }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| one_line(&cell)).collect());
    }

    pub fn text(&self, indent: &str) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| width_of(cell)).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (place, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                let space = " ".repeat(width.saturating_sub(width_of(cell)));
                match self.right.contains(&column) {
                    true => space + cell,
                    false => cell.clone() + &space,
                }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            let line = line.trim_end();
            let line = if place == 0 { look(Look::Dim, line) } else { line.to_owned() };
            text.push_str(&format!("{indent}{line}\n"));
        }
        text
    }
}

/// Characters that a cell takes up on a terminal.
fn width_of(cell: &str) -> usize {
    ansi::plain(cell).chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["name", "size"], &[1]);
        table.row(["a".to_owned(), "10".to_owned()]);
        table.row([look(Look::Bad, "longer\nµ"), "9".to_owned()]);
        assert_eq!(
            ansi::plain(&table.text(" ")),
            " name      size\n a           10\n longer µ     9\n"
        );
    }
}
