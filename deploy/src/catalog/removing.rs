//! How a release goes: in one step with the audit log, and from the registry in the same one. What it was made of is let go
//! of behind that, and so is what names it; a crash in between leaves no more than the next [`Catalog::sweep_removed`]
//! finds. Its name never comes to stand for other content.

use std::collections::HashMap;

use kiln_cas::pins::Pin;
use kiln_cas::records::{Expect, MAX_BATCH, Record, RecordsError, Write};
use kiln_cas::stores::audit::{AuditEvent, AuditLog};
use serde_json::json;

use super::entry::{Attached, CatalogEntry};
use super::error::CatalogError;
use super::showing::tags;
use super::{Catalog, MAX_RECORD, keys};
use crate::json;
use crate::oci::{ContentDigest, Repository};
use crate::registry::store::ReleasedRepository;
use crate::releases::ReleaseName;

/// Records that are read together.
const PAGE: usize = 500;
/// Releases of a repository that are looked at for one that needs a manifest; where there are more, it stays.
const MAX_HOLDERS: usize = 100;

fn delete(key: String) -> Write {
    Write { key, expect: Expect::Anything, value: None }
}

impl Catalog {
    /// Removes a release, if it has this content and nothing came in between. `unless`: writes that fail where it has to
    /// stay. `false`: somebody changed something of it; look again.
    pub async fn remove(
        &self,
        instance: &str,
        (name, digest): (&ReleaseName, &ContentDigest),
        unless: Vec<Write>,
        who: &str,
    ) -> Result<bool, CatalogError> {
        let key = keys::entry(instance, name);
        let Some(record) = self.parts.records.get(&key).await? else { return Ok(false) };
        let entry: CatalogEntry = json::read(&record.value, MAX_RECORD)?;
        if entry.release.subject.digest != *digest {
            return Ok(false);
        }
        let gone = Some(digest.to_string().into_bytes().into());
        let mut writes = unless;
        writes.extend([
            Write { key: key.clone(), expect: Expect::Version(record.version), value: None },
            Write { key: keys::gone(instance, name), expect: Expect::Anything, value: gone },
            Write {
                key: keys::unswept(instance),
                expect: Expect::Anything,
                value: Some(Vec::new().into()),
            },
            delete(keys::pin(&entry.pin)),
        ]);
        writes.extend(self.hide_writes(&entry).await?);
        let event = AuditEvent {
            time: u64::try_from(self.now().unix()).unwrap_or(0),
            actor: who.to_owned(),
            action: "release.remove".to_owned(),
            subject: name.to_string(),
            details: json!({"instance": instance, "digest": digest}).to_string(),
        };
        let log = AuditLog::new(self.parts.records.clone());
        match log.append_with(vec![event], writes).await {
            Ok(_) => {}
            Err(RecordsError::Conflict { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        self.unpin(&entry).await?;
        Ok(true)
    }

    /// The writes that take it from the registry.
    async fn hide_writes(&self, entry: &CatalogEntry) -> Result<Vec<Write>, CatalogError> {
        let name = &entry.release.name;
        let repository = self.repository(&name.repository);
        if repository.owner().await?.is_none_or(|it| it != entry.instance) {
            return Ok(Vec::new());
        }
        let changes = repository.changes().await?;
        let (mut roots, mut untagged) = (Vec::new(), vec![repository.untag(&name.version)]);
        roots.extend(entry.release.attestations.iter().map(|it| it.digest.clone()));
        let subject = &entry.release.subject.digest;
        if !self.is_held_besides(entry, subject).await? {
            roots.push(subject.clone());
            roots.extend(tags(entry).map(|(_, it)| it.digest.clone()));
            untagged.extend(tags(entry).map(|(tag, _)| repository.untag(&tag)));
        }
        let mut hidden = Vec::new();
        for digest in repository.reach(&roots).await? {
            if !self.is_held_besides(entry, &digest).await? {
                hidden.push(digest);
            }
        }
        let mut writes = repository.hide(&hidden, changes).await?;
        writes.extend(untagged);
        Ok(writes)
    }

    /// Whether another release of the repository has it.
    async fn is_held_besides(
        &self,
        entry: &CatalogEntry,
        digest: &ContentDigest,
    ) -> Result<bool, CatalogError> {
        let (instance, own) = (&entry.instance, &entry.release.name);
        let prefix = keys::holders_in(instance, digest.hex(), &own.repository);
        let records = self.parts.records.list(&prefix, None, false, MAX_HOLDERS).await?;
        if records.len() == MAX_HOLDERS {
            return Ok(true);
        }
        for (name, manifest) in records.iter().filter_map(|it| keys::holder(&it.key)) {
            let other = if name == *own { None } else { self.find(instance, &name).await? };
            if other.is_some_and(|it| it.release.subject.digest.hex() == manifest) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lets go of everything that belongs to releases that are not there any more: what was signed of them since they were
    /// made, and what says which files they had.
    pub async fn sweep_removed(&self, instance: &str) -> Result<(), CatalogError> {
        let unswept = self.parts.records.get(&keys::unswept(instance)).await?;
        let Some(unswept) = unswept else { return Ok(()) };
        let (mut known, mut whole) = (HashMap::new(), true);
        let prefix = keys::attached_of(instance);
        let mut after = None::<String>;
        while let Some(page) = self.page(&prefix, &mut after).await? {
            for record in page {
                let Some(name) = keys::attached_name(&record.key) else { continue };
                if self.is_gone(instance, &name, &mut known).await? {
                    whole &= self.detach(instance, &name.repository, &record).await?;
                }
            }
        }
        let prefix = keys::all_holders(instance);
        let mut after = None::<String>;
        while let Some(page) = self.page(&prefix, &mut after).await? {
            let mut gone = Vec::new();
            for record in page {
                let Some((name, _)) = keys::holder(&record.key) else { continue };
                if self.is_gone(instance, &name, &mut known).await? {
                    gone.push(delete(record.key));
                }
            }
            for writes in gone.chunks(MAX_BATCH) {
                self.parts.records.write(writes.to_vec()).await?;
            }
        }
        if !whole {
            return Ok(());
        }
        let expect = Expect::Version(unswept.version);
        let swept = Write { key: unswept.key, expect, value: None };
        match self.parts.records.write(vec![swept]).await {
            // More was removed meanwhile.
            Err(RecordsError::Conflict { .. }) => Ok(()),
            done => Ok(done.map(drop)?),
        }
    }

    /// Records behind those that were read before; `None`: there are no more.
    async fn page(
        &self,
        prefix: &str,
        after: &mut Option<String>,
    ) -> Result<Option<Vec<Record>>, CatalogError> {
        let page = self.parts.records.list(prefix, after.as_deref(), false, PAGE).await?;
        *after = page.last().map(|it| it.key.clone());
        Ok((!page.is_empty()).then_some(page))
    }

    /// Whether there was such a release, and is none any more. One that is being made is none that was.
    async fn is_gone(
        &self,
        instance: &str,
        name: &ReleaseName,
        known: &mut HashMap<ReleaseName, bool>,
    ) -> Result<bool, CatalogError> {
        if let Some(gone) = known.get(name) {
            return Ok(*gone);
        }
        let was = self.parts.records.get(&keys::gone(instance, name)).await?.is_some();
        let gone = was && self.find(instance, name).await?.is_none();
        known.insert(name.clone(), gone);
        Ok(gone)
    }

    /// `false`: it cannot be read, or somebody changed something of the repository meanwhile, and it is left for the next look.
    async fn detach(
        &self,
        instance: &str,
        name: &Repository,
        record: &Record,
    ) -> Result<bool, CatalogError> {
        let read = json::read::<Attached>(&record.value, MAX_RECORD);
        let Some(attached) = self.unread.readable(&record.key, read) else { return Ok(false) };
        let repository = self.repository(name);
        let mut writes = vec![
            Write { key: record.key.clone(), expect: Expect::Version(record.version), value: None },
            delete(keys::pin(&attached.pin)),
        ];
        if repository.owner().await?.is_some_and(|it| it == instance) {
            writes.extend(hide_attached(&repository, &attached).await?);
        }
        match self.parts.records.write(writes).await {
            Ok(_) => {}
            Err(RecordsError::Conflict { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let pins: Vec<Pin> = self.pins_of(&attached.pin, &attached.content)?;
        self.parts.pins.unpin_all(&pins).await?;
        Ok(true)
    }
}

async fn hide_attached(
    repository: &ReleasedRepository,
    attached: &Attached,
) -> Result<Vec<Write>, CatalogError> {
    let hidden: Vec<_> = attached.content.iter().map(|(digest, _)| digest.clone()).collect();
    let changes = repository.changes().await?;
    Ok(repository.hide(&hidden, changes).await?)
}
