//! Logs on stderr.

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{ParseError, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::lines::Lines;

/// The filter and the format of the log on stderr.
pub struct LogOptions {
    filter: EnvFilter,
    /// Each line is an object in JSON; otherwise it is text for people.
    json: bool,
}

impl LogOptions {
    /// `filter` is written as `RUST_LOG` is: levels by module.
    pub fn new(filter: &str, json: bool) -> Result<Self, ParseError> {
        Ok(Self { filter: EnvFilter::try_new(of_the_house(filter))?, json })
    }
}

/// Starts logging to stderr. Call once.
pub fn start(options: LogOptions) {
    let LogOptions { filter, json } = options;
    let colours = !json && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let output = tracing_subscriber::fmt::layer().with_writer(Lines { colours });
    let output = match json {
        true => output.json().boxed(),
        false => output.with_ansi(colours).boxed(),
    };
    let secrets = filter_fn(shows_no_secret).with_max_level_hint(LevelFilter::TRACE);
    tracing_subscriber::registry().with(secrets).with(filter).with(output).init();
}

/// Adds to a filter that the AWS SDK logs errors only, unless the filter names the SDK: its
/// warnings repeat at length what the error that follows says in words.
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
