//! Manifests that are pushed: checked, stored, and made visible in one write.

use bytes::Bytes;
use kiln_cas::blob::SharedBlobStore;
use kiln_cas::records::{Expect, Record, Write};
use kiln_cas::{Digest, DigestFunction};

use super::error::{RegistryError, is_conflict};
use super::keys;
use super::model::{
    Link, StoredManifest, StoredReferrer, name_of_blob, put, read, stored_referrer, unchanged,
    written,
};
use super::registry::{Registry, TRIES};
use super::released::{owner, still_pushed_to};
use crate::oci::{Algorithm, ContentDigest, Descriptor, Document, Reference, Repository, Tag};
use crate::registry::ownership::refusal;
use crate::registry::uploads::PIECE;

/// Records of blobs that are read at a time, and those of manifests, which may be large.
const BLOBS_TOGETHER: usize = 256;
const MANIFESTS_TOGETHER: usize = 16;
/// Referrers of a manifest that are asked whether one is pinned.
const REFERRERS_ASKED: usize = 100;

/// A manifest on its way in.
pub struct Push<'a> {
    pub repository: &'a Repository,
    pub reference: &'a Reference,
    /// Tags besides the reference.
    pub tags: &'a [Tag],
    pub media_type: &'a str,
    pub data: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    pub digest: ContentDigest,
    pub subject: Option<ContentDigest>,
}

/// What is about to be visible.
struct NewManifest<'a> {
    repository: &'a Repository,
    digest: ContentDigest,
    stored: StoredManifest,
    referrer: Option<(ContentDigest, StoredReferrer)>,
    tags: Vec<&'a Tag>,
}

impl Registry {
    /// Refuses what is not for pushes.
    pub async fn admit_push(
        &self,
        repository: &Repository,
        tag: Option<&Tag>,
    ) -> Result<(), RegistryError> {
        if owner(&self.parts.records, repository).await?.is_some() {
            return Err(released(repository));
        }
        let why = refusal(&self.parts.owned, repository, tag).await?;
        why.map_or(Ok(()), |why| Err(RegistryError::Owned(why)))
    }

    pub async fn push_manifest(
        &self,
        store: &SharedBlobStore,
        push: Push<'_>,
    ) -> Result<Pushed, RegistryError> {
        let tag = match push.reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        };
        let tags: Vec<&Tag> = push.tags.iter().chain(tag).collect();
        self.admit_push(push.repository, None).await?;
        for tag in &tags {
            self.admit_push(push.repository, Some(tag)).await?;
        }
        let (document, content, digest) = understood(&push).await?;
        let stored = self.needed(&push, &document, &content).await?;
        stored.admit()?;
        write_bytes(store, &content, push.data).await?;
        self.parts.blobs.sync().await?;
        let descriptor = Descriptor::new(push.media_type, digest.clone(), content.size);
        let referrer = document.subject().map(|subject| {
            (subject.digest.clone(), stored_referrer(&descriptor, &document, &content))
        });
        let subject = stored.subject.clone();
        let entry = NewManifest { repository: push.repository, digest, stored, referrer, tags };
        self.show(&entry).await?;
        Ok(Pushed { digest: entry.digest, subject })
    }

    /// Checks that all is there which a manifest needs, and has it stay for a lease.
    async fn needed(
        &self,
        push: &Push<'_>,
        document: &Document,
        content: &Digest,
    ) -> Result<StoredManifest, RegistryError> {
        let mut stored = StoredManifest {
            media_type: push.media_type.to_owned(),
            size: content.size,
            sha256: content.hex(),
            blobs: Vec::new(),
            manifests: Vec::new(),
            subject: document.subject().map(|it| it.digest.clone()),
            pin: None,
        };
        let mut blobs: Vec<(Digest, &ContentDigest)> = Vec::new();
        let names: Vec<&Descriptor> = document.names().collect();
        let together = match document {
            Document::Index(_) => MANIFESTS_TOGETHER,
            Document::Manifest(_) => BLOBS_TOGETHER,
        };
        for names in names.chunks(together) {
            let keys: Vec<_> =
                names.iter().map(|it| key_of(push.repository, document, it)).collect();
            let records = self.parts.records.get_each(&keys).await?;
            for (named, record) in names.iter().zip(records) {
                let Some(content) = content_of(document, named, record)? else { continue };
                match document {
                    Document::Index(_) => stored.manifests.push(named.digest.clone()),
                    Document::Manifest(_) => stored.blobs.push(name_of_blob(&content)),
                }
                if content.size != named.size {
                    let (digest, said) = (named.digest.clone(), named.size);
                    return Err(RegistryError::Size { digest, said, actual: content.size });
                }
                blobs.push((content, &named.digest));
            }
        }
        let all: Vec<Digest> = blobs.iter().map(|(blob, _)| *blob).collect();
        let missing = self.parts.blobs.find_missing(&all).await?;
        let gone = missing.first().and_then(|gone| blobs.iter().find(|(blob, _)| blob == gone));
        gone.map_or(Ok(()), |(_, digest)| Err(RegistryError::Missing((*digest).clone())))?;
        stored.settle();
        Ok(stored)
    }

    /// Makes a manifest visible, and pins what its tags need.
    async fn show(&self, entry: &NewManifest<'_>) -> Result<(), RegistryError> {
        for _ in 0..TRIES {
            match self.try_show(entry).await {
                Err(RegistryError::Records(error)) if is_conflict(&error) => {
                    // Who had just created a release there was faster.
                    if owner(&self.parts.records, entry.repository).await?.is_some() {
                        return Err(released(entry.repository));
                    }
                }
                done => return done,
            }
        }
        Err(RegistryError::Busy)
    }

    async fn try_show(&self, entry: &NewManifest<'_>) -> Result<(), RegistryError> {
        let NewManifest { repository, digest, stored, referrer, tags } = entry;
        let key = keys::manifest(repository, digest);
        let known = self.record(&key).await?;
        let before = known.as_ref().map(|it| read::<StoredManifest>(&it.value)).transpose()?;
        let mut stored = stored.clone();
        // What it needs may be more than before: a layer that was somewhere else, and came since.
        let (same, other) = match before {
            Some(before) if before.blobs == stored.blobs => (before.pin, None),
            Some(before) => (None, self.release_write(repository, digest, &before)?),
            None => (None, None),
        };
        stored.pin = same;
        let mut writes = vec![put(key, unchanged(known.as_ref()), written(&stored)?)];
        writes.push(still_pushed_to(repository));
        writes.extend(other.iter().map(|(write, ..)| write.clone()));
        if let Some((subject, referrer)) = referrer {
            let key = keys::referrer(repository, subject, digest);
            writes.push(put(key, Expect::Anything, written(referrer)?));
        }
        let mut moved = false;
        for tag in tags {
            let (write, moves) = self.tag_write(repository, tag, digest).await?;
            moved |= moves;
            writes.push(write);
        }
        let keep = !tags.is_empty() || other.is_some() || self.is_about_kept(entry).await?;
        writes.push(put(keys::changes(repository), Expect::Anything, Bytes::new()));
        if keep {
            writes.push(Self::untidy_write(repository));
        }
        let versions = self.parts.records.write(writes).await?;
        if keep {
            self.keep(repository, digest).await?;
            if let Some((_, generation, pinning)) = other {
                self.let_go(&generation, &pinning).await?;
            }
            if !moved && let Some(version) = versions.last() {
                self.forget_untidy(repository, *version).await?;
            }
        } else if self.is_about_kept(entry).await? {
            // Somebody had what it is about pinned meanwhile, and looked before it was there.
            self.keep(repository, digest).await?;
        }
        Ok(())
    }

    /// The write of a tag, and whether the tag named something else before.
    async fn tag_write(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: &ContentDigest,
    ) -> Result<(Write, bool), RegistryError> {
        let key = keys::tag(repository, tag);
        let known = self.record(&key).await?;
        let value = Bytes::from(digest.to_string());
        let moves = known.as_ref().is_some_and(|record| record.value != value);
        Ok((put(key, unchanged(known.as_ref()), value), moves))
    }

    /// Whether the manifest is about something that is pinned, or something about it is.
    async fn is_about_kept(&self, entry: &NewManifest<'_>) -> Result<bool, RegistryError> {
        let mut related: Vec<ContentDigest> = entry.stored.subject.iter().cloned().collect();
        related.extend(self.about(entry.repository, &entry.digest, REFERRERS_ASKED).await?);
        let keys: Vec<_> = related.iter().map(|it| keys::manifest(entry.repository, it)).collect();
        for keys in keys.chunks(MANIFESTS_TOGETHER) {
            for record in self.parts.records.get_each(keys).await?.into_iter().flatten() {
                if read::<StoredManifest>(&record.value)?.pin.is_some() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// The record that says whether a repository has what a manifest names.
fn key_of(repository: &Repository, document: &Document, named: &Descriptor) -> String {
    match document {
        Document::Index(_) => keys::manifest(repository, &named.digest),
        Document::Manifest(_) => keys::blob(repository, &named.digest),
    }
}

/// The blob with the bytes of what a manifest names; `None`: it is somewhere else, and may be.
fn content_of(
    document: &Document,
    named: &Descriptor,
    record: Option<Record>,
) -> Result<Option<Digest>, RegistryError> {
    match (document, record) {
        (Document::Index(_), Some(record)) => {
            read::<StoredManifest>(&record.value)?.content().map(Some)
        }
        (Document::Manifest(_), Some(record)) => {
            read::<Link>(&record.value)?.content(&named.digest).map(Some)
        }
        (Document::Manifest(_), None) if named.is_foreign() => Ok(None),
        (_, None) => Err(RegistryError::Missing(named.digest.clone())),
    }
}

/// Reads a manifest, away from the thread that serves connections, and names its bytes.
async fn understood(push: &Push<'_>) -> Result<(Document, Digest, ContentDigest), RegistryError> {
    let (data, media_type) = (push.data.clone(), push.media_type.to_owned());
    let named = match push.reference {
        Reference::Digest(digest) => Some(digest.clone()),
        Reference::Tag(_) => None,
    };
    let work = move || {
        let document = Document::read(&media_type, &data)?;
        let algorithm = named.as_ref().map_or(Algorithm::Sha256, ContentDigest::algorithm);
        let digest = algorithm.digest(&data);
        match named {
            Some(named) if named != digest => Err(RegistryError::OtherBytes(named)),
            _ => Ok((document, DigestFunction::Sha256.digest(&data), digest)),
        }
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| kiln_cas::StoreError::failed("read a manifest", error))?
}

fn released(repository: &Repository) -> RegistryError {
    RegistryError::Owned(format!(
        "{repository} has releases, and nothing else: `kiln release create` makes them, promotions move the tags of environments"
    ))
}

/// Stores bytes of a manifest, which may be more than a store takes at once.
async fn write_bytes(
    store: &SharedBlobStore,
    content: &Digest,
    data: Bytes,
) -> Result<(), RegistryError> {
    if data.len() <= PIECE {
        return Ok(store.write(content, data).await?);
    }
    let mut writer = store.writer(content).await?;
    writer.write(data).await?;
    Ok(writer.commit().await?)
}
