//! Lines for people on stderr.

use std::io::Write;

use kiln_web::ansi;

/// Writes a line to stderr; control sequences in what others wrote are left out. Whether anybody reads it
/// changes nothing: a server whose terminal is gone goes on.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", ansi::plain(line));
}
