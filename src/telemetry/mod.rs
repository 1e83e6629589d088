//! Logs, metrics and traces.

use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, Settings};

/// Ends telemetry: what is buffered goes out.
pub struct Telemetry {}

impl Telemetry {
    pub fn shutdown(self) {}
}

/// Starts logging to stderr as the settings say. Call once, within a tokio runtime.
pub fn start(settings: &Settings) -> Result<Telemetry, ConfigError> {
    let filter = EnvFilter::try_new(settings.text("log.filter")).map_err(|error| {
        ConfigError::Combination(format!("log.filter is not a filter: {error}"))
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.text("log.format") {
        "json" => builder.json().init(),
        _ => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
    }
    Ok(Telemetry {})
}
