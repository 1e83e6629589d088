//! What of a release the registry serves: manifests, what they name, and tags. All of it is in the store, and nothing is
//! copied; it is shown by the write that makes the release visible.

use std::collections::HashSet;

use kiln_cas::SharedBlobStore;
use kiln_cas::records::Write;

use super::blocking::{Blocking, stored};
use super::entry::CatalogEntry;
use super::error::CatalogError;
use super::{Catalog, blocking};
use crate::oci::{
    Algorithm, ContentDigest, Descriptor, Document, DocumentKind, INDEX_TYPE, Index,
    MAX_DOCUMENT_BYTES, Repository, Tag,
};
use crate::registry::store::{ReleasedRepository, Shown};
use crate::releases::ReleaseName;

/// Manifests of one release: with what is about them, they fit into one write.
const MAX_MANIFESTS: usize = 400;
/// Bytes of all manifests of one release.
const MAX_BYTES: u64 = 64 << 20;
/// How deep manifests may be within manifests.
const MAX_DEPTH: usize = 8;
/// What is listed under the tag that stands for the list of referrers.
const MAX_LISTED: usize = 256;

impl Catalog {
    pub(super) fn repository(&self, name: &Repository) -> ReleasedRepository {
        ReleasedRepository::new(self.parts.records.clone(), name.clone())
    }

    /// Whether an instance may have a release of this name. It is asked early; of the repository again when one becomes visible.
    pub(super) async fn check_name(
        &self,
        instance: &str,
        name: &ReleaseName,
    ) -> Result<(), CatalogError> {
        if stands_for_digests(&name.version) {
            return Err(CatalogError::Version(name.clone()));
        }
        Ok(self.repository(&name.repository).claim(instance).await.map(drop)?)
    }

    /// Reads what is to be shown, and adds the list of all that is about the release.
    pub(super) async fn shown(&self, entry: &mut CatalogEntry) -> Result<Vec<Shown>, CatalogError> {
        let roots = std::iter::once(&entry.release.subject).chain(&entry.release.attestations);
        let roots: Vec<_> = roots.chain(entry.tags.iter().map(|(_, it)| it)).cloned().collect();
        let store = Blocking::new(self.parts.blobs.clone());
        let mut shown = blocking(move || read_all(&store, roots)).await?;
        let subject = &entry.release.subject.digest;
        let own = shown.iter().filter_map(|it| it.about(subject)).cloned().collect();
        let repository = self.repository(&entry.release.name.repository);
        let (list, listed) = self.list_of_referrers(&repository, subject, own).await?;
        entry.content.push((list.digest.clone(), list.size));
        entry.tags.push((subject.fallback_tag(), list));
        shown.push(listed);
        Ok(shown)
    }

    /// An index of what is about a manifest, for clients that look for it under a tag. It is in the store then.
    pub(super) async fn list_of_referrers(
        &self,
        repository: &ReleasedRepository,
        subject: &ContentDigest,
        own: Vec<Descriptor>,
    ) -> Result<(Descriptor, Shown), CatalogError> {
        let mut entries = own;
        let others = repository.referrers(subject, MAX_LISTED).await?;
        entries.extend(others);
        entries.sort_by(|one, two| one.digest.cmp(&two.digest));
        entries.dedup_by(|one, two| one.digest == two.digest);
        entries.truncate(MAX_LISTED);
        let index = Index::new(entries);
        let descriptor = put(&self.parts.blobs, INDEX_TYPE, index.write()?).await?;
        let shown = Shown::of(&descriptor, &Document::Index(Box::new(index)))?;
        Ok((descriptor, shown))
    }

    /// The writes that show a release, for the one that makes it visible.
    pub(super) async fn show_writes(
        &self,
        entry: &CatalogEntry,
        shown: &[Shown],
    ) -> Result<Vec<Write>, CatalogError> {
        let name = &entry.release.name;
        let repository = self.repository(&name.repository);
        let mut writes = repository.claim(&entry.instance).await?;
        writes.extend(repository.show(shown)?);
        writes.push(repository.tag(&name.version, &entry.release.subject.digest));
        writes.extend(tags(entry).map(|(tag, it)| repository.tag(&tag, &it.digest)));
        Ok(writes)
    }

    /// The write that takes the version's tag away; nothing where the registry does not have the release.
    pub(super) async fn untag_write(
        &self,
        entry: &CatalogEntry,
    ) -> Result<Option<Write>, CatalogError> {
        let name = &entry.release.name;
        let repository = self.repository(&name.repository);
        let is_own = repository.owner().await?.is_some_and(|it| it == entry.instance);
        Ok(is_own.then(|| repository.untag(&name.version)))
    }
}

/// Whether a tag is one of those under which clients look for what was signed of a digest. A version that was called so would
/// take it from the release with that digest.
fn stands_for_digests(tag: &Tag) -> bool {
    let is_of = |it: Algorithm| {
        tag.as_str().strip_prefix(it.name()).is_some_and(|rest| rest.starts_with('-'))
    };
    [Algorithm::Sha256, Algorithm::Sha512].into_iter().any(is_of)
}

/// Tags of a release beside its version.
pub fn tags(entry: &CatalogEntry) -> impl Iterator<Item = (Tag, &Descriptor)> {
    entry.tags.iter().filter_map(|(tag, it)| Some((tag.parse().ok()?, it)))
}

/// Stores bytes under their SHA-256.
pub async fn put(
    blobs: &SharedBlobStore,
    media_type: &str,
    data: Vec<u8>,
) -> Result<Descriptor, CatalogError> {
    let descriptor = Descriptor::of(media_type, &data);
    let digest = stored(&descriptor);
    let digest = digest.ok_or_else(|| CatalogError::Sha512(descriptor.digest.clone()))?;
    blobs.write(&digest, data.into()).await?;
    Ok(descriptor)
}

/// Manifests, and those that they list.
fn read_all(store: &Blocking, roots: Vec<Descriptor>) -> Result<Vec<Shown>, CatalogError> {
    let mut open: Vec<_> = roots.into_iter().map(|it| (it, 0)).collect();
    let (mut seen, mut shown, mut bytes) = (HashSet::new(), Vec::new(), 0);
    while let Some((it, depth)) = open.pop() {
        if DocumentKind::of(&it.media_type).is_none() || !seen.insert(it.digest.clone()) {
            continue;
        }
        bytes += it.size;
        if shown.len() >= MAX_MANIFESTS || bytes > MAX_BYTES || depth > MAX_DEPTH {
            return Err(CatalogError::TooManyManifests(MAX_MANIFESTS));
        }
        let digest = stored(&it).ok_or_else(|| CatalogError::Sha512(it.digest.clone()))?;
        let data = store.read(&digest, MAX_DOCUMENT_BYTES as u64).map_err(CatalogError::Evicted)?;
        let document = Document::read(&it.media_type, &data)?;
        shown.push(Shown::of(&it, &document)?);
        if let Document::Index(index) = document {
            open.extend(index.manifests.into_iter().map(|it| (it, depth + 1)));
        }
    }
    Ok(shown)
}
