//! A server over memory stores, and what tests need of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Extensions;
use kiln_cas::access::{Authorizer, Everybody, Refused, Right};
use kiln_cas::events::Events;
use kiln_cas::logs::LogStreams;
use kiln_cas::promises::Invocations;
use kiln_cas::records::SharedRecords;
use kiln_cas::services::{CasServices, FetchConfig, ServicesConfig};
use kiln_cas::stores::{
    Clock, CompletenessChecking, MemoryActionCache, MemoryBlobStore, MemoryRecords, Verified,
};
use kiln_cas::{Digest, DigestFunction, SharedActionCache, SharedBlobStore};
use kiln_protos::bytestream::WriteRequest;
use kiln_protos::bytestream::byte_stream_client::ByteStreamClient;
use kiln_protos::reapi;
use kiln_protos::reapi::action_cache_client::ActionCacheClient;
use kiln_protos::reapi::capabilities_client::CapabilitiesClient;
use kiln_protos::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use prost::Message;
use tonic::service::RoutesBuilder;
use tonic::transport::Channel;
use tonic::{Code, Status};

pub const SHA256: DigestFunction = DigestFunction::Sha256;
pub const BLAKE3: DigestFunction = DigestFunction::Blake3;
/// Larger than what the clients here take by default.
const CLIENT_LIMIT: usize = 256 << 20;

/// Everybody may read, and nothing else.
pub struct Readers;

impl Authorizer for Readers {
    fn check(&self, _: &Extensions, right: Right, _instance: &str) -> Result<(), Refused> {
        match right {
            Right::Read => Ok(()),
            _ => Err(Refused::Denied("may only read".to_owned())),
        }
    }

    fn check_everywhere(&self, caller: &Extensions, right: Right) -> Result<(), Refused> {
        self.check(caller, right, "")
    }

    fn name(&self, _: &Extensions) -> Option<Arc<str>> {
        Some("reader".into())
    }

    fn tools(&self, _: &Extensions, _: &str) -> Option<Arc<str>> {
        None
    }
}

pub struct Server {
    pub address: std::net::SocketAddr,
    pub channel: Channel,
    pub blobs: SharedBlobStore,
    pub records: SharedRecords,
    pub logs: LogStreams,
    pub events: Events,
    pub actions: SharedActionCache,
    pub health: tonic_health::server::HealthReporter,
}

pub async fn start() -> Server {
    start_with(|_| {}).await
}

pub async fn start_with(change: impl FnOnce(&mut ServicesConfig)) -> Server {
    let clock = Clock::system();
    let lease = Duration::from_secs(3600);
    let memory = MemoryBlobStore::new(1 << 30, lease, clock.clone());
    let blobs: SharedBlobStore = Arc::new(Verified::new(memory));
    let results = Arc::new(MemoryActionCache::default());
    let actions = CompletenessChecking::new(results, blobs.clone(), 1 << 20, clock);
    let mut config = ServicesConfig {
        blobs: blobs.clone(),
        actions: Arc::new(actions),
        records: Arc::new(MemoryRecords::default()),
        logs: LogStreams::default(),
        events: Events::new(),
        exec_enabled: true,
        access: Arc::new(Everybody { write_results: true }),
        invocations: Invocations::default(),
        fetch: FetchConfig::default(),
        opaque: Default::default(),
        max_blob_size: 0,
        quotas: Arc::default(),
        secret: [7; 32],
    };
    change(&mut config);
    let (logs, events, blobs) = (config.logs.clone(), config.events.clone(), config.blobs.clone());
    let records = config.records.clone();
    let actions = config.actions.clone();
    let services = CasServices::new(config);
    let mut routes = RoutesBuilder::default();
    services.add_to(&mut routes);
    let router = routes.routes().into_axum_router().merge(services.http_cache());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let channel =
        Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let health = services.health();
    Server { address, channel, blobs, records, logs, events, actions, health }
}

impl Server {
    pub fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel.clone())
            .max_decoding_message_size(CLIENT_LIMIT)
            .max_encoding_message_size(CLIENT_LIMIT)
    }

    pub fn action_cache(&self) -> ActionCacheClient<Channel> {
        ActionCacheClient::new(self.channel.clone())
    }

    pub fn byte_stream(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.channel.clone()).max_encoding_message_size(CLIENT_LIMIT)
    }

    pub fn capabilities(&self) -> CapabilitiesClient<Channel> {
        CapabilitiesClient::new(self.channel.clone())
    }

    /// Stores a blob behind the services' back.
    pub async fn put(&self, function: DigestFunction, data: impl Into<Bytes>) -> Digest {
        let data = data.into();
        let digest = function.digest(&data);
        self.blobs.write(&digest, data).await.unwrap();
        digest
    }

    pub async fn put_message(&self, message: &impl Message) -> Digest {
        self.put(SHA256, message.encode_to_vec()).await
    }

    pub async fn has(&self, digest: &Digest) -> bool {
        self.blobs.find_missing(&[*digest]).await.unwrap().is_empty()
    }

    /// Reads a resource whole.
    pub async fn read(&self, name: &str, offset: i64, limit: i64) -> Result<Vec<u8>, Status> {
        let request = kiln_protos::bytestream::ReadRequest {
            resource_name: name.into(),
            read_offset: offset,
            read_limit: limit,
        };
        let mut stream = self.byte_stream().read(request).await?.into_inner();
        let mut data = Vec::new();
        while let Some(response) = stream.message().await? {
            data.extend(response.data);
        }
        Ok(data)
    }

    /// Sends the requests of one Write call; returns the committed size.
    pub async fn write(&self, requests: Vec<WriteRequest>) -> Result<i64, Status> {
        let stream = futures_util::stream::iter(requests);
        Ok(self.byte_stream().write(stream).await?.into_inner().committed_size)
    }

    pub async fn write_status(&self, name: &str) -> (i64, bool) {
        let request =
            kiln_protos::bytestream::QueryWriteStatusRequest { resource_name: name.into() };
        let status = self.byte_stream().query_write_status(request).await.unwrap().into_inner();
        (status.committed_size, status.complete)
    }
}

pub fn write_request(name: &str, offset: i64, data: &[u8], finish: bool) -> WriteRequest {
    WriteRequest {
        resource_name: name.into(),
        write_offset: offset,
        finish_write: finish,
        data: data.to_vec(),
    }
}

pub fn wire(digest: &Digest) -> Option<reapi::Digest> {
    Some(digest.to_wire())
}

/// Bytes that do not compress or repeat.
pub fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut data: Vec<u8> =
        std::iter::repeat_with(next).take(size.div_ceil(8)).flat_map(u64::to_le_bytes).collect();
    data.truncate(size);
    data
}

/// The code is right and the sentence names what it is about.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, part: &str) {
    let status = result.expect_err("it has to be refused");
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(part), "{:?} does not hold {part:?}", status.message());
}
