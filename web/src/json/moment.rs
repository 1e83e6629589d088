//! Times that are counted in Unix milliseconds.

use kiln_deploy::timestamp::Timestamp;

/// The moment so many milliseconds after the Unix epoch, as the API writes it.
pub fn at(millis: u64) -> String {
    Timestamp::from_unix(i64::try_from(millis / 1_000).unwrap_or(i64::MAX)).to_string()
}
