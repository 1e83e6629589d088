//! What tags need is pinned in the store.
//!
//! Pins have the name of a generation, which the manifest's record names as well. Who pins or lets go writes down the
//! generation first (`registry/pinning/`), so that whoever crashes in between leaves nothing pinned for ever: a
//! generation that no manifest names is let go of.

use std::collections::HashSet;

use bytes::Bytes;
use kiln_cas::pins::Pin;
use kiln_cas::records::{Expect, Version, Write};
use serde::{Deserialize, Serialize};

use super::error::{RegistryError, is_conflict};
use super::keys;
use super::model::{StoredManifest, blob_of_name, delete, put, read, written};
use super::registry::{PAGE, Registry};
use super::sessions::fresh_id;
use crate::oci::{ContentDigest, Repository};

const KIND: &str = "registry";
/// Manifests that one push may have pinned; what is beyond is pinned when the repository is tidied.
const MAX_KEPT: usize = 4096;
/// Referrers of one manifest that a push has pinned, likewise.
const MAX_ABOUT: usize = 1000;

/// Pins that are being made, or let go of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinning {
    pub repository: String,
    pub digest: ContentDigest,
    /// Blobs that are pinned, each as `HASH/SIZE`.
    pub blobs: Vec<String>,
    /// Milliseconds since the Unix epoch.
    pub at: u64,
}

impl Pinning {
    fn of(
        repository: &Repository,
        digest: &ContentDigest,
        stored: &StoredManifest,
        at: u64,
    ) -> Self {
        let mut blobs = stored.blobs.clone();
        blobs.push(format!("{}/{}", stored.sha256, stored.size));
        Self { repository: repository.to_string(), digest: digest.clone(), blobs, at }
    }

    fn pins(&self, generation: &str) -> Result<Vec<Pin>, RegistryError> {
        let pin = |blob: &String| {
            let digest = blob_of_name(blob)?;
            let (kind, name) = (KIND.to_owned(), generation.to_owned());
            Ok(Pin { digest, kind, name, at: self.at })
        };
        self.blobs.iter().map(pin).collect()
    }
}

impl Registry {
    /// Pins a manifest with all that it needs and all that is said about it.
    pub(super) async fn keep(
        &self,
        repository: &Repository,
        root: &ContentDigest,
    ) -> Result<(), RegistryError> {
        let (mut open, mut seen) = (vec![root.clone()], HashSet::new());
        while let Some(digest) = open.pop() {
            if seen.len() >= MAX_KEPT || !seen.insert(digest.clone()) {
                continue;
            }
            let Some(stored) = self.pin_manifest(repository, &digest).await? else { continue };
            open.extend(stored.manifests);
            open.extend(stored.subject);
            open.extend(self.about(repository, &digest, MAX_ABOUT).await?);
        }
        Ok(())
    }

    /// Pins one manifest with its blobs, if it is not. `None`: it is not there.
    pub(super) async fn pin_manifest(
        &self,
        repository: &Repository,
        digest: &ContentDigest,
    ) -> Result<Option<StoredManifest>, RegistryError> {
        loop {
            let (stored, version) = match self.stored(repository, digest).await {
                Ok(found) => found,
                Err(RegistryError::NoManifest(_)) => return Ok(None),
                Err(error) => return Err(error),
            };
            if stored.pin.is_some() {
                return Ok(Some(stored));
            }
            let generation = fresh_id()?;
            let pinning = Pinning::of(repository, digest, &stored, self.now());
            let begin = self.begin_write(&generation, &pinning)?;
            let begun = self.parts.records.write(vec![begin]).await?;
            let pinned = self.parts.pins.pin_all(&pinning.pins(&generation)?).await;
            if let Err(error) = pinned {
                self.let_go(&generation, &pinning).await?;
                return match error {
                    // What aged away is not kept; it is not served either.
                    kiln_cas::pins::PinError::Absent(_) => Ok(None),
                    error => Err(error.into()),
                };
            }
            let stored = StoredManifest { pin: Some(generation.clone()), ..stored };
            let key = keys::manifest(repository, digest);
            let own = begun.first().copied().unwrap_or_default();
            let done = vec![
                put(key, Expect::Version(version), written(&stored)?),
                delete(keys::pinning(&generation), Expect::Version(own)),
            ];
            match self.parts.records.write(done).await {
                Ok(_) => return Ok(Some(stored)),
                Err(error) if is_conflict(&error) => self.let_go(&generation, &pinning).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn begin_write(&self, generation: &str, pinning: &Pinning) -> Result<Write, RegistryError> {
        Ok(put(keys::pinning(generation), Expect::Anything, written(pinning)?))
    }

    /// The write that has to go with the one that makes a manifest's record name its pins no more.
    pub(super) fn release_write(
        &self,
        repository: &Repository,
        digest: &ContentDigest,
        stored: &StoredManifest,
    ) -> Result<Option<(Write, String, Pinning)>, RegistryError> {
        let Some(generation) = stored.pin.clone() else { return Ok(None) };
        let pinning = Pinning::of(repository, digest, stored, self.now());
        Ok(Some((self.begin_write(&generation, &pinning)?, generation, pinning)))
    }

    /// Lets go of pins that no manifest names.
    pub(super) async fn let_go(
        &self,
        generation: &str,
        pinning: &Pinning,
    ) -> Result<(), RegistryError> {
        self.parts.pins.unpin_all(&pinning.pins(generation)?).await?;
        let done = delete(keys::pinning(generation), Expect::Anything);
        self.parts.records.write(vec![done]).await?;
        Ok(())
    }

    /// What is about a manifest, at most `limit`.
    pub(super) async fn about(
        &self,
        repository: &Repository,
        subject: &ContentDigest,
        limit: usize,
    ) -> Result<Vec<ContentDigest>, RegistryError> {
        let prefix = keys::referrers(repository, subject);
        let (mut found, mut after) = (Vec::new(), None::<String>);
        while found.len() < limit {
            let asked = PAGE.min(limit - found.len());
            let page = self.parts.records.list(&prefix, after.as_deref(), false, asked).await?;
            found.extend(page.iter().filter_map(|it| it.key.strip_prefix(&prefix)?.parse().ok()));
            match page.last() {
                Some(last) if page.len() == asked => after = Some(last.key.clone()),
                _ => break,
            }
        }
        Ok(found)
    }

    /// Nothing of a repository waits to be looked at, unless somebody said so again since.
    pub(super) async fn forget_untidy(
        &self,
        repository: &Repository,
        version: Version,
    ) -> Result<(), RegistryError> {
        let write = delete(keys::untidy(repository), Expect::Version(version));
        match self.parts.records.write(vec![write]).await {
            Err(error) if is_conflict(&error) => Ok(()),
            done => Ok(done.map(drop)?),
        }
    }

    pub(super) fn untidy_write(repository: &Repository) -> Write {
        put(keys::untidy(repository), Expect::Anything, Bytes::new())
    }

    /// A manifest's record and its version.
    pub(super) async fn stored(
        &self,
        repository: &Repository,
        digest: &ContentDigest,
    ) -> Result<(StoredManifest, Version), RegistryError> {
        let record = self.record(&keys::manifest(repository, digest)).await?;
        let record = record.ok_or_else(|| RegistryError::NoManifest(digest.to_string()))?;
        Ok((read(&record.value)?, record.version))
    }
}
