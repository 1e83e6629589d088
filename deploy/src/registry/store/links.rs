//! Blobs of repositories: the store has each once, and a record says which repositories have it.

use kiln_cas::Digest;
use kiln_cas::blob::{Blob, SharedBlobStore};
use kiln_cas::records::Expect;

use super::assembling::write_known;
use super::body::Body;
use super::error::RegistryError;
use super::keys;
use super::model::{Link, put, read, written};
use super::registry::Registry;
use crate::oci::{ContentDigest, Repository};

/// Repositories that are looked at for one that has a blob, where a client names none.
const MAX_SOURCES: usize = 100;

impl Registry {
    /// The blob of the store that a digest names in a repository. It need not be there any more: reading it says so.
    pub async fn link(
        &self,
        repository: &Repository,
        digest: &ContentDigest,
    ) -> Result<Digest, RegistryError> {
        let record = self.record(&keys::blob(repository, digest)).await?;
        let record = record.ok_or_else(|| RegistryError::NoBlob(digest.clone()))?;
        read::<Link>(&record.value)?.content(digest)
    }

    /// The size in bytes of a blob that is there, and stays for a lease.
    pub async fn blob_size(
        &self,
        repository: &Repository,
        digest: &ContentDigest,
    ) -> Result<u64, RegistryError> {
        Ok(self.linked(repository, digest).await?.size)
    }

    async fn linked(
        &self,
        repository: &Repository,
        digest: &ContentDigest,
    ) -> Result<Digest, RegistryError> {
        let content = self.link(repository, digest).await?;
        match self.parts.blobs.find_missing(&[content]).await?.is_empty() {
            true => Ok(content),
            false => Err(RegistryError::NoBlob(digest.clone())),
        }
    }

    /// Reads what a digest names (`content`, see [`Registry::link`]) from the byte `offset` on, at most `limit` bytes.
    pub async fn read_blob(
        &self,
        digest: &ContentDigest,
        content: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, RegistryError> {
        let read = self.parts.blobs.read(content, offset, limit).await;
        read.map_err(|error| match error {
            kiln_cas::StoreError::NotFound(_) => RegistryError::NoBlob(digest.clone()),
            error => error.into(),
        })
    }

    /// Gives a repository a blob that one of `sources` has. `false`: none has it. Whoever asks has to be allowed to read
    /// all of these.
    pub async fn mount(
        &self,
        repository: &Repository,
        digest: &ContentDigest,
        sources: &[Repository],
    ) -> Result<bool, RegistryError> {
        for source in sources {
            match self.linked(source, digest).await {
                Ok(content) => {
                    self.add_link(repository, digest, &content).await?;
                    return Ok(true);
                }
                Err(RegistryError::NoBlob(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Repositories that have a blob, some of them where there are many.
    pub async fn sources(&self, digest: &ContentDigest) -> Result<Vec<Repository>, RegistryError> {
        let prefix = keys::blob_anywhere(digest);
        let records = self.parts.records.list(&prefix, None, false, MAX_SOURCES).await?;
        let names = records.iter().filter_map(|it| it.key.strip_prefix(&prefix)?.parse().ok());
        Ok(names.collect())
    }

    pub(super) async fn add_link(
        &self,
        repository: &Repository,
        digest: &ContentDigest,
        content: &Digest,
    ) -> Result<(), RegistryError> {
        let key = keys::blob(repository, digest);
        let value = written(&Link::of(digest, content))?;
        self.parts.records.write(vec![put(key, Expect::Anything, value)]).await?;
        Ok(())
    }

    /// Stores a blob that comes whole. `length`: its bytes, where that is known before.
    pub async fn push_blob(
        &self,
        store: &SharedBlobStore,
        repository: &Repository,
        digest: &ContentDigest,
        length: Option<u64>,
        body: Body,
    ) -> Result<(), RegistryError> {
        let content = match length.and_then(|length| known(digest, length)) {
            Some(content) => {
                self.admit_size(content.size)?;
                write_known(store, digest, &content, body).await?;
                content
            }
            None => {
                let pieces = self.take_pieces(store, body, 0).await?;
                self.assemble(store, digest, &pieces).await?
            }
        };
        self.add_link(repository, digest, &content).await
    }

    pub(super) fn admit_size(&self, size: u64) -> Result<(), RegistryError> {
        let limit = self.parts.max_blob_size;
        match size > limit {
            true => Err(RegistryError::TooLarge { what: "a blob", limit }),
            false => Ok(()),
        }
    }
}

/// The blob of the store that these bytes will be, where the digest tells.
fn known(digest: &ContentDigest, length: u64) -> Option<Digest> {
    let is_sha256 = digest.algorithm() == crate::oci::Algorithm::Sha256;
    is_sha256.then(|| super::model::content(digest.hex(), length).ok()).flatten()
}
