//! How a release becomes visible, and how it is rejected. Each change is one step with its entry in the audit log.

use kiln_cas::pins::Pin;
use kiln_cas::records::{Expect, RecordsError, Write};
use kiln_cas::stores::audit::{AuditEvent, AuditLog};
use serde_json::{Value, json};

use super::entry::{Entry, Rejection};
use super::error::CatalogError;
use super::{Catalog, MAX_RECORD, PINS, keys, sized};
use crate::json;
use crate::oci::ContentDigest;
use crate::releases::ReleaseName;
use crate::timestamp::Timestamp;

/// Characters of a reason.
const MAX_REASON: usize = 2_000;

impl Catalog {
    /// Pins everything, then makes it visible, in one step with what the audit log says. Returns whether it was the
    /// first of its name.
    pub(super) async fn add(
        &self,
        entry: &Entry,
        holds: &[String],
        action: &str,
        who: &str,
    ) -> Result<bool, CatalogError> {
        let Entry { release, instance, .. } = entry;
        let at = self.now();
        for (digest, size) in &entry.content {
            self.parts.pins.pin(&self.pin(entry, digest, *size, at)?).await?;
        }
        let put =
            |key: String, expect, value: Vec<u8>| Write { key, expect, value: Some(value.into()) };
        let anything = Expect::Anything;
        let blobs = entry.content.iter().map(|(digest, _)| digest.hex().to_owned());
        let mut all: Vec<_> = holds.iter().cloned().chain(blobs).collect();
        all.sort();
        all.dedup();
        for hashes in all.chunks(kiln_cas::records::MAX_BATCH) {
            let manifest = release.subject.digest.hex();
            let keys = hashes.iter().map(|it| keys::holds(instance, it, &release.name, manifest));
            let writes = keys.map(|key| put(key, anything, Vec::new())).collect();
            self.parts.records.write(writes).await?;
        }
        let key = keys::entry(instance, &release.name);
        let writes = vec![
            put(key.clone(), Expect::Absent, json::write(entry)?),
            put(keys::pin(&entry.pin), anything, key.clone().into_bytes()),
        ];
        let event = self.event(entry, action, who, json!({
            "instance": instance, "digest": release.subject.digest, "invocation": release.invocation,
            "target": release.target, "source": entry.source, "level": entry.level.build_level,
        }));
        match AuditLog::new(self.parts.records.clone()).append_with(vec![event], writes).await {
            Ok(_) => Ok(true),
            Err(RecordsError::Conflict { key: taken }) if taken == key => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn event(&self, entry: &Entry, action: &str, who: &str, details: Value) -> AuditEvent {
        AuditEvent {
            time: u64::try_from(self.now().unix()).unwrap_or(0),
            actor: who.to_owned(),
            action: action.to_owned(),
            subject: entry.release.name.to_string(),
            details: details.to_string(),
        }
    }

    fn pin(
        &self,
        entry: &Entry,
        digest: &ContentDigest,
        size: u64,
        at: Timestamp,
    ) -> Result<Pin, CatalogError> {
        let stored = sized(digest, size).ok_or_else(|| CatalogError::Sha512(digest.clone()))?;
        let at = u64::try_from(at.unix()).unwrap_or(0).saturating_mul(1_000);
        Ok(Pin { digest: stored, kind: PINS.to_owned(), name: entry.pin.clone(), at })
    }

    pub(super) async fn unpin(&self, entry: &Entry) -> Result<(), CatalogError> {
        for (digest, size) in &entry.content {
            let pin = self.pin(entry, digest, *size, Timestamp::from_unix(0))?;
            self.parts.pins.unpin(&pin).await?;
        }
        Ok(())
    }

    /// Says, for good, that a release is not to be used.
    pub async fn reject(
        &self,
        instance: &str,
        name: &ReleaseName,
        reason: &str,
        who: &str,
    ) -> Result<Entry, CatalogError> {
        let reason = reason.trim();
        if reason.is_empty() || reason.chars().count() > MAX_REASON {
            return Err(CatalogError::Reason(MAX_REASON));
        }
        let key = keys::entry(instance, name);
        loop {
            let found = self.parts.records.get(&key).await?;
            let found = found.ok_or_else(|| CatalogError::NoRelease(name.clone()))?;
            let mut entry: Entry = json::read(&found.value, MAX_RECORD)?;
            if entry.rejected.is_some() {
                return Ok(entry);
            }
            let (by, reason) = (who.to_owned(), reason.to_owned());
            entry.rejected = Some(Rejection { by, reason: reason.clone(), at: self.now() });
            let value = Some(json::write(&entry)?.into());
            let write = Write { key: key.clone(), expect: Expect::Version(found.version), value };
            let details = json!({"instance": instance, "reason": reason});
            let event = self.event(&entry, "release.reject", who, details);
            match AuditLog::new(self.parts.records.clone())
                .append_with(vec![event], vec![write])
                .await
            {
                Ok(_) => return Ok(entry),
                Err(RecordsError::Conflict { key: changed }) if changed == key => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
