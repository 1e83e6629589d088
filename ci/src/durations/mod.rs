//! How long tests take: read from files, or estimated from the runs that are known.

mod estimate;
mod file;
mod history;
pub mod names;

pub use estimate::Estimates;
pub use file::{Durations, FileError, read};
pub use history::{History, ShardRun};

/// Nobody waits longer for a test, in seconds: what is above is a mistake of unit.
pub const LONGEST_S: f64 = 366.0 * 24.0 * 3600.0;

/// The middle one of some values; of an even number of them the mean of both.
pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    match values.len() % 2 {
        _ if values.is_empty() => None,
        1 => Some(values[upper]),
        _ => Some(f64::midpoint(values[upper - 1], values[upper])),
    }
}
