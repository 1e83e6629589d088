//! What is there, and where content comes from.

use std::collections::BTreeMap;
use std::io::{self, Read};

use kiln_cas::records::{Record, RecordsError};
use kiln_cas::{Digest, DigestFunction};

use super::blocking::Blocking;
use super::entry::CatalogEntry;
use super::error::CatalogError;
use super::{Catalog, MAX_RECORD, blocking, keys};
use crate::executions::{RecordId, record};
use crate::json;
use crate::oci::{ContentDigest, Descriptor, Document, Manifest};
use crate::provenance::{
    ActionRecord, CLOSURE_INDEX_TYPE, ClosureEntry, Difference, SLSA_PREDICATE, Side, read_index,
    read_part,
};
use crate::releases::{CLOSURE_ARTIFACT_TYPE, ReleaseName};
use crate::signing::{Attestation, BUNDLE_TYPE, KeyRing, MAX_BUNDLE_BYTES, PublicKey, TrustedKey};

/// Bytes of a manifest, and of a part of a closure's list.
const MAX_MANIFEST: u64 = 4 << 20;
const MAX_PART: u64 = 32 << 20;
/// Records and releases that are named for one content.
const MAX_ORIGINS: usize = 20;

/// What is known of some content: what made it, and which releases hold it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    /// Records of actions that made the content, the latest first.
    pub made: Vec<ActionRecord>,
    pub releases: Vec<ReleaseName>,
    /// Those of the releases that somebody rejected.
    pub rejected: Vec<ReleaseName>,
}

/// Opens content of a release by its digest.
#[derive(Clone)]
pub struct BlobOpener {
    store: Blocking,
    sizes: BTreeMap<ContentDigest, u64>,
}

impl BlobOpener {
    /// Blocks; must be called on a thread that may.
    pub fn open(&self, digest: &ContentDigest) -> io::Result<Box<dyn Read>> {
        let size = self.sizes.get(digest).ok_or(io::ErrorKind::NotFound)?;
        let stored = super::sized(digest, *size).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(self.store.open(&stored).map_err(io::Error::other)?))
    }

    fn read(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, CatalogError> {
        let stored = super::blocking::stored(descriptor);
        let stored = stored.ok_or_else(|| CatalogError::Sha512(descriptor.digest.clone()))?;
        Ok(self.store.read(&stored, limit).map_err(CatalogError::Evicted)?.into())
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Option<Manifest>, CatalogError> {
        let data = self.read(descriptor, MAX_MANIFEST)?;
        Ok(match Document::read(&descriptor.media_type, &data) {
            Ok(Document::Manifest(manifest)) => Some(*manifest),
            _ => None,
        })
    }

    /// The lines of the closure's list, one after the other.
    fn closure(
        &self,
        entry: &CatalogEntry,
        each: &mut dyn FnMut(ClosureEntry),
    ) -> Result<(), CatalogError> {
        let list = |it| CatalogError::Provenance(crate::provenance::ProvenanceError::List(it));
        for attestation in &entry.release.attestations {
            if attestation.artifact_type.as_deref() != Some(CLOSURE_ARTIFACT_TYPE) {
                continue;
            }
            let Some(manifest) = self.manifest(attestation)? else { continue };
            let of = |it: &&Descriptor| it.media_type == CLOSURE_INDEX_TYPE;
            let Some(index) = manifest.layers.iter().find(of) else { continue };
            let index = read_index(&self.read(index, MAX_MANIFEST)?).map_err(list)?;
            for part in &index.parts {
                let named = manifest.layers.iter().find(|it| it.digest.to_string() == part.digest);
                let Some(named) = named else { continue };
                read_part(&self.read(named, MAX_PART)?, part, each).map_err(list)?;
            }
        }
        Ok(())
    }

    /// What was signed about the release, as bundles; verified by nobody yet.
    fn bundles(&self, entry: &CatalogEntry) -> Result<Vec<Vec<u8>>, CatalogError> {
        let mut bundles = Vec::new();
        for attestation in &entry.release.attestations {
            if attestation.artifact_type.as_deref() != Some(BUNDLE_TYPE) {
                continue;
            }
            let Some(manifest) = self.manifest(attestation)? else { continue };
            for layer in &manifest.layers {
                bundles.push(self.read(layer, MAX_BUNDLE_BYTES as u64)?);
            }
        }
        Ok(bundles)
    }

    /// The predicate of a kind that was signed about the release, verified with the key that is noted.
    fn predicate(
        &self,
        entry: &CatalogEntry,
        kind: &str,
    ) -> Result<Option<serde_json::Value>, CatalogError> {
        let Ok(key) = PublicKey::from_pem(&entry.public_key) else { return Ok(None) };
        let keys = KeyRing::new(vec![TrustedKey::always("release", key)]).unwrap_or_default();
        let bundles = self.bundles(entry)?;
        let read = |bundle: &Vec<u8>| Attestation::from_bundle(bundle, &keys).ok();
        let mut statements = bundles.iter().filter_map(read).map(|it| it.statement);
        let found = statements.find(|it| it.predicate_type == kind);
        Ok(found.map(|it| serde_json::Value::Object(it.predicate)))
    }
}

impl Catalog {
    pub async fn find(
        &self,
        instance: &str,
        name: &ReleaseName,
    ) -> Result<Option<CatalogEntry>, CatalogError> {
        let found = self.parts.records.get(&keys::entry(instance, name)).await?;
        Ok(found.map(|it| json::read(&it.value, MAX_RECORD)).transpose()?)
    }

    pub async fn get(
        &self,
        instance: &str,
        name: &ReleaseName,
    ) -> Result<CatalogEntry, CatalogError> {
        let found = self.find(instance, name).await?;
        found.ok_or_else(|| CatalogError::NoRelease(name.clone()))
    }

    /// The releases of an instance that have this manifest.
    pub async fn of_manifest(
        &self,
        instance: &str,
        manifest: &ContentDigest,
    ) -> Result<Vec<CatalogEntry>, CatalogError> {
        let prefix = keys::holders(instance, manifest.hex());
        let listed = self.parts.records.list(&prefix, None, false, MAX_ORIGINS).await?;
        let mut found = Vec::new();
        for (name, of) in listed.iter().filter_map(|it| keys::holder(&it.key)) {
            if of == manifest.hex()
                && let Some(entry) = self.find(instance, &name).await?
                && entry.release.subject.digest == *manifest
            {
                found.push(entry);
            }
        }
        Ok(found)
    }

    /// Releases of an instance in the order of their names, behind one of them, but those that cannot be read.
    pub async fn list(
        &self,
        instance: &str,
        after: Option<&ReleaseName>,
        limit: usize,
    ) -> Result<Vec<CatalogEntry>, CatalogError> {
        let prefix = keys::entries(instance);
        let mut after = after.map(|it| keys::entry(instance, it));
        let mut entries: Vec<CatalogEntry> = Vec::new();
        // Whoever asks takes a short list for the last one.
        while entries.len() < limit {
            let found = self.parts.records.list(&prefix, after.as_deref(), false, limit).await?;
            entries.extend(found.iter().filter_map(|it| self.readable(it)));
            match found.last() {
                Some(last) if found.len() == limit => after = Some(last.key.clone()),
                _ => break,
            }
        }
        entries.truncate(limit);
        Ok(entries)
    }

    /// Lists releases as [`Self::list`] does, for whoever removes some of them. Errors: also where one cannot be read,
    /// as it is not known what that needs.
    pub async fn list_whole(
        &self,
        instance: &str,
        after: Option<&ReleaseName>,
        limit: usize,
    ) -> Result<Vec<CatalogEntry>, CatalogError> {
        let (prefix, after) = (keys::entries(instance), after.map(|it| keys::entry(instance, it)));
        let found = self.parts.records.list(&prefix, after.as_deref(), false, limit).await?;
        let read = |it: &Record| json::read(&it.value, MAX_RECORD);
        Ok(found.iter().map(read).collect::<Result<_, _>>()?)
    }

    /// A release among many. `None`: it cannot be read, which holds up none of the others.
    pub(super) fn readable(&self, stored: &Record) -> Option<CatalogEntry> {
        self.unread.readable(&stored.key, json::read(&stored.value, MAX_RECORD))
    }

    /// Instances that have releases, at most `limit`.
    pub async fn instances(&self, limit: usize) -> Result<Vec<String>, CatalogError> {
        let (mut found, mut after) = (Vec::new(), None::<String>);
        while found.len() < limit {
            let page = self.parts.records.list(keys::ENTRIES, after.as_deref(), false, 1).await?;
            let Some(record) = page.first() else { break };
            let Some(entry) = self.readable(record) else {
                // The next one says of which instance both are.
                after = Some(record.key.clone());
                continue;
            };
            // Behind all releases of the instance: no name has such a letter.
            after = Some(format!("{}~", keys::entries(&entry.instance)));
            found.push(entry.instance);
        }
        Ok(found)
    }

    /// Must be called within a Tokio runtime.
    pub fn opener(&self, entry: &CatalogEntry) -> BlobOpener {
        let store = Blocking::new(self.parts.blobs.clone());
        BlobOpener { store, sizes: entry.content.iter().cloned().collect() }
    }

    /// The bundles that are kept about a release.
    pub async fn bundles(&self, entry: &CatalogEntry) -> Result<Vec<Vec<u8>>, CatalogError> {
        let (opener, entry) = (self.opener(entry), entry.clone());
        blocking(move || opener.bundles(&entry)).await
    }

    /// The provenance that was signed.
    pub async fn provenance(
        &self,
        entry: &CatalogEntry,
    ) -> Result<Option<serde_json::Value>, CatalogError> {
        let (opener, entry) = (self.opener(entry), entry.clone());
        blocking(move || opener.predicate(&entry, SLSA_PREDICATE)).await
    }

    /// Lines of the closure's list behind `skip` others, and whether there are more.
    pub async fn closure(
        &self,
        entry: &CatalogEntry,
        skip: usize,
        limit: usize,
    ) -> Result<(Vec<ClosureEntry>, bool), CatalogError> {
        let (opener, entry) = (self.opener(entry), entry.clone());
        blocking(move || {
            let (mut lines, mut count) = (Vec::new(), 0_usize);
            opener.closure(&entry, &mut |line| {
                if count >= skip && lines.len() < limit {
                    lines.push(line);
                }
                count += 1;
            })?;
            Ok((lines, count > skip.saturating_add(limit)))
        })
        .await
    }

    /// What the closure of `new` has that the one of `old` has not, and the other way round.
    pub async fn difference(
        &self,
        old: &CatalogEntry,
        new: &CatalogEntry,
    ) -> Result<Difference, CatalogError> {
        let (openers, entries) = ([self.opener(old), self.opener(new)], [old.clone(), new.clone()]);
        blocking(move || {
            let [mut one, mut two] = [Side::default(), Side::default()];
            openers[0].closure(&entries[0], &mut |line| one.add(line))?;
            openers[1].closure(&entries[1], &mut |line| two.add(line))?;
            Ok(Difference::between(&one, &two))
        })
        .await
    }

    /// Releases that hold content of this hash.
    async fn holders(&self, instance: &str, hex: &str) -> Result<Origins, CatalogError> {
        let prefix = keys::holders(instance, hex);
        let listed = self.parts.records.list(&prefix, None, false, MAX_ORIGINS).await?;
        let named: Vec<_> = listed.iter().filter_map(|it| keys::holder(&it.key)).collect();
        let mut found = Origins::default();
        for (name, manifest) in named {
            let entry = self.find(instance, &name).await?;
            let same = |it: &CatalogEntry| it.release.subject.digest.hex() == manifest;
            let Some(entry) = entry.filter(same) else { continue };
            if entry.rejected.is_some() {
                found.rejected.push(name.clone());
            }
            found.releases.push(name);
        }
        Ok(found)
    }

    /// What made content of this hash, and which releases hold it.
    pub async fn origins(&self, instance: &str, hex: &str) -> Result<Origins, CatalogError> {
        let mut found = self.holders(instance, hex).await?;
        for function in DigestFunction::ALL {
            let Ok(digest) = Digest::of_any_size(hex.as_bytes(), 0, function) else { continue };
            for id in self.executions.makers(instance, &digest).await? {
                found.made.extend(self.made(id).await?);
            }
        }
        found.made.sort_by_key(|it| std::cmp::Reverse(it.finished));
        found.made.truncate(MAX_ORIGINS);
        Ok(found)
    }

    async fn made(&self, id: RecordId) -> Result<Option<ActionRecord>, RecordsError> {
        Ok(self.executions.get(id).await?.and_then(|it| record(id, &it)))
    }
}
