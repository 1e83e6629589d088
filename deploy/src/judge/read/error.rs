//! Why a case was not read.

use crate::json::JsonError;

/// Values in a case, names and all: what it takes in memory follows these and not the bytes.
pub const MAX_VALUES: usize = 2_000_000;

/// Why a case was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Json(JsonError),
    #[error("more than {MAX_VALUES} values; measure fewer metrics, a shorter time or wider steps")]
    TooManyValues,
    #[error("{place}: {problem}")]
    At { place: String, problem: String },
}
