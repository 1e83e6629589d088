//! Repositories that releases own: nobody pushes there. What is in them is in the store already, pinned by the releases
//! that need it, and shown by the same write that makes a release visible.

use std::collections::HashSet;

use bytes::Bytes;
use kiln_cas::Digest;
use kiln_cas::records::{Expect, MAX_BATCH, SharedRecords, Write};

use super::error::RegistryError;
use super::keys;
use super::model::{
    Link, StoredManifest, StoredReferrer, delete, name_of_blob, put, read, stored_referrer,
    unchanged, written,
};
use super::registry::PAGE;
use crate::oci::{Algorithm, ContentDigest, Descriptor, Document, Repository, Tag};

/// How deep manifests may be within manifests.
const MAX_DEPTH: usize = 8;

/// A repository of which all that is shown comes from releases of one owner.
pub struct ReleasedRepository {
    records: SharedRecords,
    repository: Repository,
}

/// A manifest that is in the store, and is to be shown with what it names.
#[derive(Debug, Clone)]
pub struct Shown {
    digest: ContentDigest,
    stored: StoredManifest,
    referrer: Option<(ContentDigest, StoredReferrer)>,
    /// Blobs that the manifest names, without manifests.
    blobs: Vec<(ContentDigest, Digest)>,
}

/// Why a repository cannot be a release's.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// What was pushed there could be taken for a release.
    #[error("{0} has manifests that were pushed")]
    Pushed(Repository),
    #[error("{0} is a repository of another instance's releases")]
    Another(Repository),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Shown {
    /// Errors: `Damaged` where something is named by another hash than SHA-256, `Large` where a record cannot hold it.
    pub fn of(descriptor: &Descriptor, document: &Document) -> Result<Self, RegistryError> {
        let bytes = content_of(descriptor)?;
        let mut stored = StoredManifest {
            media_type: descriptor.media_type.clone(),
            size: descriptor.size,
            sha256: descriptor.digest.hex().to_owned(),
            blobs: Vec::new(),
            manifests: Vec::new(),
            subject: document.subject().map(|it| it.digest.clone()),
            pin: None,
        };
        let mut blobs = Vec::new();
        for named in document.names().filter(|it| !it.is_foreign()) {
            match document {
                Document::Index(_) => stored.manifests.push(named.digest.clone()),
                Document::Manifest(_) => {
                    let blob = content_of(named)?;
                    stored.blobs.push(name_of_blob(&blob));
                    blobs.push((named.digest.clone(), blob));
                }
            }
        }
        stored.settle();
        stored.admit()?;
        let about = document.subject().map(|it| it.digest.clone());
        let referrer = about.map(|it| (it, stored_referrer(descriptor, document, &bytes)));
        Ok(Self { digest: descriptor.digest.clone(), stored, referrer, blobs })
    }

    /// The entry as which the manifest is listed among what is about `subject`, if it is about that.
    pub fn about(&self, subject: &ContentDigest) -> Option<&Descriptor> {
        let (about, referrer) = self.referrer.as_ref()?;
        (about == subject).then_some(&referrer.entry)
    }
}

impl ReleasedRepository {
    pub fn new(records: SharedRecords, repository: Repository) -> Self {
        Self { records, repository }
    }

    /// The owner whose releases the repository has; `None`: nobody's.
    pub async fn owner(&self) -> Result<Option<String>, RegistryError> {
        owner(&self.records, &self.repository).await
    }

    /// The writes that make it `owner`'s, and fail if somebody pushes there or takes it meanwhile.
    pub async fn claim(&self, owner: &str) -> Result<Vec<Write>, ClaimError> {
        let changes = keys::changes(&self.repository);
        match self.owner().await? {
            Some(other) if other != owner => {
                return Err(ClaimError::Another(self.repository.clone()));
            }
            Some(_) => return Ok(vec![put(changes, Expect::Anything, Bytes::new())]),
            None => {}
        }
        let before = self.records.get(&changes).await.map_err(RegistryError::from)?;
        let prefix = keys::manifests(&self.repository);
        let pushed = self.records.list(&prefix, None, false, 1).await;
        if !pushed.map_err(RegistryError::from)?.is_empty() {
            return Err(ClaimError::Pushed(self.repository.clone()));
        }
        let value = Bytes::copy_from_slice(owner.as_bytes());
        Ok(vec![
            put(keys::owner(&self.repository), Expect::Absent, value),
            put(changes, unchanged(before.as_ref()), Bytes::new()),
        ])
    }

    /// Says that the repository has what these name. Nothing leads there before a manifest does.
    pub async fn link(&self, shown: &[Shown]) -> Result<(), RegistryError> {
        for writes in self.link_writes(shown)?.chunks(MAX_BATCH) {
            self.records.write(writes.to_vec()).await?;
        }
        Ok(())
    }

    /// The writes that do so; one for each blob.
    pub fn link_writes(&self, shown: &[Shown]) -> Result<Vec<Write>, RegistryError> {
        let mut seen = HashSet::new();
        let blobs = shown.iter().flat_map(|it| &it.blobs).filter(|it| seen.insert(&it.0));
        let link = |(digest, blob): &(ContentDigest, Digest)| {
            let key = keys::blob(&self.repository, digest);
            Ok(put(key, Expect::Anything, written(&Link::of(digest, blob))?))
        };
        blobs.map(link).collect()
    }

    /// The writes that show manifests: at most two for each.
    pub fn show(&self, shown: &[Shown]) -> Result<Vec<Write>, RegistryError> {
        let mut writes = Vec::new();
        for Shown { digest, stored, referrer, .. } in shown {
            let key = keys::manifest(&self.repository, digest);
            writes.push(put(key, Expect::Anything, written(stored)?));
            if let Some((subject, referrer)) = referrer {
                let key = keys::referrer(&self.repository, subject, digest);
                writes.push(put(key, Expect::Anything, written(referrer)?));
            }
        }
        Ok(writes)
    }

    pub fn tag(&self, tag: &Tag, digest: &ContentDigest) -> Write {
        let value = Bytes::from(digest.to_string());
        put(keys::tag(&self.repository, tag), Expect::Anything, value)
    }

    pub fn untag(&self, tag: &Tag) -> Write {
        delete(keys::tag(&self.repository, tag), Expect::Anything)
    }

    pub async fn has(&self, manifest: &ContentDigest) -> Result<bool, RegistryError> {
        Ok(self.stored(manifest).await?.is_some())
    }

    /// How what is about a manifest is listed, at most `limit` of it, in the order of digests. Of what has very many
    /// annotations these are left out.
    pub async fn referrers(
        &self,
        subject: &ContentDigest,
        limit: usize,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let prefix = keys::referrers(&self.repository, subject);
        let (mut found, mut after) = (Vec::new(), None::<String>);
        while found.len() < limit {
            let asked = PAGE.min(limit - found.len());
            let page = self.records.list(&prefix, after.as_deref(), false, asked).await?;
            for record in &page {
                found.push(read::<StoredReferrer>(&record.value)?.entry);
            }
            match page.last() {
                Some(last) if page.len() == asked => after = Some(last.key.clone()),
                _ => break,
            }
        }
        Ok(found)
    }

    /// The writes that hide manifests. They fail if anything came to be shown here since `changes` was read
    /// ([`Self::changes`]). What these name ages as all blobs do.
    pub async fn hide(
        &self,
        manifests: &[ContentDigest],
        changes: Expect,
    ) -> Result<Vec<Write>, RegistryError> {
        let mut writes = vec![put(keys::changes(&self.repository), changes, Bytes::new())];
        for digest in manifests {
            let Some(stored) = self.stored(digest).await? else { continue };
            if let Some(subject) = &stored.subject {
                let key = keys::referrer(&self.repository, subject, digest);
                writes.push(delete(key, Expect::Anything));
            }
            writes.push(delete(keys::manifest(&self.repository, digest), Expect::Anything));
        }
        Ok(writes)
    }

    /// Manifests that are here, and those that they list.
    pub async fn reach(
        &self,
        roots: &[ContentDigest],
    ) -> Result<Vec<ContentDigest>, RegistryError> {
        let mut open: Vec<_> = roots.iter().map(|it| (it.clone(), 0)).collect();
        let (mut seen, mut found) = (HashSet::new(), Vec::new());
        while let Some((digest, depth)) = open.pop() {
            if depth > MAX_DEPTH || !seen.insert(digest.clone()) {
                continue;
            }
            let Some(stored) = self.stored(&digest).await? else { continue };
            open.extend(stored.manifests.into_iter().map(|it| (it, depth + 1)));
            found.push(digest);
        }
        Ok(found)
    }

    /// That nothing came to be shown here since now.
    pub async fn changes(&self) -> Result<Expect, RegistryError> {
        Ok(unchanged(self.records.get(&keys::changes(&self.repository)).await?.as_ref()))
    }

    async fn stored(
        &self,
        manifest: &ContentDigest,
    ) -> Result<Option<StoredManifest>, RegistryError> {
        let record = self.records.get(&keys::manifest(&self.repository, manifest)).await?;
        record.map(|it| read(&it.value)).transpose()
    }
}

/// The owner whose releases a repository has; `None`: nobody's, and it is pushed to.
pub async fn owner(
    records: &SharedRecords,
    repository: &Repository,
) -> Result<Option<String>, RegistryError> {
    let record = records.get(&keys::owner(repository)).await?;
    let text = |it: kiln_cas::records::Record| String::from_utf8(it.value.into());
    record.map(|it| text(it).map_err(|_| RegistryError::Damaged)).transpose()
}

/// The write that fails once a release owns the repository, and changes nothing.
pub fn still_pushed_to(repository: &Repository) -> Write {
    delete(keys::owner(repository), Expect::Absent)
}

fn content_of(descriptor: &Descriptor) -> Result<Digest, RegistryError> {
    match descriptor.digest.algorithm() {
        Algorithm::Sha256 => super::model::content(descriptor.digest.hex(), descriptor.size),
        Algorithm::Sha512 => Err(RegistryError::Damaged),
    }
}
