//! A real gRPC server over memory stores, clients, and a worker that follows a script.

mod client;
mod reports;
mod stores;
mod worker;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use kiln_cas::events::Events;
use kiln_cas::logs::LogStreams;
use kiln_cas::redis::{Redis, RedisConfig};
use kiln_cas::stores::audit::AuditLog;
use kiln_cas::stores::{Clock, MemoryActionCache, MemoryBlobStore, MemoryRecords};
use kiln_cas::{ActionCache, ActionKey, BlobStore, Digest, DigestFunction};
use kiln_protos::admin::admin_client::AdminClient;
use kiln_protos::admin::{DrainWorkerRequest, DrainWorkerResponse};
use kiln_protos::events::Execution as ExecutionEvent;
use kiln_protos::longrunning::operations_client::OperationsClient;
use kiln_protos::reapi;
use kiln_protos::reapi::execution_client::ExecutionClient;
use kiln_protos::worker::workers_client::WorkersClient;
use kiln_protos::worker::{Lease, WorkerMessage, scheduler_message, worker_message};
use kiln_scheduler::{Parts, Scheduler, SchedulerConfig, Snapshot};
use kiln_test_servers::redis::RedisServer;
use prost::Message;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Status};

pub use client::{Client, understand};
pub use reports::{ByNumber, Lines};
pub use stores::{Failover, Recorded};
pub use worker::{Worker, exited, failure, hello};

pub struct Kiln {
    pub scheduler: Scheduler,
    pub blobs: Arc<Recorded<MemoryBlobStore>>,
    pub actions: Arc<Recorded<MemoryActionCache>>,
    pub logs: LogStreams,
    pub events: broadcast::Receiver<Arc<ExecutionEvent>>,
    pub notes: Arc<Mutex<Vec<&'static str>>>,
    channel: Channel,
    pub redis: Option<RedisServer>,
    parts: MemoryParts,
    actions_made: AtomicU64,
}

/// An action with its digest, ready to be executed.
#[derive(Debug, Clone, Default)]
pub struct ActionSpec {
    pub platform: Vec<(&'static str, &'static str)>,
    /// Whether only the command has the platform, as Buck2 does it.
    pub platform_on_command: bool,
    pub timeout_s: Option<i64>,
    pub do_not_cache: bool,
}

fn platform(pairs: &[(&str, &str)]) -> reapi::Platform {
    let property = |(name, value): &(&str, &str)| reapi::platform::Property {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    reapi::Platform { properties: pairs.iter().map(property).collect() }
}

impl Kiln {
    pub async fn start() -> Self {
        Self::with(SchedulerConfig::default()).await
    }

    /// Starts a server that is reached over TCP.
    pub async fn with(config: SchedulerConfig) -> Self {
        let mut parts = MemoryParts::new();
        if !crate::SHARED {
            let scheduler = parts.scheduler(config);
            return Self::serving(parts, scheduler).await;
        }
        let redis = redis();
        let scheduler = parts.frontend(config, &redis.url()).await;
        let mut kiln = Self::serving(parts, scheduler).await;
        kiln.redis = Some(redis);
        kiln
    }

    /// Another frontend of the same queue, with the same stores.
    pub async fn beside(&self, config: SchedulerConfig) -> Self {
        let url = self.redis.as_ref().expect("the queue is in Redis").url();
        self.beside_at(&url, config).await
    }

    /// Starts another frontend of the same queue that reaches Redis at `url`.
    pub async fn beside_at(&self, url: &str, config: SchedulerConfig) -> Self {
        let mut parts = self.parts.clone();
        let scheduler = parts.frontend(config, url).await;
        Self::serving(parts, scheduler).await
    }

    async fn serving(parts: MemoryParts, scheduler: Scheduler) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let router = Server::builder()
            .add_service(scheduler.execution_service())
            .add_service(scheduler.operations_service())
            .add_service(scheduler.workers_service())
            .add_service(scheduler.admin_service(parts.records.clone()));
        tokio::spawn(router.serve_with_incoming(incoming));
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        parts.into_kiln(scheduler, endpoint.connect_lazy())
    }

    pub async fn drain_worker(&self, name: &str) -> Result<DrainWorkerResponse, Status> {
        let request = DrainWorkerRequest { name: name.to_owned() };
        let answer = AdminClient::new(self.channel.clone()).drain_worker(request).await?;
        Ok(answer.into_inner())
    }

    pub fn audit_log(&self) -> AuditLog {
        AuditLog::new(self.parts.records.clone())
    }

    /// Waits until something is remembered of a test's cases.
    pub async fn cases_are_known(&self) {
        use kiln_cas::records::Records;
        while self.parts.records.list("fanout/", None, false, 1).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn snapshot(&self) -> Snapshot {
        self.scheduler.snapshot().await.unwrap()
    }

    /// Starts a server in this process that is reached over a pipe in memory, so that a paused
    /// clock goes on only when nothing else does.
    pub async fn in_memory(config: SchedulerConfig) -> Self {
        let (sender, receiver) = mpsc::channel::<std::io::Result<tokio::io::DuplexStream>>(8);
        let parts = MemoryParts::new();
        let scheduler = parts.scheduler(config);
        let router = Server::builder()
            .add_service(scheduler.execution_service())
            .add_service(scheduler.operations_service())
            .add_service(scheduler.workers_service())
            .add_service(scheduler.admin_service(parts.records.clone()));
        tokio::spawn(router.serve_with_incoming(ReceiverStream::new(receiver)));
        let connector = tower::service_fn(move |_| {
            let sender = sender.clone();
            async move {
                let (client, server) = tokio::io::duplex(1 << 16);
                sender.send(Ok(server)).await.map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(TokioIo::new(client))
            }
        });
        let endpoint = Endpoint::from_static("http://in-memory");
        parts.into_kiln(scheduler, endpoint.connect_with_connector_lazy(connector))
    }

    pub async fn blob(&self, data: Vec<u8>, function: DigestFunction) -> Digest {
        let digest = function.digest(&data);
        self.blobs.write(&digest, data.into()).await.unwrap();
        digest
    }

    /// Stores a new action, its command and its input root.
    pub async fn action(&self, spec: ActionSpec) -> Digest {
        self.action_with(spec, DigestFunction::Sha256).await
    }

    pub async fn action_with(&self, spec: ActionSpec, function: DigestFunction) -> Digest {
        let number = self.actions_made.fetch_add(1, Ordering::Relaxed);
        // Its platform is deprecated, and all that some clients send.
        #[allow(deprecated)]
        let command = reapi::Command {
            arguments: vec!["/bin/echo".to_owned(), number.to_string()],
            platform: spec.platform_on_command.then(|| platform(&spec.platform)),
            ..Default::default()
        };
        let command = self.blob(command.encode_to_vec(), function).await;
        let root = self.blob(reapi::Directory::default().encode_to_vec(), function).await;
        let action = reapi::Action {
            command_digest: Some(command.to_wire()),
            input_root_digest: Some(root.to_wire()),
            timeout: spec
                .timeout_s
                .map(|seconds| kiln_protos::protobuf::Duration { seconds, nanos: 0 }),
            do_not_cache: spec.do_not_cache,
            platform: (!spec.platform_on_command).then(|| platform(&spec.platform)),
            ..Default::default()
        };
        self.blob(action.encode_to_vec(), function).await
    }

    pub async fn simple(&self) -> Digest {
        self.action(ActionSpec::default()).await
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub fn execution(&self) -> ExecutionClient<Channel> {
        ExecutionClient::new(self.channel.clone())
    }

    pub fn operations(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.channel.clone())
    }

    pub async fn execute(&self, action: &Digest) -> Client {
        self.try_execute(request(action)).await.unwrap()
    }

    pub async fn try_execute(&self, request: reapi::ExecuteRequest) -> Result<Client, Status> {
        let stream = self.execution().execute(labelled(request)).await?.into_inner();
        Ok(Client { stream })
    }

    pub async fn wait(&self, name: &str) -> Result<Client, Status> {
        let request = reapi::WaitExecutionRequest { name: name.to_owned() };
        let stream = self.execution().wait_execution(request).await?.into_inner();
        Ok(Client { stream })
    }

    pub async fn worker(&self, id: &str, slots: u32, properties: &[(&str, &str)]) -> Worker {
        self.session(hello(id, slots, properties)).await
    }

    /// A worker that comes back and still runs these leases.
    pub async fn worker_again(&self, id: &str, slots: u32, leases: &[&Lease]) -> Worker {
        let mut hello = hello(id, slots, &[]);
        if let Some(worker_message::Kind::Hello(hello)) = &mut hello.kind {
            hello.lease_ids = leases.iter().map(|lease| lease.lease_id.clone()).collect();
        }
        self.session(hello).await
    }

    async fn session(&self, hello: WorkerMessage) -> Worker {
        let (sender, receiver) = mpsc::channel(64);
        sender.send(hello).await.unwrap();
        let mut client = WorkersClient::new(self.channel.clone());
        let inbound = client.session(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        let mut worker = Worker { outbound: sender, inbound };
        let welcome = worker.next().await.unwrap();
        assert!(matches!(welcome, scheduler_message::Kind::Welcome(_)), "{welcome:?}");
        worker
    }

    pub fn key(&self, action: &Digest) -> ActionKey {
        ActionKey { instance: "main".into(), action: *action }
    }

    pub async fn cached(&self, action: &Digest) -> bool {
        self.actions.get(&self.key(action)).await.unwrap().is_some()
    }
}

/// Starts Redis, which all of these tests need: without one, and where that is allowed, none of
/// them runs.
fn redis() -> RedisServer {
    RedisServer::start().unwrap_or_else(|| std::process::exit(0))
}

#[derive(Clone)]
struct MemoryParts {
    blobs: Arc<Recorded<MemoryBlobStore>>,
    actions: Arc<Recorded<MemoryActionCache>>,
    logs: LogStreams,
    events: Events,
    records: Arc<MemoryRecords>,
    notes: Arc<Mutex<Vec<&'static str>>>,
}

impl MemoryParts {
    fn new() -> Self {
        let notes: Arc<Mutex<Vec<&'static str>>> = Arc::default();
        let store = MemoryBlobStore::new(1 << 30, Duration::from_secs(3600), Clock::system());
        Self {
            blobs: Recorded::new(store, &notes),
            actions: Recorded::new(MemoryActionCache::default(), &notes),
            logs: LogStreams::default(),
            events: Events::new(),
            records: Arc::default(),
            notes,
        }
    }

    fn parts(&self) -> Parts {
        Parts {
            blobs: self.blobs.clone(),
            actions: self.actions.clone(),
            logs: self.logs.clone(),
            events: self.events.clone(),
            records: self.records.clone(),
            reports: Arc::new(Lines),
            shards: Arc::new(ByNumber),
            ..Parts::in_memory()
        }
    }

    fn scheduler(&self, config: SchedulerConfig) -> Scheduler {
        Scheduler::start(config, self.parts())
    }

    /// A frontend with live output of its own, as if it were in a process of its own.
    async fn frontend(&mut self, config: SchedulerConfig, url: &str) -> Scheduler {
        let redis = Redis::connect(RedisConfig::from_url(url).unwrap()).await.unwrap();
        self.logs = LogStreams::join(redis.clone()).await.unwrap();
        Scheduler::join(config, self.parts(), redis).await.unwrap()
    }

    fn into_kiln(self, scheduler: Scheduler, channel: Channel) -> Kiln {
        Kiln {
            scheduler,
            blobs: self.blobs.clone(),
            actions: self.actions.clone(),
            logs: self.logs.clone(),
            events: self.events.subscribe(),
            notes: self.notes.clone(),
            parts: self,
            channel,
            redis: None,
            actions_made: AtomicU64::new(0),
        }
    }
}

pub fn request(action: &Digest) -> reapi::ExecuteRequest {
    reapi::ExecuteRequest {
        instance_name: "main".to_owned(),
        action_digest: Some(action.to_wire()),
        digest_function: action.function.to_wire() as i32,
        ..Default::default()
    }
}

/// A request with the metadata that Bazel sends.
pub fn labelled<T>(message: T) -> Request<T> {
    let metadata = reapi::RequestMetadata {
        tool_details: Some(reapi::ToolDetails {
            tool_name: "bazel".to_owned(),
            tool_version: "7.0".to_owned(),
        }),
        tool_invocation_id: "build-1".to_owned(),
        action_mnemonic: "Genrule".to_owned(),
        target_id: "//a:b".to_owned(),
        ..Default::default()
    };
    let mut request = Request::new(message);
    let value = tonic::metadata::MetadataValue::from_bytes(&metadata.encode_to_vec());
    request.metadata_mut().insert_bin("build.bazel.remote.execution.v2.requestmetadata-bin", value);
    request
}
