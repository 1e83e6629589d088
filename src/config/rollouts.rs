//! What rollouts may name, and who is told of them.

use super::error::ConfigError;
use super::settings::Settings;
use super::verdicts::webhook;
use crate::serve::{RolloutOptions, read_parts};

pub fn rollouts(settings: &Settings) -> Result<RolloutOptions, ConfigError> {
    let wrong = |why: String| ConfigError::Combination(format!("rollouts.parts: {why}"));
    let parts = settings.path("rollouts.parts").as_deref().map(read_parts).transpose();
    let parts = parts.map_err(wrong)?.unwrap_or_default();
    let webhook = webhook(settings, "rollouts.webhook", "rollouts.webhook_format")?;
    Ok(RolloutOptions { parts, webhook })
}
