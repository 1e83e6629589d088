//! Finds new releases in the audit log, for pipelines that wait for them.

use async_trait::async_trait;
use kiln_cas::stores::audit::AuditLog;
use kiln_ci::pipelines::control::{Happenings, Released};
use kiln_ci::storage::StorageError;

use crate::serve::history::failed;

/// Entries that are looked through at once.
const PAGE: usize = 500;

pub struct Audit(pub AuditLog);

#[async_trait]
impl Happenings for Audit {
    async fn released(&self, after: u64) -> Result<(Vec<Released>, u64), StorageError> {
        let (entries, upto) = self.0.follow(after, PAGE).await.map_err(failed)?;
        let made = |action: &str| matches!(action, "release.create" | "release.import");
        let released = entries.into_iter().filter(|entry| made(&entry.event.action));
        let released = released
            .map(|entry| Released {
                number: entry.sequence,
                instance: instance_of(&entry.event.details),
                name: entry.event.subject,
            })
            .collect();
        Ok((released, upto))
    }

    async fn latest(&self) -> Result<u64, StorageError> {
        Ok(self.0.head().await.map_err(failed)?.map_or(0, |(sequence, _)| sequence))
    }
}

/// The instance that the details of an event name, if any.
fn instance_of(details: &str) -> Option<String> {
    let details: serde_json::Value = serde_json::from_str(details).ok()?;
    details.get("instance")?.as_str().map(str::to_owned)
}
