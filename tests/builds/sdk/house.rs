//! A server for one test, and the callers that send requests to it.

use kiln_cas::{Digest, DigestFunction};
use kiln_protos::bytestream::byte_stream_client::ByteStreamClient;
use kiln_protos::bytestream::{ReadRequest, WriteRequest};
use kiln_protos::reapi;
use kiln_protos::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use prost::Message;
use tonic::transport::{Channel, Endpoint};

use crate::support::server::{self, Server};

pub struct House {
    pub server: Server,
    pub channel: Channel,
    _data: tempfile::TempDir,
}

impl House {
    /// Starts a server at which clients may write results.
    pub async fn new() -> Self {
        Self::fetching_from("").await
    }

    /// Starts a server that may fetch assets whose URI begins with `prefix`.
    pub async fn fetching_from(prefix: &str) -> Self {
        Self::with(&[("KILN_FETCH_ALLOW", prefix)]).await
    }

    /// Starts a server with these environment variables, as pairs of name and value. Panics if it does not accept
    /// connections.
    pub async fn with(variables: &[(&str, &str)]) -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let arguments = ["--allow-cache-updates", "--workers", "2"];
        let mut command = server::command("127.0.0.1:0", data.path(), &arguments);
        command.envs(variables.iter().copied());
        let server = Server::spawn(command, data.path());
        let endpoint = Endpoint::from_shared(server.url()).expect("a URL");
        let channel = endpoint.connect().await.expect("the server accepts connections");
        Self { server, channel, _data: data }
    }

    pub fn caller(&self, instance: &'static str, function: DigestFunction) -> Caller {
        Caller { channel: self.channel.clone(), instance, function }
    }

    /// Returns a caller for each of two instances and two digest functions. Those with SHA-256 name no digest
    /// function, as old clients do.
    pub fn callers(&self) -> [Caller; 4] {
        [
            self.caller("", DigestFunction::Sha256),
            self.caller("", DigestFunction::Blake3),
            self.caller("projects/a.b/main", DigestFunction::Sha256),
            self.caller("projects/a.b/main", DigestFunction::Blake3),
        ]
    }
}

/// Sends requests in one instance with one digest function.
#[derive(Clone)]
pub struct Caller {
    pub channel: Channel,
    pub instance: &'static str,
    pub function: DigestFunction,
}

impl Caller {
    pub fn instance(&self) -> String {
        self.instance.to_owned()
    }

    /// Returns the value of the field `digest_function`. It is 0 for SHA-256, because clients before REAPI 2.3 leave
    /// the field out.
    pub fn number(&self) -> i32 {
        match self.function {
            DigestFunction::Sha256 => 0,
            DigestFunction::Blake3 => reapi::digest_function::Value::Blake3 as i32,
        }
    }

    pub fn digest(&self, data: &[u8]) -> reapi::Digest {
        self.function.digest(data).to_wire()
    }

    pub fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel.clone())
    }

    pub fn byte_stream(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.channel.clone())
    }

    /// Returns the resource name `{instance}/{kind}/[blake3/]{hash}/{size}`, where `kind` is `blobs`,
    /// `uploads/UUID/blobs` and so on.
    pub fn name(&self, kind: &str, digest: &reapi::Digest) -> String {
        let function = if self.function == DigestFunction::Blake3 { "blake3/" } else { "" };
        let name = format!("{kind}/{function}{}/{}", digest.hash, digest.size_bytes);
        if self.instance.is_empty() { name } else { format!("{}/{name}", self.instance) }
    }

    pub async fn put(&self, data: &[u8]) -> reapi::Digest {
        let digest = self.digest(data);
        let upload = reapi::batch_update_blobs_request::Request {
            digest: Some(digest.clone()),
            data: data.to_vec(),
            ..Default::default()
        };
        let request = reapi::BatchUpdateBlobsRequest {
            instance_name: self.instance(),
            requests: vec![upload],
            digest_function: self.number(),
        };
        let answer = self.cas().batch_update_blobs(request).await.unwrap().into_inner();
        assert_eq!(answer.responses[0].status.clone().unwrap_or_default().code, 0, "{answer:?}");
        digest
    }

    pub async fn put_message(&self, message: &impl Message) -> reapi::Digest {
        self.put(&message.encode_to_vec()).await
    }

    pub async fn missing(&self, digests: &[reapi::Digest]) -> Vec<reapi::Digest> {
        let request = reapi::FindMissingBlobsRequest {
            instance_name: self.instance(),
            blob_digests: digests.to_vec(),
            digest_function: self.number(),
        };
        self.cas().find_missing_blobs(request).await.unwrap().into_inner().missing_blob_digests
    }

    pub async fn read(&self, name: &str, read_offset: i64) -> Result<Vec<u8>, tonic::Status> {
        let request = ReadRequest { resource_name: name.into(), read_offset, read_limit: 0 };
        let mut stream = self.byte_stream().read(request).await?.into_inner();
        let mut all = Vec::new();
        while let Some(chunk) = stream.message().await? {
            all.extend(chunk.data);
        }
        Ok(all)
    }

    pub async fn blob(&self, digest: &reapi::Digest) -> Vec<u8> {
        self.read(&self.name("blobs", digest), 0).await.unwrap()
    }

    /// Sends `data` from the byte `offset` on in chunks, and ends the blob if `finish` says so. Returns the committed
    /// size in bytes.
    pub async fn write(&self, name: &str, data: &[u8], offset: usize, finish: bool) -> i64 {
        let requests = write_requests(name, data, offset, finish);
        let stream = in_order(requests);
        self.byte_stream().write(stream).await.unwrap().into_inner().committed_size
    }
}

const CHUNK: usize = 200_000;

pub fn write_requests(name: &str, data: &[u8], offset: usize, finish: bool) -> Vec<WriteRequest> {
    let mut requests: Vec<WriteRequest> = data[offset..]
        .chunks(CHUNK)
        .scan(offset, |at, chunk| {
            let write_offset = *at as i64;
            *at += chunk.len();
            let data = chunk.to_vec();
            Some(WriteRequest { write_offset, data, ..Default::default() })
        })
        .collect();
    let Some(last) = requests.last_mut() else { return requests };
    last.finish_write = finish;
    requests[0].resource_name = name.to_owned();
    requests
}

pub fn in_order<T: Send + 'static>(
    items: Vec<T>,
) -> impl futures_util::Stream<Item = T> + Send + 'static {
    futures_util::stream::iter(items)
}

/// Bytes that neither compress nor repeat, the same for the same seed.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(state.to_le_bytes())
    });
    next.flatten().take(length).collect()
}

pub fn parse(digest: &reapi::Digest, function: DigestFunction) -> Digest {
    Digest::from_wire(digest, function).unwrap()
}
