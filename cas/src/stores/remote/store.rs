//! The store: which call each operation is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt;
use kiln_net::grpc::{AddressError, Connection, Connections, Failures, MAX_MESSAGE};
use kiln_protos::reapi::{
    BatchReadBlobsRequest, BatchUpdateBlobsRequest, FindMissingBlobsRequest,
    batch_update_blobs_request,
    content_addressable_storage_client::ContentAddressableStorageClient,
};
use kiln_protos::rpc;
use tonic::{Code, Status};

use super::batch::{BatchCall, Batcher};
use super::bytestream::{self, Writer};
use super::calls::{retrying, store_error};
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
    reads: Batcher<Reads>,
    updates: Batcher<Updates>,
}

#[derive(Clone)]
struct Client {
    server: Connections,
    instance: Arc<str>,
    transfers: Arc<Transfers>,
}

impl Client {
    fn cas(&self) -> ContentAddressableStorageClient<Connection> {
        ContentAddressableStorageClient::new(self.server.main())
            .max_decoding_message_size(MAX_MESSAGE)
    }
}

impl RemoteStore {
    /// Connects when it is first used. Needs a tokio runtime.
    pub fn new(url: &str, instance: &str) -> Result<Self, AddressError> {
        Ok(Self::on(Connections::new(url)?, instance))
    }

    /// The store of a server, over the connections to it.
    pub fn on(server: Connections, instance: &str) -> Self {
        let client = Client { server, instance: instance.into(), transfers: Arc::default() };
        Self {
            reads: Batcher::new(Reads(client.clone())),
            updates: Batcher::new(Updates(client.clone())),
            client,
        }
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
        let answer = retrying("find missing blobs", Failures::over(&self.client.server), || {
            let (mut cas, request) = (self.client.cas(), request.clone());
            async move { cas.find_missing_blobs(request).await }
        })
        .await?;
        answer
            .missing_blob_digests
            .iter()
            .map(|digest| {
                Digest::from_wire(digest, function).map_err(|error| {
                    StoreError::Invalid(format!("the server's answer names a digest: {error}"))
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
            let data = self.reads.ask(*digest).await?;
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
            return self.updates.ask((*digest, data)).await;
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

/// BatchReadBlobs.
struct Reads(Client);

#[async_trait]
impl BatchCall for Reads {
    type Item = Digest;
    type Answer = Bytes;

    fn bytes(item: &Digest) -> u64 {
        item.size
    }

    fn function(item: &Digest) -> DigestFunction {
        item.function
    }

    async fn call(&self, mut items: Vec<Digest>) -> Vec<Result<Bytes, StoreError>> {
        let asked = items.clone();
        items.sort_unstable();
        items.dedup();
        match self.read(&items).await {
            Ok(blobs) => asked
                .iter()
                .map(|digest| match blobs.get(&digest.hash) {
                    Some(answer) => answer.clone(),
                    None => Err(incomplete()),
                })
                .collect(),
            Err(error) => asked.iter().map(|_| Err(error.clone())).collect(),
        }
    }
}

type Answers<T> = HashMap<[u8; 32], Result<T, StoreError>>;

impl Reads {
    async fn read(&self, digests: &[Digest]) -> Result<Answers<Bytes>, StoreError> {
        let Some(function) = digests.first().map(Self::function) else {
            return Ok(HashMap::new());
        };
        let request = BatchReadBlobsRequest {
            instance_name: self.0.instance.to_string(),
            digests: digests.iter().map(Digest::to_wire).collect(),
            digest_function: function.to_wire().into(),
            ..Default::default()
        };
        let answer = retrying("read blobs", Failures::over(&self.0.server), || {
            let (mut cas, request) = (self.0.cas(), request.clone());
            async move { cas.batch_read_blobs(request).await }
        })
        .await?;
        let verified = answer.responses.into_iter().filter_map(|response| {
            let digest = Digest::from_wire(response.digest.as_ref()?, function).ok()?;
            let data = check("read", &digest, response.status).and_then(|()| {
                match function.digest(&response.data) {
                    actual if actual == digest => {
                        self.0.transfers.fetched(digest.size);
                        Ok(Bytes::from(response.data))
                    }
                    actual => Err(StoreError::DigestMismatch { expected: digest, actual }),
                }
            });
            Some((digest.hash, data))
        });
        Ok(verified.collect())
    }
}

/// BatchUpdateBlobs.
struct Updates(Client);

#[async_trait]
impl BatchCall for Updates {
    type Item = (Digest, Bytes);
    type Answer = ();

    fn bytes((digest, _): &(Digest, Bytes)) -> u64 {
        digest.size
    }

    fn function((digest, _): &(Digest, Bytes)) -> DigestFunction {
        digest.function
    }

    async fn call(&self, items: Vec<(Digest, Bytes)>) -> Vec<Result<(), StoreError>> {
        match self.update(&items).await {
            Ok(answers) => items
                .iter()
                .map(|(digest, _)| match answers.get(&digest.hash) {
                    Some(answer) => answer.clone(),
                    None => Err(incomplete()),
                })
                .collect(),
            Err(error) => items.iter().map(|_| Err(error.clone())).collect(),
        }
    }
}

impl Updates {
    async fn update(&self, items: &[(Digest, Bytes)]) -> Result<Answers<()>, StoreError> {
        let Some(function) = items.first().map(Self::function) else {
            return Ok(HashMap::new());
        };
        let requests = items.iter().map(|(digest, data)| batch_update_blobs_request::Request {
            digest: Some(digest.to_wire()),
            data: data.to_vec(),
            ..Default::default()
        });
        let request = BatchUpdateBlobsRequest {
            instance_name: self.0.instance.to_string(),
            requests: requests.collect(),
            digest_function: function.to_wire().into(),
        };
        let answer = retrying("write blobs", Failures::over(&self.0.server), || {
            let (mut cas, request) = (self.0.cas(), request.clone());
            async move { cas.batch_update_blobs(request).await }
        })
        .await?;
        let answers = answer.responses.into_iter().filter_map(|response| {
            let digest = Digest::from_wire(response.digest.as_ref()?, function).ok()?;
            let taken = check("write", &digest, response.status);
            if taken.is_ok() {
                self.0.transfers.uploaded(digest.size);
            }
            Some((digest.hash, taken))
        });
        Ok(answers.collect())
    }
}

fn check(what: &str, digest: &Digest, status: Option<rpc::Status>) -> Result<(), StoreError> {
    let Some(status) = status.filter(|status| status.code != 0) else { return Ok(()) };
    match Code::from_i32(status.code) {
        Code::NotFound => Err(StoreError::NotFound(*digest)),
        code => Err(store_error(&format!("{what} {digest}"), &Status::new(code, status.message))),
    }
}

fn incomplete() -> StoreError {
    StoreError::Unavailable("the server left a blob out of its answer to a batch".to_owned())
}
