//! Releases, and records of what they are made of.

use std::path::Path;

use kiln_deploy::retention::Rules;
use kiln_deploy::signing::keys::{KeySource, Secrets};
use kiln_deploy::signing::signer;
use kiln_net::causes;

use super::error::ConfigError;
use super::settings::Settings;
use super::verdicts::webhook;
use crate::serve::ReleaseOptions;

/// The files and the environment of this machine.
pub struct Machine;

impl Secrets for Machine {
    fn file(&self, path: &Path, limit: u64) -> std::io::Result<String> {
        use std::io::Read as _;
        let mut text = String::new();
        std::fs::File::open(path)?.take(limit + 1).read_to_string(&mut text)?;
        if text.len() as u64 > limit {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "it is too large"));
        }
        Ok(text)
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

pub fn releases(settings: &Settings) -> Result<ReleaseOptions, ConfigError> {
    let key = settings.text("releases.key");
    let passphrase = settings.text("releases.passphrase");
    let wrong = |why: String| ConfigError::Combination(why);
    let passphrase = passphrase.strip_prefix("env:").ok_or_else(|| {
        wrong("releases.passphrase: write env:NAME, the variable that holds it".to_owned())
    })?;
    let key = if key.is_empty() {
        None
    } else {
        // Every text names a place.
        let source = key.parse::<KeySource>().unwrap_or_else(|never| match never {});
        let read = signer(&source, passphrase, &Machine);
        Some(read.map_err(|error| {
            wrong(format!(
                "releases.key cannot be used: {}; docs/releases.md says how keys are made",
                causes::chain(&error)
            ))
        })?)
    };
    let number = |name| settings.number(name).and_then(|it| usize::try_from(it).ok());
    let rules = Rules {
        predecessors: number("releases.keep_predecessors").unwrap_or(usize::MAX),
        newest: number("releases.keep_newest").unwrap_or(usize::MAX),
        age: i64::try_from(settings.duration("releases.keep_for").as_secs()).unwrap_or(i64::MAX),
    };
    Ok(ReleaseOptions {
        rules,
        gc: settings.flag("releases.gc"),
        records: settings.flag("releases.record"),
        keep_records: settings.duration("releases.keep_records"),
        key,
        webhook: webhook(settings, "releases.webhook", "releases.webhook_format")?,
    })
}
