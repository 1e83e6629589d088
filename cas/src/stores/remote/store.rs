//! The store: which call each operation is.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt;
use kiln_net::grpc::{AddressError, Connections};
use kiln_protos::reapi::FindMissingBlobsRequest;

use super::batches::SmallBlobs;
use super::bytestream::{self, Writer};
use super::calls::retrying;
use super::client::Client;
use super::transfers::Transfers;
use crate::blob::{Blob, BlobStore, BlobWriter, MAX_WHOLE_BLOB};
use crate::digest::{Digest, DigestFunction};
use crate::error::StoreError;

/// Digests in one FindMissingBlobs call: about 1 MB.
const MAX_DIGESTS: usize = 10_000;

/// Speaks to any server that offers ContentAddressableStorage and ByteStream. What it reads
/// whole it verifies. Small blobs travel in batches.
pub struct RemoteStore {
    client: Client,
    small: SmallBlobs,
}

impl RemoteStore {
    /// Connects when it is first used. Needs a tokio runtime.
    pub fn new(url: &str, instance: &str) -> Result<Self, AddressError> {
        Ok(Self::on(Connections::new(url)?, instance))
    }

    /// The store of a server, over the connections to it. Needs a tokio runtime.
    pub fn on(server: Connections, instance: &str) -> Self {
        let client = Client { server, instance: instance.into(), transfers: Arc::default() };
        Self { small: SmallBlobs::new(&client), client }
    }

    /// What goes over the connections.
    pub fn transfers(&self) -> Arc<Transfers> {
        self.client.transfers.clone()
    }

    async fn missing_of(
        &self,
        digests: &[Digest],
        function: DigestFunction,
    ) -> Result<HashSet<Digest>, StoreError> {
        let request = FindMissingBlobsRequest {
            instance_name: self.client.instance.to_string(),
            blob_digests: digests.iter().map(Digest::to_wire).collect(),
            digest_function: function.to_wire().into(),
        };
        let answer = retrying("find missing blobs", self.client.failures(), || {
            let (mut cas, request) = (self.client.cas(), request.clone());
            async move { cas.find_missing_blobs(request).await }
        })
        .await?;
        answer
            .missing_blob_digests
            .iter()
            .map(|digest| {
                Digest::from_wire(digest, function).map_err(|error| {
                    StoreError::invalid(format!("the server's answer names a digest: {error}"))
                })
            })
            .collect()
    }
}

#[async_trait]
impl BlobStore for RemoteStore {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let mut missing = HashSet::new();
        for function in DigestFunction::ALL {
            let of_function: Vec<Digest> = digests
                .iter()
                .copied()
                .filter(|digest| digest.function == function && !digest.is_empty_blob())
                .collect();
            for chunk in of_function.chunks(MAX_DIGESTS) {
                missing.extend(self.missing_of(chunk, function).await?);
            }
        }
        Ok(digests.iter().copied().filter(|digest| missing.contains(digest)).collect())
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError> {
        if offset > digest.size {
            return Err(StoreError::OutOfRange { digest: *digest, offset });
        }
        if offset == digest.size || limit == Some(0) {
            return Ok(Blob::Whole(Bytes::new()));
        }
        if digest.size <= MAX_WHOLE_BLOB {
            let data = self.small.read(digest).await?;
            let end =
                limit.map_or(digest.size, |limit| digest.size.min(offset.saturating_add(limit)));
            return Ok(Blob::Whole(data.slice(offset as usize..end as usize)));
        }
        let (server, instance) = (self.client.server.clone(), &self.client.instance);
        let transfers = self.client.transfers.clone();
        transfers.fetched(0);
        let chunks = bytestream::read(server, instance, *digest, offset, limit);
        let count = move |chunk: &Bytes| transfers.fetched_part(chunk.len() as u64);
        Ok(Blob::Stream(Box::pin(chunks.inspect_ok(count))))
    }

    async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        if digest.is_empty_blob() {
            return Ok(());
        }
        if data.len() as u64 <= MAX_WHOLE_BLOB {
            return self.small.write(digest, data).await;
        }
        let mut writer = self.writer(digest).await?;
        writer.write(data).await?;
        writer.commit().await
    }

    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
        let Client { server, instance, transfers } = &self.client;
        Ok(Box::new(Writer::new(server, instance, *digest, transfers.clone())))
    }

    /// The server answers for what it acknowledged.
    async fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
