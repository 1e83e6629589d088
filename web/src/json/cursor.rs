//! Places in the journal, for the next page of a list.

/// A place in the journal: text, because it does not fit into a JavaScript number.
pub fn cursor(seq: u64) -> String {
    format!("{seq:016x}")
}

pub fn parse_cursor(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}
