//! What a worker may say, to a scheduler with two tasks: nothing that panics, and it goes on.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use arbitrary::Arbitrary;
use kiln_cas::events::Events;
use kiln_cas::logs::LogStreams;
use kiln_cas::stores::{Clock, MemoryActionCache, MemoryBlobStore};
use kiln_cas::{BlobStore, Digest, DigestFunction};
use kiln_protos::reapi;
use kiln_protos::reapi::execution_client::ExecutionClient;
use kiln_protos::worker::worker_message::Kind;
use kiln_protos::worker::{
    Completed, Draining, Heartbeat, Hello, Output, Progress, WorkerFailure, WorkerMessage,
    completed, scheduler_message,
};
use kiln_scheduler::{NoEstimates, Parts, Scheduler, SchedulerConfig};
use libfuzzer_sys::fuzz_target;
use prost::Message;

const TASKS: usize = 2;
/// More than any message needs to be dealt with.
const TURNS: usize = 64;

#[derive(Arbitrary, Debug)]
enum Say<'a> {
    Raw(&'a [u8]),
    Response { lease: u8, response: &'a [u8] },
    /// A result that is accepted, with any times in it.
    Success { lease: u8, metadata: &'a [u8], exit_code: i32 },
    Failure { lease: u8, failure: &'a [u8] },
    Output { lease: u8, stream: i32, offset: u64, data: &'a [u8] },
    Progress { lease: u8, stage: i32, at: i64 },
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

async fn session(says: Vec<Say<'_>>) {
    let blobs = MemoryBlobStore::new(1 << 20, Duration::from_secs(60), Clock::system());
    let blobs = Arc::new(blobs);
    let scheduler = Scheduler::start(
        SchedulerConfig::default(),
        Parts {
            blobs: blobs.clone(),
            actions: Arc::new(MemoryActionCache::default()),
            logs: LogStreams::default(),
            events: Events::new(),
            estimator: Arc::new(NoEstimates),
        },
    );
    let (sender, mut receiver) = scheduler.open_session();
    let hello = Hello { worker_id: "w".into(), slots: TASKS as u32, ..Default::default() };
    let hello = WorkerMessage { kind: Some(Kind::Hello(hello)) };
    sender.send(hello).await.expect("the session is open");
    let mut client = ExecutionClient::new(scheduler.execution_service());
    let mut streams = Vec::new();
    for number in 0..TASKS {
        let action_digest = Some(action(&blobs, number).await.to_wire());
        let request = reapi::ExecuteRequest { action_digest, ..Default::default() };
        streams.push(client.execute(request).await.expect("it is well formed"));
    }
    let mut leases = Vec::new();
    while leases.len() < TASKS {
        let message = receiver.recv().await.expect("the session is open");
        if let Some(scheduler_message::Kind::Lease(lease)) = message.kind {
            leases.push(lease.lease_id);
        }
    }
    for say in says.into_iter().take(TURNS / 2) {
        let Some(message) = message(say, &leases) else { continue };
        if sender.send(message).await.is_err() {
            break;
        }
    }
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
    drop(sender);
    scheduler.snapshot();
    scheduler.shutdown();
}

fuzz_target!(|says: Vec<Say>| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(session(says));
});
