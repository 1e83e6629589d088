//! How a release becomes visible, and how it is rejected. Each change is one step with its entry in the audit log.

use kiln_cas::records::{Expect, RecordsError, Write};
use kiln_cas::stores::audit::{AuditEvent, AuditLog};
use serde_json::{Map, Value, json};

use super::entry::{CatalogEntry, Rejection};
use super::error::CatalogError;
use super::{Catalog, MAX_RECORD, keys};
use crate::json;
use crate::registry::store::{REGISTRY, RegistryError};
use crate::releases::ReleaseName;

/// Characters of a reason.
const MAX_REASON: usize = 2_000;
/// How often a release is shown anew because others push to its repository.
const TRIES: usize = 16;

impl Catalog {
    /// Pins everything, then makes it visible, in one step with what the audit log says. Returns whether it was the
    /// first of its name.
    pub(super) async fn add(
        &self,
        entry: &mut CatalogEntry,
        holds: &[String],
        action: &str,
        who: &str,
    ) -> Result<bool, CatalogError> {
        let shown = self.shown(entry).await?;
        let entry = &*entry;
        let CatalogEntry { release, instance, .. } = entry;
        self.parts.pins.pin_all(&self.pins_of(&entry.pin, &entry.content)?).await?;
        self.repository(&release.name.repository).link(&shown).await?;
        let put =
            |key: String, expect, value: Vec<u8>| Write { key, expect, value: Some(value.into()) };
        let anything = Expect::Anything;
        let blobs = entry.content.iter().map(|(digest, _)| digest.hex().to_owned());
        self.hold(entry, holds.iter().cloned().chain(blobs).collect()).await?;
        let key = keys::entry(instance, &release.name);
        let own = vec![
            put(key.clone(), Expect::Absent, json::write(entry)?),
            put(keys::pin(&entry.pin), anything, key.clone().into_bytes()),
        ];
        let event = self.event(entry, action, who, json!({
            "instance": instance, "digest": release.subject.digest, "invocation": release.invocation,
            "target": release.target, "source": entry.source, "level": entry.level.build_level,
        }));
        let log = AuditLog::new(self.parts.records.clone());
        for _ in 0..TRIES {
            let writes = [own.clone(), self.show_writes(entry, &shown).await?].concat();
            match log.append_with(vec![event.clone()], writes).await {
                Ok(_) => return Ok(true),
                Err(RecordsError::Conflict { key: taken }) if taken == key => return Ok(false),
                // Somebody pushed there, or took the repository.
                Err(RecordsError::Conflict { key }) if key.starts_with(REGISTRY) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CatalogError::Registry(RegistryError::Busy))
    }

    /// Says that a release holds content of these hashes.
    pub(super) async fn hold(
        &self,
        entry: &CatalogEntry,
        mut hashes: Vec<String>,
    ) -> Result<(), CatalogError> {
        hashes.sort();
        hashes.dedup();
        let CatalogEntry { release, instance, .. } = entry;
        let manifest = release.subject.digest.hex();
        let write = |it: &String| Write {
            key: keys::holds(instance, it, &release.name, manifest),
            expect: Expect::Anything,
            value: Some(Vec::new().into()),
        };
        for hashes in hashes.chunks(kiln_cas::records::MAX_BATCH) {
            self.parts.records.write(hashes.iter().map(write).collect()).await?;
        }
        Ok(())
    }

    pub(super) fn event(
        &self,
        entry: &CatalogEntry,
        action: &str,
        who: &str,
        details: Value,
    ) -> AuditEvent {
        AuditEvent {
            time: u64::try_from(self.now().unix()).unwrap_or(0),
            actor: who.to_owned(),
            action: action.to_owned(),
            subject: entry.release.name.to_string(),
            details: details.to_string(),
        }
    }

    pub(super) async fn unpin(&self, entry: &CatalogEntry) -> Result<(), CatalogError> {
        let pins = self.pins_of(&entry.pin, &entry.content)?;
        Ok(self.parts.pins.unpin_all(&pins).await?)
    }

    /// Says, for good, that a release is not to be used. The tag of its version goes; what pulls by digest goes on.
    pub async fn reject(
        &self,
        instance: &str,
        name: &ReleaseName,
        reason: &str,
        who: &str,
    ) -> Result<CatalogEntry, CatalogError> {
        let reason = reason.trim();
        if reason.is_empty() || reason.chars().count() > MAX_REASON {
            return Err(CatalogError::Reason(MAX_REASON));
        }
        let key = keys::entry(instance, name);
        loop {
            let found = self.parts.records.get(&key).await?;
            let found = found.ok_or_else(|| CatalogError::NoRelease(name.clone()))?;
            let mut entry: CatalogEntry = json::read(&found.value, MAX_RECORD)?;
            if entry.rejected.is_some() {
                return Ok(entry);
            }
            let (by, reason) = (who.to_owned(), reason.to_owned());
            entry.rejected = Some(Rejection { by, reason: reason.clone(), at: self.now() });
            // What a newer server wrote there beside stays.
            let mut kept: Map<String, Value> = json::read(&found.value, MAX_RECORD)?;
            kept.insert("rejected".to_owned(), json!(entry.rejected));
            let value = Some(json::write(&kept)?.into());
            let write = Write { key: key.clone(), expect: Expect::Version(found.version), value };
            let details = json!({"instance": instance, "reason": reason});
            let event = self.event(&entry, "release.reject", who, details);
            let untag = self.untag_write(&entry).await?;
            let writes = [write].into_iter().chain(untag).collect();
            let log = AuditLog::new(self.parts.records.clone());
            match log.append_with(vec![event], writes).await {
                Ok(_) => return Ok(entry),
                Err(RecordsError::Conflict { key: changed }) if changed == key => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
