//! What a worker may say, to a scheduler with two tasks. Whatever it is, once that worker has
//! gone and another has come both tasks end, each with an answer that can be read.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use arbitrary::Arbitrary;
use kiln_cas::stores::{Clock, MemoryBlobStore};
use kiln_cas::{BlobStore, Digest, DigestFunction};
use kiln_protos::longrunning::{Operation, operation};
use kiln_protos::reapi;
use kiln_protos::reapi::execution_client::ExecutionClient;
use kiln_protos::worker::worker_message::Kind;
use kiln_protos::worker::{
    Completed, Draining, Heartbeat, Hello, Output, Progress, SchedulerMessage, WorkerFailure,
    WorkerMessage, completed, scheduler_message,
};
use kiln_scheduler::{Parts, Scheduler, SchedulerConfig};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use tokio::sync::mpsc;
use tonic::Streaming;

const TASKS: usize = 2;
const MAX_MESSAGES: usize = 32;
/// Of the runtime's own time, which passes at once when nothing else is to be done.
const PATIENCE: Duration = Duration::from_secs(3600);
const HEARTBEAT: Duration = Duration::from_secs(10);

#[derive(Arbitrary, Debug)]
enum Say<'a> {
    Raw(&'a [u8]),
    Response {
        lease: u8,
        response: &'a [u8],
    },
    /// A result that is accepted, with any times in it.
    Success {
        lease: u8,
        metadata: &'a [u8],
        exit_code: i32,
    },
    Failure {
        lease: u8,
        failure: &'a [u8],
    },
    Output {
        lease: u8,
        stream: i32,
        offset: u64,
        data: &'a [u8],
    },
    Progress {
        lease: u8,
        stage: i32,
        at: i64,
    },
    Heartbeat(Vec<u8>),
    Draining,
}

async fn put(blobs: &MemoryBlobStore, message: impl Message) -> Digest {
    let data = message.encode_to_vec();
    let digest = DigestFunction::Sha256.digest(&data);
    blobs.write(&digest, data.into()).await.expect("memory takes it");
    digest
}

async fn action(blobs: &MemoryBlobStore, number: usize) -> Digest {
    let arguments = vec![number.to_string()];
    let command = put(blobs, reapi::Command { arguments, ..Default::default() }).await;
    let root = put(blobs, reapi::Directory::default()).await;
    let (command_digest, input_root_digest) = (Some(command.to_wire()), Some(root.to_wire()));
    put(blobs, reapi::Action { command_digest, input_root_digest, ..Default::default() }).await
}

fn lease(leases: &[String], number: u8) -> String {
    leases.get(usize::from(number)).cloned().unwrap_or_else(|| format!("{number:x}"))
}

fn message(say: Say<'_>, leases: &[String]) -> Option<WorkerMessage> {
    let completed = |number, outcome| {
        Kind::Completed(Completed { lease_id: lease(leases, number), outcome: Some(outcome) })
    };
    let response = |bytes: Vec<u8>| completed::Outcome::ExecuteResponse(bytes.into());
    let kind = match say {
        Say::Raw(bytes) => return WorkerMessage::decode(bytes).ok(),
        Say::Response { lease, response: bytes } => completed(lease, response(bytes.to_vec())),
        Say::Success { lease, metadata, exit_code } => {
            let execution_metadata = reapi::ExecutedActionMetadata::decode(metadata).ok();
            let result =
                reapi::ActionResult { exit_code, execution_metadata, ..Default::default() };
            let answer = reapi::ExecuteResponse { result: Some(result), ..Default::default() };
            completed(lease, response(answer.encode_to_vec()))
        }
        Say::Failure { lease, failure } => {
            let failure = WorkerFailure::decode(failure).ok()?;
            completed(lease, completed::Outcome::Failure(failure))
        }
        Say::Output { lease: number, stream, offset, data } => Kind::Output(Output {
            lease_id: lease(leases, number),
            stream,
            offset,
            data: data.to_vec().into(),
        }),
        Say::Progress { lease: number, stage, at } => {
            Kind::Progress(Progress { lease_id: lease(leases, number), stage, at })
        }
        Say::Heartbeat(numbers) => Kind::Heartbeat(Heartbeat {
            lease_ids: numbers.into_iter().map(|number| lease(leases, number)).collect(),
        }),
        Say::Draining => Kind::Draining(Draining {}),
    };
    Some(WorkerMessage { kind: Some(kind) })
}

fn start(blobs: &Arc<MemoryBlobStore>) -> Scheduler {
    let parts = Parts {
        blobs: blobs.clone(),
        ..Parts::in_memory()
    };
    Scheduler::start(SchedulerConfig::default(), parts)
}

struct Worker {
    sender: mpsc::Sender<WorkerMessage>,
    receiver: mpsc::Receiver<SchedulerMessage>,
}

impl Worker {
    async fn join(scheduler: &Scheduler, name: &str) -> Self {
        let (sender, receiver) = scheduler.open_session();
        let hello = Hello { worker_id: name.into(), slots: TASKS as u32, ..Default::default() };
        let hello = WorkerMessage { kind: Some(Kind::Hello(hello)) };
        sender.send(hello).await.expect("the session is open");
        Self { sender, receiver }
    }

    async fn lease(&mut self) -> String {
        loop {
            let message = self.receiver.recv().await.expect("the session is open");
            if let Some(scheduler_message::Kind::Lease(lease)) = message.kind {
                return lease.lease_id;
            }
        }
    }

    /// Succeeds with whatever it is given.
    async fn serve(mut self) {
        loop {
            let Ok(lease_id) = tokio::time::timeout(HEARTBEAT, self.lease()).await else {
                let alive = WorkerMessage { kind: Some(Kind::Heartbeat(Heartbeat::default())) };
                self.sender.send(alive).await.expect("the session is open");
                continue;
            };
            let response = reapi::ExecuteResponse {
                result: Some(reapi::ActionResult::default()),
                ..Default::default()
            };
            let outcome = completed::Outcome::ExecuteResponse(response.encode_to_vec().into());
            let kind = Kind::Completed(Completed { lease_id, outcome: Some(outcome) });
            let sent = self.sender.send(WorkerMessage { kind: Some(kind) }).await;
            sent.expect("the session is open");
        }
    }
}

/// An operation's stream up to its end.
async fn answer(mut stream: Streaming<Operation>) {
    let mut last = None;
    while let Some(operation) = stream.message().await.expect("the stream does not break") {
        assert!(last.is_none_or(|last: Operation| !last.done), "something came after the end");
        last = Some(operation);
    }
    let last = last.filter(|last| last.done).expect("the operation ends");
    let Some(operation::Result::Response(response)) = last.result else {
        panic!("no ExecuteResponse: {:?}", last.result)
    };
    let response = reapi::ExecuteResponse::decode(&*response.value).expect("it can be read");
    assert!(response.result.is_some() || response.status.is_some_and(|status| status.code != 0));
}

async fn session(says: Vec<Say<'_>>) {
    let blobs = MemoryBlobStore::new(1 << 20, Duration::from_secs(60), Clock::system());
    let blobs = Arc::new(blobs);
    let scheduler = start(&blobs);
    let mut odd = Worker::join(&scheduler, "odd").await;
    let mut client = ExecutionClient::new(scheduler.execution_service());
    let (mut streams, mut leases) = (Vec::new(), Vec::new());
    for number in 0..TASKS {
        let action_digest = Some(action(&blobs, number).await.to_wire());
        let request = reapi::ExecuteRequest { action_digest, ..Default::default() };
        let stream = client.execute(request).await.expect("it is well formed").into_inner();
        streams.push(tokio::spawn(answer(stream)));
        leases.push(odd.lease().await);
    }
    for say in says.into_iter().take(MAX_MESSAGES) {
        let Some(message) = message(say, &leases) else { continue };
        odd.sender.send(message).await.expect("the session is open");
    }
    // Until it is read, however the scheduler's tasks take turns: the time stands still.
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(odd);
    let usual = tokio::spawn(Worker::join(&scheduler, "usual").await.serve());
    for stream in streams {
        let ended = tokio::time::timeout(PATIENCE, stream).await;
        ended.expect("the operation ends in time").expect("its end is as it should be");
    }
    usual.abort();
    scheduler.shutdown();
}

fuzz_target!(|says: Vec<Say>| {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(session(says));
});
