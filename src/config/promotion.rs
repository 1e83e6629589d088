//! Environments, and whose signatures count there.

use super::error::ConfigError;
use super::settings::Settings;
use super::verdicts::webhook;
use crate::serve::{PromotionOptions, read_keys, read_pipeline};

pub fn promotion(settings: &Settings) -> Result<PromotionOptions, ConfigError> {
    let wrong = |name: &str, why: String| ConfigError::Combination(format!("{name}: {why}"));
    let policy = settings.path("promotion.policy");
    let pipeline = policy.as_deref().map(read_pipeline).transpose();
    let pipeline = pipeline.map_err(|it| wrong("promotion.policy", it))?;
    let keys_file = settings.path("promotion.keys");
    let keys = keys_file.as_deref().map(read_keys).transpose();
    let keys = keys.map_err(|it| wrong("promotion.keys", it))?;
    let webhook = webhook(settings, "promotion.webhook", "promotion.webhook_format")?;
    Ok(PromotionOptions { policy, pipeline, keys, keys_file, webhook })
}
