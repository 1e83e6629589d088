//! From settings to what is logged, and how.

use super::error::ConfigError;
use super::settings::Settings;
use crate::telemetry::LogOptions;

pub fn log_options(settings: &Settings) -> Result<LogOptions, ConfigError> {
    let json = settings.text("log.format") == "json";
    LogOptions::new(settings.text("log.filter"), json)
        .map_err(|error| ConfigError::Combination(format!("log.filter is not a filter: {error}")))
}
