use std::fmt::Display;
use std::io;

use nix::errno::Errno;

/// Something that failed in the zygote: it travels to the server as text.
#[derive(Debug, thiserror::Error)]
pub(super) enum ZygoteError {
    #[error("{call} {subject}: {source}")]
    Call { call: &'static str, subject: String, source: io::Error },
    #[error("{0}")]
    Refused(String),
}

/// Names the system call and its subject in an error.
pub(super) trait Context<T> {
    fn context(self, call: &'static str, subject: impl Display) -> Result<T, ZygoteError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, call: &'static str, subject: impl Display) -> Result<T, ZygoteError> {
        self.map_err(|error| ZygoteError::Call {
            call,
            subject: subject.to_string(),
            source: error.into(),
        })
    }
}

/// The error number as a type of nix, for one of rustix: both crates have a type for it.
pub(super) fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

impl ZygoteError {
    /// Prints it beside the server's log, as one line: paths of clients may be in it.
    pub(super) fn print(&self) {
        eprintln!("kiln sandbox: {}", self.line());
    }

    /// The error's text, in which characters are escaped that would change how a terminal shows
    /// what stands around it.
    fn line(&self) -> String {
        let text = self.to_string();
        let mut line = String::with_capacity(text.len());
        for c in text.chars() {
            if c.is_control() || is_direction(c) {
                line.extend(c.escape_unicode());
            } else {
                line.push(c);
            }
        }
        line
    }

    pub(super) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Call { source, .. } => source.raw_os_error().map(Errno::from_raw),
            Self::Refused(_) => None,
        }
    }
}

/// Marks, embeddings and isolates that change the order in which text is shown, and separators of lines.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_one_line_whatever_a_path_has_in_it() {
        let odd = "a\u{1b}[2J\nkiln sandbox: \u{9b}1m\u{202e}é";
        let failed: Result<(), _> = Err(io::Error::other("no room")).context("open", odd);
        let line = failed.unwrap_err().line();
        assert_eq!(line, "open a\\u{1b}[2J\\u{a}kiln sandbox: \\u{9b}1m\\u{202e}é: no room");
        let refused = ZygoteError::Refused("\r\0".to_owned()).line();
        assert_eq!(refused, "\\u{d}\\u{0}");
    }
}
