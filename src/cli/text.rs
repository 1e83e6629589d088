//! Text for a terminal or a pipe.

use std::io::{ErrorKind, Write};

use super::CliError;
use crate::web::format::plain;

/// Prints text that may hold what others wrote: without control sequences. A reader who has
/// gone away, as `head` does, is no error.
pub fn print(text: &str) -> Result<(), CliError> {
    write_out(plain(text).as_bytes())
}

/// Bytes as they are, to stdout.
pub fn write_out(data: &[u8]) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(data).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(CliError::machine(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Each on a line of its own.
pub fn lines(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
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
        self.rows.push(cells.into_iter().collect());
    }

    pub fn text(&self, indent: &str) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                match self.right.contains(&column) {
                    true => format!("{cell:>width$}"),
                    false => format!("{cell:<width$}"),
                }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            text.push_str(&format!("{indent}{}\n", line.trim_end()));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["name", "size"], &[1]);
        table.row(["a".to_owned(), "10".to_owned()]);
        table.row(["longer µ".to_owned(), "9".to_owned()]);
        assert_eq!(table.text(" "), " name      size\n a           10\n longer µ     9\n");
    }
}
