//! Pipelines that a server's operator declares, and what is kept of runs.

use super::error::ConfigError;
use super::settings::Settings;
use crate::serve::{PipelineOptions, read_pipelines};

/// The most stages of one run at the same time, if nobody says.
const MOST: u64 = 100;

pub fn pipelines(settings: &Settings) -> Result<PipelineOptions, ConfigError> {
    let directory = settings.path("pipelines.directory");
    let instance = settings.text("pipelines.instance").to_owned();
    if let Some(directory) = &directory {
        let wrong = |why: String| ConfigError::Combination(format!("pipelines.directory: {why}"));
        read_pipelines(directory, &instance).map_err(wrong)?;
    }
    let most = settings.number("pipelines.most").unwrap_or(MOST);
    Ok(PipelineOptions {
        directory,
        instance,
        keep: settings.duration("pipelines.keep"),
        most: usize::try_from(most).unwrap_or(usize::MAX),
    })
}
