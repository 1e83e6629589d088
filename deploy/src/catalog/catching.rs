//! Releases that were made before the registry showed any come to be there as well: once, a page at a time. How far that is
//! is noted, so that a server that ends in between, or another one, goes on from there.

use std::collections::HashSet;

use kiln_cas::records::{Expect, RecordsError, Write};
use kiln_cas::stores::audit::AuditLog;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::blocking::Blocking;
use super::entry::CatalogEntry;
use super::error::CatalogError;
use super::older::Older;
use super::{Catalog, MAX_RECORD, blocking, keys};
use crate::json;
use crate::registry::store::{REGISTRY, RegistryError};
use crate::releases::ReleaseName;
use crate::signing::{Attestation, KeyRing, PublicKey};

/// How often one is shown anew because others push to its repository, or reject it.
const TRIES: usize = 16;
/// Who shows older releases, in the audit log.
const WHO: &str = "kiln";

/// How far the showing of older releases is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    /// The key of the last release that was looked at.
    after: Option<String>,
    done: bool,
}

/// What came of one page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaughtUp {
    pub shown: usize,
    /// Releases that cannot be shown, and why; they are not tried again.
    pub refused: Vec<(ReleaseName, String)>,
    /// Whether no other page is left, for ever.
    pub done: bool,
}

impl Catalog {
    /// Shows the next `limit` releases, as far as the registry does not have them. Errors: what may go well later; the same page
    /// is next then.
    pub async fn catch_up(&self, limit: usize) -> Result<CaughtUp, CatalogError> {
        let records = &self.parts.records;
        let found = records.get(keys::SHOWN).await?;
        let read = found.as_ref().map(|it| json::read(&it.value, MAX_RECORD)).transpose()?;
        let progress: Progress = read.unwrap_or_default();
        let mut caught = CaughtUp { done: progress.done, ..CaughtUp::default() };
        if progress.done {
            return Ok(caught);
        }
        let page = records.list(keys::ENTRIES, progress.after.as_deref(), false, limit).await?;
        for record in &page {
            // What cannot be read is not tried again, and is shown by nobody.
            let Some(entry) = self.readable(record) else { continue };
            let name = entry.release.name.clone();
            match self.show_late(entry).await {
                Ok(shown) => caught.shown += usize::from(shown),
                Err(error) if error.is_passing() => return Err(error),
                Err(error) => {
                    caught.refused.push((name, kiln_net::causes::chain(&error).to_string()));
                }
            }
        }
        caught.done = page.len() < limit;
        let after = page.last().map(|it| it.key.clone()).or(progress.after);
        let next = json::write(&Progress { after, done: caught.done })?;
        let expect = found.map_or(Expect::Absent, |it| Expect::Version(it.version));
        let write = Write { key: keys::SHOWN.to_owned(), expect, value: Some(next.into()) };
        match records.write(vec![write]).await {
            Ok(_) => {}
            // Another server is at it as well, and what it noted counts.
            Err(RecordsError::Conflict { .. }) => caught.done = false,
            Err(error) => return Err(error.into()),
        }
        Ok(caught)
    }

    /// `false`: it is there already, or is a release no more.
    async fn show_late(&self, mut entry: CatalogEntry) -> Result<bool, CatalogError> {
        let name = entry.release.name.clone();
        let repository = self.repository(&name.repository);
        let is_own = repository.owner().await?.is_some_and(|it| it == entry.instance);
        if is_own && repository.has(entry.release.digest()).await? {
            return Ok(false);
        }
        self.check_name(&entry.instance, &name).await?;
        let before = entry.content.len();
        if entry.tags.is_empty() {
            entry = self.with_older(entry).await?;
        }
        let shown = self.shown(&mut entry).await?;
        let mut seen = HashSet::new();
        entry.content.retain(|it| seen.insert(it.clone()));
        let new: Vec<_> = entry.content.iter().skip(before).cloned().collect();
        self.parts.pins.pin_all(&self.pins_of(&entry.pin, &new)?).await?;
        repository.link(&shown).await?;
        self.hold(&entry, new.iter().map(|(digest, _)| digest.hex().to_owned()).collect()).await?;
        let (key, log) =
            (keys::entry(&entry.instance, &name), AuditLog::new(self.parts.records.clone()));
        let details = json!({"instance": entry.instance, "digest": entry.release.subject.digest});
        let event = self.event(&entry, "release.show", WHO, details);
        for _ in 0..TRIES {
            let Some(found) = self.parts.records.get(&key).await? else { return Ok(false) };
            let now: CatalogEntry = json::read(&found.value, MAX_RECORD)?;
            // What a newer server wrote there beside stays.
            let mut kept: Map<String, Value> = json::read(&found.value, MAX_RECORD)?;
            kept.insert("content".to_owned(), json!(entry.content));
            kept.insert("tags".to_owned(), json!(entry.tags));
            let value = Some(json::write(&kept)?.into());
            let own = Write { key: key.clone(), expect: Expect::Version(found.version), value };
            let mut writes = self.show_writes(&entry, &shown).await?;
            if now.rejected.is_some() {
                let tag = repository.untag(&name.version).key;
                writes.retain(|it| it.key != tag);
            }
            writes.push(own);
            match log.append_with(vec![event.clone()], writes).await {
                Ok(_) => return Ok(true),
                Err(RecordsError::Conflict { key: changed })
                    if changed == key || changed.starts_with(REGISTRY) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CatalogError::Registry(RegistryError::Busy))
    }

    /// The entry with what was signed in cosign's older form, but for the signature of the image: that takes the key.
    async fn with_older(&self, mut entry: CatalogEntry) -> Result<CatalogEntry, CatalogError> {
        let Ok(key) = PublicKey::from_pem(&entry.public_key) else { return Ok(entry) };
        let keys = KeyRing::single("release", key);
        let bundles = self.bundles(&entry).await?;
        let signed = bundles.into_iter().filter_map(|bundle| {
            let kind = Attestation::from_bundle(&bundle, &keys).ok()?.statement.predicate_type;
            Some((bundle, kind))
        });
        let (signed, store) = (signed.collect::<Vec<_>>(), Blocking::new(self.parts.blobs.clone()));
        let subject = entry.release.subject.clone();
        let older = blocking(move || {
            let mut older = Older::default();
            older.add_attestations(&store, &subject, &signed)?;
            Ok(older)
        });
        let older = older.await?;
        entry.content.extend(older.content);
        entry.tags.extend(older.tags);
        Ok(entry)
    }
}
