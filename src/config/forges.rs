//! Forges, and their secrets.

use kiln_ci::forges::Secrets;

use super::error::ConfigError;
use super::settings::Settings;
use crate::serve::{ForgeOptions, read_forges};

pub fn forges(settings: &Settings) -> Result<ForgeOptions, ConfigError> {
    let wrong = |why: String| ConfigError::Combination(format!("forges.file: {why}"));
    let Some(path) = settings.path("forges.file") else { return Ok(ForgeOptions::default()) };
    let forges = read_forges(&path).map_err(wrong)?;
    Secrets::load(&forges).map_err(|error| wrong(error.to_string()))?;
    Ok(ForgeOptions { forges })
}
