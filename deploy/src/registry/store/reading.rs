//! What is pulled and listed.

use bytes::Bytes;
use kiln_cas::Digest;
use kiln_cas::records::Record;

use super::error::RegistryError;
use super::keys;
use super::model::{StoredManifest, StoredReferrer, content, read};
use super::registry::Registry;
use super::tidying::digest_of_tag;
use crate::oci::{
    ContentDigest, Descriptor, Document, Index, MAX_DOCUMENT_BYTES, Reference, Repository,
};
use crate::registry::referrers::{Referrers, referrer_of};
use crate::registry::tags::{MAX_TAGS_PAGE, page_of_tags};

/// Referrers that are looked at for one answer.
const MAX_REFERRERS: usize = 256;
/// Referrers that are read together: each may have many annotations.
const REFERRERS_TOGETHER: usize = 16;
/// Bytes of annotations in one answer; one more entry may come on top.
const MAX_ANNOTATIONS: usize = 1 << 20;

/// A manifest that is there, with all that it needs, and stays for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub digest: ContentDigest,
    pub media_type: String,
    /// The size in bytes.
    pub size: u64,
    sha256: String,
}

/// A part of a list, and where the next one begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    pub items: T,
    pub next: Option<String>,
}

impl Registry {
    pub async fn find_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Found, RegistryError> {
        let digest = match reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(tag) => {
                let record = self.record(&keys::tag(repository, tag)).await?;
                let record = record.ok_or_else(|| RegistryError::NoManifest(tag.to_string()))?;
                digest_of_tag(&record).ok_or(RegistryError::Damaged)?
            }
        };
        let (stored, _) = self.stored(repository, &digest).await?;
        let all = stored.all_content()?;
        if !self.parts.blobs.find_missing(&all).await?.is_empty() {
            return Err(RegistryError::NoManifest(digest.to_string()));
        }
        let StoredManifest { media_type, size, sha256, .. } = stored;
        Ok(Found { digest, media_type, size, sha256 })
    }

    /// The bytes of a manifest that was found.
    pub async fn read_manifest(&self, found: &Found) -> Result<Bytes, RegistryError> {
        self.whole(&found.sha256, found.size).await
    }

    async fn whole(&self, sha256: &str, size: u64) -> Result<Bytes, RegistryError> {
        let blob = self.parts.blobs.read(&content(sha256, size)?, 0, None).await?;
        Ok(blob.collect(MAX_DOCUMENT_BYTES as u64).await?)
    }

    /// Tags behind `last`, at most `limit`. Errors: `NoRepository` where no manifest was ever pushed.
    pub async fn tags(
        &self,
        repository: &Repository,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Page<Vec<String>>, RegistryError> {
        let prefix = keys::tags(repository);
        let after = last.map(|last| format!("{prefix}{last}"));
        let limit = limit.min(MAX_TAGS_PAGE);
        let listed = self.parts.records.list(&prefix, after.as_deref(), false, limit + 1).await?;
        let names = listed.iter().filter_map(|record| record.key.strip_prefix(&prefix));
        let names: Vec<String> = names.map(str::to_owned).collect();
        if names.is_empty() && self.record(&keys::changes(repository)).await?.is_none() {
            return Err(RegistryError::NoRepository);
        }
        let page = page_of_tags(&names, last, limit);
        let next = page.next.map(str::to_owned);
        Ok(Page { items: page.tags.into_iter().map(str::to_owned).collect(), next })
    }

    /// What is about a manifest, behind `last`; with a filter fewer, or none, of those that were looked at.
    pub async fn referrers(
        &self,
        repository: &Repository,
        subject: &ContentDigest,
        artifact_type: Option<&str>,
        last: Option<&ContentDigest>,
    ) -> Result<Page<Index>, RegistryError> {
        let prefix = keys::referrers(repository, subject);
        let mut after = last.map(|last| format!("{prefix}{last}"));
        let (mut entries, mut bytes, mut seen) = (Vec::new(), 0, 0);
        let more = loop {
            let page = self
                .parts
                .records
                .list(&prefix, after.as_deref(), false, REFERRERS_TOGETHER)
                .await?;
            if page.is_empty() || seen >= MAX_REFERRERS || bytes > MAX_ANNOTATIONS {
                break !page.is_empty();
            }
            let (records, referrers): (Vec<&Record>, Vec<StoredReferrer>) =
                page.iter().filter_map(|it| Some((it, self.referrer(it)?))).unzip();
            seen += page.len() - records.len();
            let gone = self.gone(&referrers).await?;
            for (record, referrer) in records.into_iter().zip(referrers) {
                if bytes > MAX_ANNOTATIONS {
                    break;
                }
                seen += 1;
                after = Some(record.key.clone());
                let other = artifact_type
                    .is_some_and(|wanted| referrer.entry.artifact_type.as_deref() != Some(wanted));
                if !other && !gone.contains(&referrer.content()?) {
                    let entry = self.whole_entry(referrer).await?;
                    bytes += annotation_bytes(&entry);
                    entries.push(entry);
                }
            }
            if bytes <= MAX_ANNOTATIONS {
                // The last ones may be such as cannot be read.
                after = page.last().map(|it| it.key.clone());
            }
        };
        let next =
            after.filter(|_| more).and_then(|key| Some(key.strip_prefix(&prefix)?.to_owned()));
        let (index, _) = Referrers::new(entries).page(None, None, MAX_REFERRERS);
        Ok(Page { items: index, next })
    }

    fn referrer(&self, record: &Record) -> Option<StoredReferrer> {
        let referrer = read::<StoredReferrer>(&record.value);
        self.readable(record, referrer.and_then(|it| it.content().map(|_| it)))
    }

    /// Digests of those whose bytes are not there any more; the others stay for a lease.
    async fn gone(&self, referrers: &[StoredReferrer]) -> Result<Vec<Digest>, RegistryError> {
        let contents = referrers.iter().map(StoredReferrer::content);
        let contents = contents.collect::<Result<Vec<_>, _>>()?;
        Ok(self.parts.blobs.find_missing(&contents).await?)
    }

    /// The entry of a referrer, with all annotations.
    async fn whole_entry(&self, referrer: StoredReferrer) -> Result<Descriptor, RegistryError> {
        let StoredReferrer { entry, sha256, shortened } = referrer;
        if !shortened {
            return Ok(entry);
        }
        let data = self.whole(&sha256, entry.size).await?;
        let document = Document::read(&entry.media_type, &data)?;
        Ok(referrer_of(&entry, &document))
    }
}

fn annotation_bytes(entry: &Descriptor) -> usize {
    entry.annotations.iter().map(|(key, value)| key.len() + value.len()).sum()
}
