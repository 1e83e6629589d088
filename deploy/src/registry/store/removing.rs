//! Deletions. What is deleted is gone at once; what it needed ages as everything does.

use kiln_cas::records::{Expect, Write};

use super::error::{RegistryError, is_conflict};
use super::keys;
use super::model::{StoredManifest, delete, name_of_blob, read};
use super::registry::{PAGE, Registry, TRIES};
use super::tidying::digest_of_tag;
use crate::oci::{ContentDigest, Repository, Tag};

/// Tags of one manifest that go with it.
const MAX_TAGS: usize = 1000;

impl Registry {
    pub async fn delete_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<(), RegistryError> {
        self.admit_push(repository, Some(tag)).await?;
        let key = keys::tag(repository, tag);
        let record = self.record(&key).await?;
        let record = record.ok_or_else(|| RegistryError::NoManifest(tag.to_string()))?;
        let writes =
            vec![delete(key, Expect::Version(record.version)), Self::untidy_write(repository)];
        self.write_or_busy(writes).await
    }

    /// Deletes a manifest with the tags that name it.
    pub async fn delete_manifest(
        &self,
        repository: &Repository,
        digest: &ContentDigest,
    ) -> Result<(), RegistryError> {
        for _ in 0..TRIES {
            let (stored, version) = self.stored(repository, digest).await?;
            let mut writes = self.tag_deletions(repository, digest).await?;
            let key = keys::manifest(repository, digest);
            writes.push(delete(key, Expect::Version(version)));
            if let Some(subject) = &stored.subject {
                let key = keys::referrer(repository, subject, digest);
                writes.push(delete(key, Expect::Anything));
            }
            writes.push(Self::untidy_write(repository));
            let release = self.release_write(repository, digest, &stored)?;
            writes.extend(release.iter().map(|(write, ..)| write.clone()));
            match self.parts.records.write(writes).await {
                Ok(_) => {
                    if let Some((_, generation, pinning)) = release {
                        self.let_go(&generation, &pinning).await?;
                    }
                    return Ok(());
                }
                Err(error) if is_conflict(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(RegistryError::Busy)
    }

    async fn tag_deletions(
        &self,
        repository: &Repository,
        digest: &ContentDigest,
    ) -> Result<Vec<Write>, RegistryError> {
        self.admit_push(repository, None).await?;
        let prefix = keys::tags(repository);
        let (mut after, mut writes) = (None::<String>, Vec::new());
        loop {
            let page = self.parts.records.list(&prefix, after.as_deref(), false, PAGE).await?;
            let Some(last) = page.last() else { return Ok(writes) };
            after = Some(last.key.clone());
            for record in page.iter().filter(|it| digest_of_tag(it).as_ref() == Some(digest)) {
                let name = record.key.strip_prefix(&prefix).unwrap_or_default();
                let tag: Tag = name.parse().map_err(|_| RegistryError::Damaged)?;
                self.admit_push(repository, Some(&tag)).await?;
                writes.push(delete(record.key.clone(), Expect::Version(record.version)));
            }
            if writes.len() > MAX_TAGS {
                return Err(RegistryError::ManyTags(MAX_TAGS));
            }
        }
    }

    /// Errors: `Needed` where a manifest of the repository names it.
    pub async fn delete_blob(
        &self,
        repository: &Repository,
        digest: &ContentDigest,
    ) -> Result<(), RegistryError> {
        self.admit_push(repository, None).await?;
        let content = self.link(repository, digest).await?;
        let name = name_of_blob(&content);
        let prefix = keys::manifests(repository);
        let mut after = None::<String>;
        loop {
            let page = self.parts.records.list(&prefix, after.as_deref(), false, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for record in &page {
                let stored: StoredManifest = read(&record.value)?;
                if stored.blobs.contains(&name) {
                    let manifest = record.key.strip_prefix(&prefix).unwrap_or_default();
                    let manifest = manifest.parse().map_err(|_| RegistryError::Damaged)?;
                    return Err(RegistryError::Needed(manifest));
                }
            }
        }
        let write = delete(keys::blob(repository, digest), Expect::Anything);
        self.write_or_busy(vec![write]).await
    }

    async fn write_or_busy(&self, writes: Vec<Write>) -> Result<(), RegistryError> {
        match self.parts.records.write(writes).await {
            Err(error) if is_conflict(&error) => Err(RegistryError::Busy),
            done => Ok(done.map(drop)?),
        }
    }
}
