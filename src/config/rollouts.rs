//! Who is told of rollouts.

use super::error::ConfigError;
use super::settings::Settings;
use super::verdicts::webhook;
use crate::serve::RolloutOptions;

pub fn rollouts(settings: &Settings) -> Result<RolloutOptions, ConfigError> {
    let webhook = webhook(settings, "rollouts.webhook", "rollouts.webhook_format")?;
    Ok(RolloutOptions { webhook, ..RolloutOptions::default() })
}
