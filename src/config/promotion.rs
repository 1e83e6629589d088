//! Environments, and whose signatures count there.

use kiln_deploy::signing::KeyRing;
use kiln_deploy::signing::keys::Secrets as _;
use kiln_net::causes;

use super::error::ConfigError;
use super::releases::Machine;
use super::settings::Settings;
use super::verdicts::webhook;
use crate::serve::{PromotionOptions, read_pipeline};

/// Bytes of a key, or of a policy of keys.
const MAX_KEY_BYTES: u64 = 1 << 20;

pub fn promotion(settings: &Settings) -> Result<PromotionOptions, ConfigError> {
    let wrong = |name: &str, why: String| ConfigError::Combination(format!("{name}: {why}"));
    let policy = settings.path("promotion.policy");
    let pipeline = policy.as_deref().map(read_pipeline).transpose();
    let pipeline = pipeline.map_err(|it| wrong("promotion.policy", it))?;
    let keys = settings.path("promotion.keys").map(|path| {
        let shown = path.display();
        let text = Machine.file(&path, MAX_KEY_BYTES);
        let text = text.map_err(|error| format!("{shown}: {error}"))?;
        KeyRing::read("release", &text)
            .map_err(|error| format!("{shown}: {}", causes::chain(&error)))
    });
    let keys = keys.transpose().map_err(|it| wrong("promotion.keys", it))?;
    let webhook = webhook(settings, "promotion.webhook", "promotion.webhook_format")?;
    Ok(PromotionOptions { policy, pipeline, keys, webhook })
}
