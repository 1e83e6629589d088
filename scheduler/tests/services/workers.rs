//! Sessions, over gRPC and in this process.

use bytes::Bytes;
use futures_util::StreamExt;
use kiln_cas::DigestFunction;
use kiln_protos::reapi::execution_stage::Value as Stage;
use kiln_protos::reapi::{Action, ExecuteResponse};
use kiln_protos::rpc::Status;
use kiln_protos::worker::workers_client::WorkersClient;
use kiln_protos::worker::{
    Completed, OutputStream, WorkerMessage, completed, scheduler_message, worker_message,
};
use kiln_scheduler::SchedulerConfig;
use prost::Message;
use tonic::Code;

use crate::harness::{ActionSpec, Kiln, exited, hello};

#[tokio::test]
async fn a_session_that_begins_badly_is_refused() {
    let kiln = Kiln::start().await;
    let good = hello("w", 1, &[]);
    let spoil = |change: fn(&mut kiln_protos::worker::Hello)| {
        let mut message = good.clone();
        if let Some(worker_message::Kind::Hello(hello)) = &mut message.kind {
            change(hello);
        }
        message
    };
    let heartbeat = worker_message::Kind::Heartbeat(kiln_protos::worker::Heartbeat::default());
    for (message, field) in [
        (spoil(|hello| hello.worker_id.clear()), "worker_id"),
        (spoil(|hello| hello.slots = 0), "slots"),
        (spoil(|hello| hello.slots = 1_000_000), "slots"),
        (WorkerMessage { kind: Some(heartbeat) }, "must be Hello"),
        (WorkerMessage { kind: None }, "must be Hello"),
    ] {
        let mut client = WorkersClient::new(kiln.channel());
        let outbound = tokio_stream::iter([message]);
        let error = client.session(outbound).await.err().unwrap();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains(field), "{error}");
    }
    assert!(kiln.snapshot().await.workers.is_empty());
}

#[tokio::test]
async fn a_lease_brings_its_action_and_command() {
    let kiln = Kiln::in_memory(SchedulerConfig::default()).await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    for platform_on_command in [false, true] {
        let action = kiln.action(ActionSpec { platform_on_command, ..Default::default() }).await;
        let mut client = kiln.execute(&action).await;
        let lease = worker.lease().await;
        let hash = |blob: &Bytes| DigestFunction::Sha256.digest(blob).to_wire();
        let digests: Vec<_> = lease.blobs.iter().map(hash).collect();
        let message = Action::decode(lease.blobs[0].clone()).unwrap();
        assert_eq!(digests, [action.to_wire(), message.command_digest.unwrap()]);
        worker.succeed(&lease).await;
        assert_eq!(client.status().await.code, 0);
    }
}

#[tokio::test]
async fn a_second_session_of_one_name_ends_the_first() {
    let kiln = Kiln::start().await;
    let mut old = kiln.worker("w", 1, &[]).await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    old.lease().await;
    let mut new = kiln.worker("w", 1, &[]).await;
    assert!(old.next().await.is_none());
    let lease = new.lease().await;
    assert_eq!(lease.attempt, 2);
    new.succeed(&lease).await;
    assert_eq!(client.status().await.code, 0);
}

#[tokio::test]
async fn output_can_be_read_while_the_action_runs() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    let lease = worker.lease().await;
    assert!(lease.stream_output);
    let metadata = client.until(Stage::Executing).await.metadata;
    let say = |stream, offset, data| worker.print(&lease, stream, offset, data);
    let mut stdout = kiln.logs.read(&metadata.stdout_stream_name, 0).await.unwrap().unwrap();
    let mut stderr = kiln.logs.read(&metadata.stderr_stream_name, 0).await.unwrap().unwrap();
    say(OutputStream::Stdout, 0, "one").await;
    assert_eq!(stdout.next().await.unwrap().unwrap(), "one");
    say(OutputStream::Stderr, 0, "oh").await;
    assert_eq!(stderr.next().await.unwrap().unwrap(), "oh");
    worker.succeed(&lease).await;
    client.until(Stage::Completed).await;
    assert!(stdout.next().await.is_none() && stderr.next().await.is_none());
}

#[tokio::test]
async fn a_local_worker_speaks_the_same_protocol() {
    let kiln = Kiln::start().await;
    let (to_scheduler, mut from_scheduler) = kiln.scheduler.open_session();
    to_scheduler.send(hello("local", 2, &[("os", "linux")])).await.unwrap();
    let welcome = from_scheduler.recv().await.unwrap().kind;
    assert!(matches!(welcome, Some(scheduler_message::Kind::Welcome(_))));
    let mut client = kiln.execute(&kiln.simple().await).await;
    let Some(scheduler_message::Kind::Lease(lease)) = from_scheduler.recv().await.unwrap().kind
    else {
        panic!("no lease");
    };
    let snapshot = kiln.snapshot().await;
    assert_eq!((snapshot.slots, snapshot.running_count, snapshot.running.len()), (2, 1, 1));
    assert_eq!(snapshot.running[0].worker, "local");
    assert_eq!(snapshot.workers[0].properties, [("os".to_owned(), "linux".to_owned())]);
    assert_eq!(snapshot.property_sets[0].slots_wanted, 1);
    let outcome = completed::Outcome::ExecuteResponse(exited(0).encode_to_vec().into());
    let completed = Completed { lease_id: lease.lease_id, outcome: Some(outcome) };
    let kind = Some(worker_message::Kind::Completed(completed));
    to_scheduler.send(WorkerMessage { kind }).await.unwrap();
    assert_eq!(client.status().await.code, 0);
    let snapshot = kiln.snapshot().await;
    assert_eq!((snapshot.running_count, snapshot.completed["Ok"]), (0, 1));
    drop(to_scheduler);
    assert!(from_scheduler.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_read_is_the_workers_failure() {
    let kiln = Kiln::in_memory(SchedulerConfig::default()).await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    let no_result = ExecuteResponse { status: Some(Status::default()), ..Default::default() };
    for (attempt, response) in [(1, ExecuteResponse::default()), (2, no_result)] {
        let lease = worker.lease().await;
        assert_eq!(lease.attempt, attempt);
        worker.answer(&lease, response).await;
    }
    let lease = worker.lease().await;
    assert_eq!(lease.attempt, 3);
    worker.succeed(&lease).await;
    assert_eq!(client.status().await.code, 0);
}

#[tokio::test]
async fn a_worker_whose_connection_broke_comes_back_with_what_it_runs() {
    let kiln = Kiln::start().await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    let mut worker = kiln.worker("w", 2, &[]).await;
    let lease = worker.lease().await;
    drop(worker);
    while !kiln.snapshot().await.workers[0].draining {
        tokio::task::yield_now().await;
    }
    // The worker gets no other action until it is back.
    let mut other = kiln.execute(&kiln.simple().await).await;
    let mut worker = kiln.worker_again("w", 2, &[&lease]).await;
    let second = worker.lease().await;
    assert_ne!(second.lease_id, lease.lease_id);
    worker.succeed(&lease).await;
    worker.succeed(&second).await;
    assert_eq!((client.status().await.code, other.status().await.code), (0, 0));
    let counters = kiln.snapshot().await.counters;
    assert_eq!((counters.dispatched, counters.retries, counters.workers_lost), (2, 0, 0));
}
