//! What stages of pipelines may do.

use super::error::ConfigError;
use super::settings::Settings;
use super::verdicts::webhook;
use crate::serve::{StagesOptions, read_stage_parts};

pub fn stages(settings: &Settings) -> Result<StagesOptions, ConfigError> {
    let wrong = |why: String| ConfigError::Combination(format!("stages.parts: {why}"));
    let parts = settings.path("stages.parts").as_deref().map(read_stage_parts).transpose();
    let parts = parts.map_err(wrong)?.unwrap_or_default();
    let webhook = webhook(settings, "stages.webhook", "stages.webhook_format")?;
    Ok(StagesOptions { parts, allow_network: settings.flag("stages.allow_network"), webhook })
}
