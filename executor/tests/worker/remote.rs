//! The remote store against the real services, and sessions over a real connection.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use kiln_cas::access::Everybody;
use kiln_cas::services::{CasServices, FetchConfig, ServicesConfig};
use kiln_cas::stores::RemoteStore;
use kiln_cas::stores::{Storage, StorageConfig};
use kiln_cas::{Blob, BlobStore, DigestFunction, SharedBlobStore, StoreError};
use kiln_executor::remote::work_for;
use kiln_executor::{Worker, WorkerConfig};
use kiln_net::grpc::{Connections, Credentials};
use kiln_protos::reapi::ExecuteResponse;
use kiln_protos::worker::workers_server::{Workers, WorkersServer};
use kiln_protos::worker::{
    Lease, SchedulerMessage, WorkerMessage, completed, scheduler_message, worker_message,
};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::common::{self, FUNCTION, PlainRunners, put, put_action, shell};

/// What a worker said in its session, and a way to answer.
struct Conversation {
    messages: Streaming<WorkerMessage>,
    answers: mpsc::Sender<Result<SchedulerMessage, Status>>,
}

impl Conversation {
    async fn next(&mut self) -> worker_message::Kind {
        self.messages.message().await.unwrap().expect("the worker still talks").kind.unwrap()
    }

    async fn send(&self, kind: scheduler_message::Kind) {
        self.answers.send(Ok(SchedulerMessage { kind: Some(kind) })).await.unwrap();
    }
}

struct WorkersService {
    conversations: mpsc::Sender<Conversation>,
}

#[tonic::async_trait]
impl Workers for WorkersService {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<SchedulerMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (answers, stream) = mpsc::channel(8);
        let messages = request.into_inner();
        self.conversations.send(Conversation { messages, answers }).await.unwrap();
        Ok(Response::new(ReceiverStream::new(stream).boxed()))
    }
}

struct Running {
    address: SocketAddr,
    store: SharedBlobStore,
    conversations: mpsc::Receiver<Conversation>,
    storage: Storage,
}

async fn start(dir: &Path) -> Running {
    let config = StorageConfig { data_dir: dir.join("data"), ..Default::default() };
    let storage = Storage::open(config).await.unwrap();
    let services = CasServices::new(ServicesConfig {
        blobs: storage.blobs.clone(),
        actions: storage.actions.clone(),
        records: storage.records.clone(),
        logs: Default::default(),
        events: Default::default(),
        exec_enabled: true,
        access: Arc::new(Everybody { write_results: true }),
        invocations: storage.invocations.clone(),
        fetch: FetchConfig::default(),
        opaque: Default::default(),
        max_blob_size: 0,
        quotas: Default::default(),
        secret: [0; 32],
    });
    let (sender, conversations) = mpsc::channel(8);
    let mut routes = tonic::service::Routes::builder();
    services.add_to(&mut routes);
    routes.add_service(WorkersServer::new(WorkersService { conversations: sender }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_routes(routes.routes())
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    Running { address, store: storage.blobs.clone(), conversations, storage }
}

fn remote(running: &Running, instance: &str) -> RemoteStore {
    RemoteStore::new(&format!("grpc://{}", running.address), instance).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_every_size_go_there_and_back_in_both_functions() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let remote = remote(&running, "some/instance");
    for function in DigestFunction::ALL {
        for size in [0, 1, 4_096, 1 << 20, (1 << 20) + 1, 5_000_000] {
            let data = Bytes::from((0..size).map(|n| (n % 251) as u8).collect::<Vec<_>>());
            let digest = function.digest(&data);
            let missing = remote.find_missing(&[digest]).await.unwrap();
            assert_eq!(missing.is_empty(), size == 0, "{digest}");
            if size > 0 {
                let absent = match remote.read(&digest, 0, None).await {
                    Ok(blob) => blob.collect(1 << 30).await.unwrap_err(),
                    Err(error) => error,
                };
                assert!(matches!(absent, StoreError::NotFound(found) if found == digest));
            }
            remote.write(&digest, data.clone()).await.unwrap();
            assert_eq!(remote.find_missing(&[digest]).await.unwrap(), []);
            let blob = remote.read(&digest, 0, None).await.unwrap();
            assert_eq!(matches!(blob, Blob::Whole(_)), size <= 1 << 20);
            assert_eq!(blob.collect(1 << 30).await.unwrap(), data);
            let (from, to) = (size / 3, size / 2);
            let part = remote.read(&digest, from as u64, Some((to - from) as u64)).await.unwrap();
            assert_eq!(part.collect(1 << 30).await.unwrap(), data[from..to]);
            let beyond = remote.read(&digest, size as u64 + 1, None).await.map(|_| ());
            assert!(matches!(beyond, Err(StoreError::OutOfRange { .. })));
            let stored = running.store.read(&digest, 0, None).await.unwrap();
            assert_eq!(stored.collect(1 << 30).await.unwrap(), data);
        }
    }
    running.storage.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_are_streamed_and_wrong_bytes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let remote = remote(&running, "");
    let data = vec![9; 3_000_000];
    let digest = FUNCTION.digest(&data);
    for _ in 0..2 {
        // The second time the server has the blob and answers early.
        let mut writer = remote.writer(&digest).await.unwrap();
        for piece in data.chunks(700_000) {
            writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        writer.commit().await.unwrap();
    }
    let other = FUNCTION.digest(&vec![8; 3_000_000]);
    let mut writer = remote.writer(&other).await.unwrap();
    writer.write(data.clone().into()).await.unwrap();
    assert!(writer.commit().await.is_err());
    let mut writer = remote.writer(&other).await.unwrap();
    writer.write(Bytes::from_static(b"short")).await.unwrap();
    assert!(matches!(writer.commit().await, Err(StoreError::SizeMismatch { .. })));
    let small = FUNCTION.digest(b"one");
    assert!(remote.write(&small, Bytes::from_static(b"two")).await.is_err());
    assert_eq!(remote.find_missing(&[small, digest, other]).await.unwrap(), [small, other]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_blobs_travel_together() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let remote: SharedBlobStore = Arc::new(remote(&running, ""));
    let digests: Vec<_> = futures_util::stream::iter(0..2_500)
        .map(|n| {
            let remote = remote.clone();
            async move { put(&remote, format!("blob {n}")).await }
        })
        .buffered(64)
        .collect()
        .await;
    assert_eq!(remote.find_missing(&digests).await.unwrap(), []);
    let reads = digests.iter().map(|digest| {
        let (remote, digest) = (remote.clone(), *digest);
        async move { remote.read(&digest, 0, None).await.unwrap().collect(100).await.unwrap() }
    });
    let data = futures_util::future::join_all(reads).await;
    for (n, data) in data.iter().enumerate() {
        assert_eq!(data, format!("blob {n}").as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_connects_works_and_comes_back_when_the_connection_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = start(dir.path()).await;
    let remote: SharedBlobStore = Arc::new(remote(&running, ""));
    let config = WorkerConfig::new("far", dir.path().join("worker"), 1);
    let runners = Arc::new(PlainRunners { directory: dir.path().join("plain") });
    let mut worker = Worker::with_runners(config, remote, runners).await.unwrap();
    let server = Connections::new(&format!("grpc://{}", running.address)).unwrap();
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let serving = tokio::spawn(async move { work_for(&server, &mut worker, &stop).await });

    let command = shell("echo far away > out", &["out"]);
    let action = put_action(&running.store, &command, FUNCTION.digest(b"")).await;
    for attempt in 0..2 {
        let mut conversation = running.conversations.recv().await.unwrap();
        match conversation.next().await {
            worker_message::Kind::Hello(hello) => assert_eq!(hello.worker_id, "far"),
            other => panic!("{other:?} instead of Hello"),
        }
        if attempt == 0 {
            // The conversation is dropped here, which cuts the session.
            continue;
        }
        let wire =
            kiln_protos::worker::Digest { hash: action.hex(), size_bytes: action.size as i64 };
        let lease = Lease { lease_id: "l".into(), action: Some(wire), ..Default::default() };
        conversation.send(scheduler_message::Kind::Lease(lease)).await;
        let response = loop {
            match conversation.next().await {
                worker_message::Kind::Completed(completed) => break completed.outcome.unwrap(),
                worker_message::Kind::Progress(_) | worker_message::Kind::Heartbeat(_) => {}
                other => panic!("{other:?}"),
            }
        };
        let completed::Outcome::ExecuteResponse(response) = response else { panic!("it failed") };
        let result = ExecuteResponse::decode(response).unwrap().result.unwrap();
        let digest = result.output_files[0].digest.as_ref().unwrap();
        assert_eq!(common::get(&running.store, digest).await, "far away\n");

        shutdown.cancel();
        while !matches!(conversation.next().await, worker_message::Kind::Draining(_)) {}
        assert!(conversation.messages.message().await.unwrap().is_none());
    }
    tokio::time::timeout(Duration::from_secs(10), serving).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_unavailable_in_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let remote = RemoteStore::new(&format!("grpc://{address}"), "").unwrap();
    let digest = FUNCTION.digest(b"x");
    let error = remote.write(&digest, Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_go_to_the_next_address_when_one_is_not_heard() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("grpc://{}", listener.local_addr().unwrap());
    drop(listener);
    let heard = format!("grpc://{}", running.address);
    let server = Connections::with_all(&[&nobody, &heard], &Credentials::default()).unwrap();
    let remote = RemoteStore::on(server.clone(), "");
    assert_eq!(server.url(), nobody);
    let data = Bytes::from(vec![7; 3_000_000]);
    let digest = FUNCTION.digest(&data);
    // The bytes of the stream are spent after the failure, so the caller has to try again.
    let error = remote.write(&digest, data.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert_eq!(server.url(), heard);
    remote.write(&digest, data.clone()).await.unwrap();
    let stored = running.store.read(&digest, 0, None).await.unwrap();
    assert_eq!(stored.collect(1 << 30).await.unwrap(), data);
    let server = Connections::with_all(&[&nobody, &heard], &Credentials::default()).unwrap();
    let remote = RemoteStore::on(server, "");
    assert_eq!(remote.find_missing(&[digest]).await.unwrap(), []);
}
