//! Logs on stderr.

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::lines::Lines;
use crate::config::error::ConfigError;
use crate::config::settings::Settings;

/// Starts logging to stderr as the settings say. Call once.
pub fn start(settings: &Settings) -> Result<(), ConfigError> {
    let filter =
        EnvFilter::try_new(of_the_house(settings.text("log.filter"))).map_err(|error| {
            ConfigError::Combination(format!("log.filter is not a filter: {error}"))
        })?;
    let json = settings.text("log.format") == "json";
    let colours = !json && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let output = tracing_subscriber::fmt::layer().with_writer(Lines { colours });
    let output = match json {
        true => output.json().boxed(),
        false => output.with_ansi(colours).boxed(),
    };
    let secrets = filter_fn(shows_no_secret).with_max_level_hint(LevelFilter::TRACE);
    tracing_subscriber::registry().with(secrets).with(filter).with(output).init();
    Ok(())
}

/// What the SDK of AWS looks for in vain, it warns of with all that it knows; the error that follows says it
/// in words. Whoever names the SDK gets what is asked for.
fn of_the_house(filter: &str) -> String {
    match filter.contains("aws_") {
        true => filter.to_owned(),
        false => format!("{filter},aws_config=error"),
    }
}

/// The SDK of AWS logs whole requests at trace, with signature and session token. Whatever the filter
/// says, they stay out.
fn shows_no_secret(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::DEBUG || !metadata.target().starts_with("aws_")
}
