//! What the records of a registry hold.

use bytes::Bytes;
use kiln_cas::records::{Expect, MAX_VALUE, Record, Write};
use kiln_cas::{Digest, DigestFunction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::RegistryError;
use super::keys::{BLOBS, MANIFESTS, REFERRERS};
use crate::oci::{Algorithm, ContentDigest, Descriptor, Document};
use crate::registry::referrers::referrer_of;

/// Bytes of a referrer's entry that a record keeps; of a larger one the annotations stay in the manifest.
const MAX_ENTRY: usize = 256 << 10;
/// Bytes that the record of a manifest leaves free: that of its pins lists the same, and names the repository as well.
const ROOM_FOR_PINS: usize = 1024;

/// A repository has a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The size of the blob in bytes.
    pub size: u64,
    /// Hexadecimal, where the blob is named by another hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// A manifest of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredManifest {
    pub media_type: String,
    /// The size of the manifest in bytes.
    pub size: u64,
    /// The hash of the manifest's bytes, in hexadecimal digits.
    pub sha256: String,
    /// What has to be in the store with it, each as `HASH/SIZE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<ContentDigest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<ContentDigest>,
    /// The name of the pins that hold it; `None`: it is not pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
}

/// A manifest that is about another one, its subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredReferrer {
    pub entry: Descriptor,
    /// The hash of the manifest's bytes, in hexadecimal digits.
    pub sha256: String,
    /// Whether annotations were too many for a record: they are in the manifest.
    #[serde(default)]
    pub shortened: bool,
}

impl Link {
    pub fn of(digest: &ContentDigest, content: &Digest) -> Self {
        let sha256 = (digest.algorithm() != Algorithm::Sha256).then(|| content.hex());
        Self { size: content.size, sha256 }
    }

    /// The blob in the store that a digest names here.
    pub fn content(&self, digest: &ContentDigest) -> Result<Digest, RegistryError> {
        let hex = self.sha256.as_deref().unwrap_or(digest.hex());
        content(hex, self.size)
    }
}

impl StoredManifest {
    /// The digest of the manifest's bytes in the store.
    pub fn content(&self) -> Result<Digest, RegistryError> {
        content(&self.sha256, self.size)
    }

    /// Errors: `Large` where a record cannot hold it, or what is written down of its pins.
    pub fn admit(&self) -> Result<(), RegistryError> {
        match written(self)?.len() > MAX_VALUE - ROOM_FOR_PINS {
            true => Err(RegistryError::Large),
            false => Ok(()),
        }
    }

    /// Each name once, in order: the same manifest has the same record.
    pub fn settle(&mut self) {
        self.blobs.sort_unstable();
        self.blobs.dedup();
        self.manifests.sort_unstable();
        self.manifests.dedup();
    }

    /// Digests of the manifest's bytes and of the blobs that it needs.
    pub fn all_content(&self) -> Result<Vec<Digest>, RegistryError> {
        let blobs = self.blobs.iter().map(|name| blob_of_name(name));
        std::iter::once(self.content()).chain(blobs).collect()
    }
}

impl StoredReferrer {
    /// The bytes of the manifest.
    pub fn content(&self) -> Result<Digest, RegistryError> {
        content(&self.sha256, self.entry.size)
    }
}

/// How a manifest is kept that is about another one.
pub fn stored_referrer(
    descriptor: &Descriptor,
    document: &Document,
    content: &Digest,
) -> StoredReferrer {
    let mut entry = referrer_of(descriptor, document);
    let size: usize = entry.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    let shortened = size > MAX_ENTRY;
    if shortened {
        entry.annotations.clear();
    }
    StoredReferrer { entry, sha256: content.hex(), shortened }
}

/// How records name a blob of the store: `HASH/SIZE`.
pub fn name_of_blob(content: &Digest) -> String {
    format!("{}/{}", content.hex(), content.size)
}

pub fn blob_of_name(name: &str) -> Result<Digest, RegistryError> {
    let (hex, size) = name.split_once('/').ok_or(RegistryError::Damaged)?;
    content(hex, size.parse().map_err(|_| RegistryError::Damaged)?)
}

/// The blob of the store with this SHA-256.
pub fn content(hex: &str, size: u64) -> Result<Digest, RegistryError> {
    Digest::from_hex(hex.as_bytes(), size, DigestFunction::Sha256)
        .map_err(|_| RegistryError::Damaged)
}

pub fn read<T: DeserializeOwned>(value: &[u8]) -> Result<T, RegistryError> {
    serde_json::from_slice(value).map_err(|_| RegistryError::Damaged)
}

/// Errors: `Large` where a record cannot hold it.
pub fn written<T: Serialize>(value: &T) -> Result<Bytes, RegistryError> {
    let data = serde_json::to_vec(value).map_err(|_| RegistryError::Damaged)?;
    match data.len() > MAX_VALUE {
        true => Err(RegistryError::Large),
        false => Ok(data.into()),
    }
}

pub fn put(key: String, expect: Expect, value: Bytes) -> Write {
    Write { key, expect, value: Some(value) }
}

pub fn delete(key: String, expect: Expect) -> Write {
    Write { key, expect, value: None }
}

/// That a record is as it was read.
pub fn unchanged(record: Option<&Record>) -> Expect {
    record.map_or(Expect::Absent, |record| Expect::Version(record.version))
}

/// The blob that a record below [`BLOBS`] is about; `None`: it cannot be read. So for the others.
pub fn owner_of_blob(record: &Record) -> Option<Digest> {
    let rest = record.key.strip_prefix(BLOBS)?;
    let (digest, _repository) = rest.rsplit_once(':')?;
    read::<Link>(&record.value).ok()?.content(&digest.parse().ok()?).ok()
}

pub fn owner_of_manifest(record: &Record) -> Option<Digest> {
    record.key.strip_prefix(MANIFESTS)?;
    read::<StoredManifest>(&record.value).ok()?.content().ok()
}

pub fn owner_of_referrer(record: &Record) -> Option<Digest> {
    record.key.strip_prefix(REFERRERS)?;
    read::<StoredReferrer>(&record.value).ok()?.content().ok()
}
