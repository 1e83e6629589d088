//! Lets go of what no tag needs any more.
//!
//! Repositories in which that may be are marked (`registry/untidy/`). What is kept is worked out from all of a
//! repository's records; each pin is let go of in a write that fails if anything of the repository came to be kept
//! since (`registry/changes/`), and then all is worked out anew.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use kiln_cas::records::{Expect, Record, Version};
use kiln_net::causes::chain;

use super::error::{RegistryError, is_conflict};
use super::keeping::Pinning;
use super::keys::{self, PINNING, UNTIDY};
use super::model::{StoredManifest, put, read, unchanged, written};
use super::registry::{PAGE, Registry};
use super::released::owner;
use crate::oci::{ContentDigest, Repository};
use crate::registry::kept::{Node, kept};

/// Manifests of a repository that is tidied. One with more keeps what is pinned.
const MAX_MANIFESTS: usize = 500_000;
/// How often marked repositories are looked at.
const LOOK: Duration = Duration::from_secs(60);
/// Whoever pins or lets go has crashed if that takes longer, in milliseconds.
const CRASHED: u64 = 600_000;

/// A repository as it is at one moment.
struct Picture {
    /// The record of changes of that moment.
    changes: Option<Record>,
    nodes: HashMap<ContentDigest, Node>,
    pinned: Vec<ContentDigest>,
    unpinned: Vec<ContentDigest>,
    tagged: Vec<ContentDigest>,
}

impl Registry {
    /// Tidies from time to time. Never returns; drop it to end it.
    pub async fn keep_tidy(self) {
        loop {
            if let Err(error) = self.tidy().await {
                let error = chain(&error);
                tracing::warn!(error, "repositories are not tidied for now");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Lets go of what crashes left behind and of what is needed no more, and pins what is needed.
    pub async fn tidy(&self) -> Result<(), RegistryError> {
        self.end_pinnings().await?;
        let mut after: Option<String> = None;
        loop {
            let page = self.parts.records.list(UNTIDY, after.as_deref(), false, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key.clone());
            for record in &page {
                // It stays marked, and holds up no others.
                if let Err(error) = self.tidy_marked(record).await {
                    let error = chain(&error);
                    tracing::warn!(record = record.key, error, "not tidied for now");
                }
            }
        }
    }

    async fn tidy_marked(&self, record: &Record) -> Result<(), RegistryError> {
        let name = record.key.strip_prefix(UNTIDY).unwrap_or_default();
        let repository = name.parse().map_err(|_| RegistryError::Damaged)?;
        match self.tidy_repository(&repository).await? {
            true => self.forget_untidy(&repository, record.version).await,
            false => Ok(()),
        }
    }

    async fn end_pinnings(&self) -> Result<(), RegistryError> {
        let mut after: Option<String> = None;
        loop {
            let page = self.parts.records.list(PINNING, after.as_deref(), false, 1).await?;
            let Some(record) = page.first() else { return Ok(()) };
            after = Some(record.key.clone());
            // It stays, and holds up no others.
            if let Err(error) = self.end_pinning(record).await {
                let error = chain(&error);
                tracing::warn!(record = record.key, error, "not let go of for now");
            }
        }
    }

    async fn end_pinning(&self, record: &Record) -> Result<(), RegistryError> {
        let pinning: Pinning = read(&record.value)?;
        if self.now().saturating_sub(pinning.at) < CRASHED {
            return Ok(());
        }
        let generation = record.key.strip_prefix(PINNING).unwrap_or_default();
        let repository = pinning.repository.parse().map_err(|_| RegistryError::Damaged)?;
        let named = match self.stored(&repository, &pinning.digest).await {
            Ok((stored, _)) => stored.pin.as_deref() == Some(generation),
            Err(RegistryError::NoManifest(_)) => false,
            Err(error) => return Err(error),
        };
        match named {
            true => Ok(()),
            false => self.let_go(generation, &pinning).await,
        }
    }

    /// `false`: others change it, and it has to be looked at again.
    async fn tidy_repository(&self, repository: &Repository) -> Result<bool, RegistryError> {
        // What is there is pinned by releases.
        if owner(&self.parts.records, repository).await?.is_some() {
            return Ok(true);
        }
        let Some(picture) = self.picture(repository).await? else {
            tracing::warn!(%repository, "too many manifests: what is pinned there stays pinned");
            return Ok(true);
        };
        let kept = kept(picture.tagged, &picture.nodes);
        for digest in picture.unpinned.iter().filter(|digest| kept.contains(digest)) {
            self.pin_manifest(repository, digest).await?;
        }
        let mut changes = unchanged(picture.changes.as_ref());
        for digest in picture.pinned.iter().filter(|digest| !kept.contains(digest)) {
            match self.unpin_manifest(repository, digest, changes).await? {
                Some(version) => changes = Expect::Version(version),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Gives the version of the record of changes; `None`: there was a change.
    async fn unpin_manifest(
        &self,
        repository: &Repository,
        digest: &ContentDigest,
        changes: Expect,
    ) -> Result<Option<Version>, RegistryError> {
        let (stored, version) = match self.stored(repository, digest).await {
            Ok(found) => found,
            Err(RegistryError::NoManifest(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some((begin, generation, pinning)) = self.release_write(repository, digest, &stored)?
        else {
            return Ok(None);
        };
        let stored = StoredManifest { pin: None, ..stored };
        let key = keys::manifest(repository, digest);
        let writes = vec![
            put(keys::changes(repository), changes, Bytes::new()),
            put(key, Expect::Version(version), written(&stored)?),
            begin,
        ];
        match self.parts.records.write(writes).await {
            Ok(versions) => {
                self.let_go(&generation, &pinning).await?;
                Ok(versions.first().copied())
            }
            Err(error) if is_conflict(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// `None`: there is too much in it.
    async fn picture(&self, repository: &Repository) -> Result<Option<Picture>, RegistryError> {
        let changes = self.record(&keys::changes(repository)).await?;
        let mut picture = Picture {
            changes,
            nodes: HashMap::new(),
            pinned: Vec::new(),
            unpinned: Vec::new(),
            tagged: Vec::new(),
        };
        let (tags, manifests) = (keys::tags(repository), keys::manifests(repository));
        let mut after: Option<String> = None;
        loop {
            let page = self.parts.records.list(&tags, after.as_deref(), false, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            picture.tagged.extend(page.iter().filter_map(digest_of_tag));
        }
        after = None;
        loop {
            let page = self.parts.records.list(&manifests, after.as_deref(), false, PAGE).await?;
            let Some(last) = page.last() else { return Ok(Some(picture)) };
            if picture.nodes.len() > MAX_MANIFESTS {
                return Ok(None);
            }
            after = Some(last.key.clone());
            for record in &page {
                let digest = record.key.strip_prefix(&manifests).unwrap_or_default();
                let digest: ContentDigest = digest.parse().map_err(|_| RegistryError::Damaged)?;
                let stored: StoredManifest = read(&record.value)?;
                match stored.pin {
                    Some(_) => picture.pinned.push(digest.clone()),
                    None => picture.unpinned.push(digest.clone()),
                }
                let node = Node { manifests: stored.manifests, subject: stored.subject };
                picture.nodes.insert(digest, node);
            }
        }
    }
}

/// What a tag names.
pub fn digest_of_tag(record: &Record) -> Option<ContentDigest> {
    std::str::from_utf8(&record.value).ok()?.parse().ok()
}
