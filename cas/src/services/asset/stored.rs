//! The record of an asset.

use bytes::Bytes;
use prost::Message;

use crate::digest::{Digest, DigestFunction};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AssetKind {
    Blob,
    Directory,
}

impl AssetKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Directory => "directory",
        }
    }
}

/// Times are nanoseconds since the Unix epoch.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StoredAsset {
    #[prost(bytes = "bytes", tag = "1")]
    hash: Bytes,
    #[prost(uint64, tag = "2")]
    size: u64,
    /// When it was pushed, or when its download began.
    #[prost(int64, tag = "3")]
    pub(super) since: i64,
    #[prost(int64, optional, tag = "4")]
    pub(super) expires: Option<i64>,
}

impl StoredAsset {
    pub(super) fn new(digest: &Digest, since: i64, expires: Option<i64>) -> Self {
        let hash = Bytes::copy_from_slice(&digest.hash);
        Self { hash, size: digest.size, since, expires }
    }

    pub(super) fn encode(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// `None`: damaged, which is as good as absent.
    pub(super) fn decode_record(value: Bytes) -> Option<Self> {
        Self::decode(value).ok()
    }

    pub(super) fn digest(&self, function: DigestFunction) -> Option<Digest> {
        let hash = self.hash.as_ref().try_into().ok()?;
        Some(Digest { hash, size: self.size, function })
    }

    /// Whether it may be returned at `now` to somebody who accepts nothing older than `oldest`.
    pub(super) fn is_fresh(&self, now: i64, oldest: Option<i64>) -> bool {
        self.expires.is_none_or(|expires| now < expires)
            && oldest.is_none_or(|oldest| oldest <= self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freshness() {
        let digest = DigestFunction::Blake3.digest(b"x");
        let asset = StoredAsset::new(&digest, 100, Some(200));
        assert!(asset.is_fresh(150, None) && asset.is_fresh(150, Some(100)));
        assert!(!asset.is_fresh(200, None) && !asset.is_fresh(150, Some(101)));
        let stored = StoredAsset::decode_record(asset.encode()).expect("it was just encoded");
        assert_eq!(stored.digest(DigestFunction::Blake3), Some(digest));
    }
}
