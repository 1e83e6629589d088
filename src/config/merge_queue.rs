//! Who is told of merge queues.

use super::error::ConfigError;
use super::settings::Settings;
use super::verdicts::webhook;
use crate::serve::MergeQueueOptions;

pub fn merge_queue(settings: &Settings) -> Result<MergeQueueOptions, ConfigError> {
    let webhook = webhook(settings, "merge_queue.webhook", "merge_queue.webhook_format")?;
    Ok(MergeQueueOptions { webhook })
}
