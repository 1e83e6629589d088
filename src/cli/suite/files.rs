//! Files that the user names.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::cli::error::CliError;

/// The path that means standard input.
const STDIN: &str = "-";

/// A file that the user named, or standard input.
pub fn open(path: &Path) -> Result<Box<dyn Read>, CliError> {
    if is_stdin(path) {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    match File::open(path) {
        Ok(file) => Ok(Box::new(file)),
        Err(error) => Err(CliError::usage(format!("cannot open {}: {error}", path.display()))),
    }
}

/// Whether the path means standard input.
pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == STDIN
}

/// How a file is named in messages.
pub fn shown(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() }
}
