//! A blob store whose writes count against the quotas of a caller and an instance.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::Extensions;

use super::ledger::{Holder, Pledge, Quotas};
use crate::access::{Authorizer, Right};
use crate::blob::{Blob, BlobStore, BlobWriter, SharedBlobStore};
use crate::budget::Share;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::services::guard::Guard;

impl Quotas {
    /// `blobs` as `caller` may write to it in `instance`.
    pub fn store(
        self: &Arc<Self>,
        blobs: &SharedBlobStore,
        guard: &Guard,
        caller: &Extensions,
        instance: &str,
    ) -> SharedBlobStore {
        let access = &*guard.0;
        // What a worker brings counts for who asked for the action, by `charge`.
        let works = || {
            let may = |right| access.allows(caller, right, instance);
            access.name(caller).is_some() && may(Right::Work) && !may(Right::Execute)
        };
        if self.is_unlimited() || works() {
            return blobs.clone();
        }
        let account = Holder { caller: account_of(access, caller), instance: instance.into() };
        Arc::new(Counted { inner: blobs.clone(), quotas: self.clone(), account })
    }
}

/// The account that a caller's bytes count for: the name of its credential, else its address.
pub fn account_of(access: &dyn Authorizer, caller: &Extensions) -> Arc<str> {
    if let Some(name) = access.name(caller) {
        return name;
    }
    let address = caller.get::<Share>().and_then(Share::address);
    address.map_or_else(|| "somebody".into(), |address| address.to_string().into())
}

/// A store whose writes are counted.
struct Counted {
    inner: SharedBlobStore,
    quotas: Arc<Quotas>,
    account: Holder,
}

#[async_trait]
impl BlobStore for Counted {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.inner.find_missing(digests).await
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError> {
        self.inner.read(digest, offset, limit).await
    }

    async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        if self.inner.find_missing(&[*digest]).await?.is_empty() {
            // Also says whether the bytes are right.
            return self.inner.write(digest, data).await;
        }
        let pledge = self.quotas.pledge(&self.account, digest.size)?;
        self.inner.write(digest, data).await?;
        pledge.keep();
        Ok(())
    }

    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
        let missing = self.inner.find_missing(&[*digest]).await?;
        let bytes = missing.first().map_or(0, |digest| digest.size);
        let pledge = self.quotas.pledge(&self.account, bytes)?;
        Ok(Box::new(CountedWriter { inner: self.inner.writer(digest).await?, pledge }))
    }

    async fn sync(&self) -> Result<(), StoreError> {
        self.inner.sync().await
    }

    async fn at_hand(&self, digest: &Digest, limit: u64) -> Option<Bytes> {
        self.inner.at_hand(digest, limit).await
    }

    async fn link(&self, digest: &Digest, destination: &Path) -> Result<bool, StoreError> {
        self.inner.link(digest, destination).await
    }
}

struct CountedWriter {
    inner: Box<dyn BlobWriter>,
    pledge: Pledge,
}

#[async_trait]
impl BlobWriter for CountedWriter {
    async fn write(&mut self, data: Bytes) -> Result<(), StoreError> {
        self.inner.write(data).await
    }

    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        self.inner.commit().await?;
        self.pledge.keep();
        Ok(())
    }
}
