//! A line on the terminal that says how far a long transfer is.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use kiln_web::format::bytes;

const EVERY: Duration = Duration::from_millis(200);
/// Transfers below this many bytes are over before anybody asks.
const WORTH_IT: u64 = 16 << 20;

pub struct Progress {
    total: u64,
    done: u64,
    shown: Option<Instant>,
    is_on: bool,
}

impl Progress {
    pub fn new(total: u64) -> Self {
        let is_on = total >= WORTH_IT && std::io::stderr().is_terminal();
        Self { total, done: 0, shown: None, is_on }
    }

    pub fn add(&mut self, more: usize) {
        self.done += more as u64;
        if self.is_on && self.shown.is_none_or(|at| at.elapsed() >= EVERY) {
            self.shown = Some(Instant::now());
            self.write(&format!("\r{} of {}   ", bytes(self.done), bytes(self.total)));
        }
    }

    /// Clears the line of progress at the end.
    pub fn end(&mut self) {
        if self.shown.take().is_some() {
            self.write("\r\x1b[K");
        }
    }

    /// Writes to stderr; where the terminal is gone, nobody needs progress.
    fn write(&mut self, text: &str) {
        let mut stderr = std::io::stderr();
        self.is_on = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).is_ok();
    }
}
