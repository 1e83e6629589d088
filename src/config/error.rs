//! What is wrong with a configuration.

use std::path::PathBuf;

use super::setting::Origin;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {message}")]
    Unreadable { path: PathBuf, message: String },
    #[error("{path} is not valid TOML: {message}")]
    Toml { path: PathBuf, message: String },
    #[error("{place}: unknown key {name}{}", nearest.map_or(String::new(), |key| format!("; did you mean {key}?")))]
    Unknown { place: String, name: String, nearest: Option<&'static str> },
    #[error("{name} = {value:?} (from {origin}): expected {expected}")]
    Value { name: &'static str, value: String, origin: Origin, expected: String },
    #[error("{0}")]
    Combination(String),
}
