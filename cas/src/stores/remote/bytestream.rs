//! Large blobs: ByteStream.Read that resumes, and ByteStream.Write.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use kiln_net::grpc::{Connections, Failures, MAX_MESSAGE, is_unheard};
use kiln_protos::bytestream::byte_stream_client::ByteStreamClient;
use kiln_protos::bytestream::{ReadRequest, ReadResponse, WriteRequest, WriteResponse};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::calls::store_error;
use super::transfers::Transfers;
use crate::blob::{BlobStream, BlobWriter};
use crate::digest::{Digest, Hasher};
use crate::error::StoreError;

/// Bytes of one WriteRequest.
const CHUNK_BYTES: usize = 1 << 20;
/// Requests that wait for the connection.
const CHUNKS_AHEAD: usize = 2;
/// How long a stream may stand still.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// `read_limit` 0 means no limit in the protocol: `limit` must not be 0.
pub fn read(
    server: Connections,
    instance: &str,
    digest: Digest,
    offset: u64,
    limit: Option<u64>,
) -> BlobStream {
    let end = limit.map_or(digest.size, |limit| digest.size.min(offset.saturating_add(limit)));
    let whole = offset == 0 && end == digest.size;
    let failures = Failures::over(&server);
    let reader = Reader {
        server,
        resource: resource(instance, "blobs", &digest),
        digest,
        offset,
        end,
        hasher: whole.then(|| digest.function.hasher()),
        chunks: None,
        failures,
    };
    Box::pin(stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|chunk| (chunk, reader)))
    }))
}

struct Reader {
    server: Connections,
    resource: String,
    digest: Digest,
    offset: u64,
    /// Offset of the first byte that is not wanted.
    end: u64,
    /// While the whole blob is read, so that it can be verified.
    hasher: Option<Hasher>,
    chunks: Option<Streaming<ReadResponse>>,
    /// Since the last byte came.
    failures: Failures,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            if self.offset == self.end {
                return self.verify().map(|()| None);
            }
            match self.receive().await {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return self.accept(data).map(Some),
                Err(status) => self.recover(status).await?,
            }
        }
    }

    async fn receive(&mut self) -> Result<Vec<u8>, Status> {
        let step = async {
            let chunks = match &mut self.chunks {
                Some(chunks) => chunks,
                None => self.chunks.insert(open(&self.server, self.request()).await?),
            };
            match chunks.message().await? {
                Some(response) => Ok(response.data),
                None => Err(Status::unavailable("the stream ended early")),
            }
        };
        tokio::time::timeout(STALL_TIMEOUT, step)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("the stream stands still")))
    }

    fn accept(&mut self, data: Vec<u8>) -> Result<Bytes, StoreError> {
        self.failures.reset();
        self.offset += data.len() as u64;
        if self.offset > self.end {
            let actual = self.offset;
            return Err(StoreError::SizeMismatch { expected: self.digest, actual });
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&data);
        }
        Ok(data.into())
    }

    async fn recover(&mut self, status: Status) -> Result<(), StoreError> {
        self.chunks = None;
        if status.code() == Code::NotFound {
            return Err(StoreError::NotFound(self.digest));
        }
        let Some(wait) = self.failures.next(&status) else {
            return Err(store_error(&format!("read {}", self.resource), &status));
        };
        tokio::time::sleep(wait).await;
        Ok(())
    }

    fn verify(&mut self) -> Result<(), StoreError> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        match hasher.finish() {
            actual if actual == self.digest => Ok(()),
            actual => Err(StoreError::DigestMismatch { expected: self.digest, actual }),
        }
    }

    fn request(&self) -> ReadRequest {
        let whole = self.end == self.digest.size;
        ReadRequest {
            resource_name: self.resource.clone(),
            read_offset: self.offset as i64,
            read_limit: if whole { 0 } else { (self.end - self.offset) as i64 },
        }
    }
}

async fn open(
    server: &Connections,
    request: ReadRequest,
) -> Result<Streaming<ReadResponse>, Status> {
    let mut client = ByteStreamClient::new(server.channel()).max_decoding_message_size(MAX_MESSAGE);
    Ok(client.read(request).await?.into_inner())
}

/// One upload; it cannot be resumed, for its bytes are gone once they are sent.
pub struct Writer {
    digest: Digest,
    transfers: Arc<Transfers>,
    resource: String,
    sent: u64,
    /// `None`: the server has answered already, because it has the blob.
    requests: Option<mpsc::Sender<WriteRequest>>,
    call: JoinHandle<Result<WriteResponse, Status>>,
}

impl Writer {
    pub fn new(
        server: &Connections,
        instance: &str,
        digest: Digest,
        transfers: Arc<Transfers>,
    ) -> Self {
        let (requests, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let upload = format!("uploads/{}/blobs", random_uuid());
        let (server, place) = (server.clone(), server.place());
        let mut client = ByteStreamClient::new(server.channel());
        let call = tokio::spawn(async move {
            let answer = client.write(ReceiverStream::new(receiver)).await;
            // Whoever has the bytes writes them again, to an address that is heard.
            if answer.as_ref().is_err_and(is_unheard) {
                server.turn_from(place);
            }
            answer.map(tonic::Response::into_inner)
        });
        let resource = resource(instance, &upload, &digest);
        Self { digest, transfers, resource, sent: 0, requests: Some(requests), call }
    }

    async fn send(&mut self, data: Vec<u8>, finish_write: bool) -> Result<(), StoreError> {
        let Some(requests) = &self.requests else { return Ok(()) };
        let resource_name = if self.sent == 0 { self.resource.clone() } else { String::new() };
        let write_offset = self.sent as i64;
        self.sent += data.len() as u64;
        let request = WriteRequest { resource_name, write_offset, finish_write, data };
        match tokio::time::timeout(STALL_TIMEOUT, requests.send(request)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => {
                self.requests = None;
                Ok(())
            }
            Err(_) => Err(StoreError::unavailable(format!(
                "write {}: the stream stands still",
                self.resource
            ))),
        }
    }
}

#[async_trait]
impl BlobWriter for Writer {
    async fn write(&mut self, data: Bytes) -> Result<(), StoreError> {
        let actual = self.sent + data.len() as u64;
        if self.requests.is_some() && actual > self.digest.size {
            return Err(StoreError::SizeMismatch { expected: self.digest, actual });
        }
        for chunk in data.chunks(CHUNK_BYTES) {
            self.send(chunk.to_vec(), false).await?;
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<(), StoreError> {
        if self.requests.is_some() && self.sent != self.digest.size {
            return Err(StoreError::SizeMismatch { expected: self.digest, actual: self.sent });
        }
        self.send(Vec::new(), true).await?;
        self.requests = None;
        let context = format!("write {}", self.resource);
        let answer = match tokio::time::timeout(STALL_TIMEOUT, &mut self.call).await {
            Ok(Ok(answer)) => answer.map_err(|status| store_error(&context, &status))?,
            Ok(Err(error)) => {
                return Err(StoreError::failed(context, error));
            }
            Err(_) => return Err(StoreError::unavailable(format!("{context}: no answer"))),
        };
        let committed = u64::try_from(answer.committed_size).unwrap_or(0);
        if committed != self.digest.size {
            let actual = committed;
            return Err(StoreError::SizeMismatch { expected: self.digest, actual });
        }
        self.transfers.uploaded(self.digest.size);
        Ok(())
    }
}

/// `{instance}/{kind}/[blake3/]{hash}/{size}`
fn resource(instance: &str, kind: &str, digest: &Digest) -> String {
    match instance {
        "" => format!("{kind}/{digest}"),
        instance => format!("{instance}/{kind}/{digest}"),
    }
}

/// Version 4, as upload names want it.
fn random_uuid() -> String {
    let bits = fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upload_names_hold_a_version_4_uuid() {
        let uuid = random_uuid();
        let parts: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(&uuid[14..15], "4");
        assert!(matches!(&uuid[19..20], "8" | "9" | "a" | "b"), "{uuid}");
    }
}
