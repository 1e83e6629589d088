//! What is refused, and with which words.

use kiln_cas::{Digest, DigestFunction};
use kiln_protos::reapi;
use kiln_protos::rpc;
use kiln_protos::worker::{self, worker_failure::Kind};
use kiln_scheduler::SchedulerConfig;
use kiln_scheduler::queue::Limits;
use prost::Message;
use tonic::Code;

use crate::harness::{ActionSpec, Kiln, failure, request};

/// `google.rpc.PreconditionFailure` as a client decodes it.
#[derive(Clone, PartialEq, Message)]
struct PreconditionFailure {
    #[prost(message, repeated, tag = "1")]
    violations: Vec<Violation>,
}

#[derive(Clone, PartialEq, Message)]
struct Violation {
    #[prost(string, tag = "1")]
    r#type: String,
    #[prost(string, tag = "2")]
    subject: String,
}

/// Subjects of the one detail that clients accept.
pub fn missing(status: &rpc::Status) -> Vec<String> {
    assert_eq!(status.code, Code::FailedPrecondition as i32);
    let [detail] = status.details.as_slice() else { panic!("not one detail: {status:?}") };
    assert_eq!(detail.type_url, "type.googleapis.com/google.rpc.PreconditionFailure");
    let failure = PreconditionFailure::decode(detail.value.as_slice()).unwrap();
    assert!(failure.violations.iter().all(|violation| violation.r#type == "MISSING"));
    failure.violations.into_iter().map(|violation| violation.subject).collect()
}

fn of_grpc(status: &tonic::Status) -> rpc::Status {
    let details = rpc::Status::decode(status.details()).unwrap();
    assert_eq!((details.code, details.message.as_str()), (status.code() as i32, status.message()));
    details
}

async fn refused(kiln: &Kiln, request: reapi::ExecuteRequest) -> tonic::Status {
    match kiln.try_execute(request).await {
        Ok(_) => panic!("the request was accepted"),
        Err(status) => status,
    }
}

#[tokio::test]
async fn a_missing_action_is_a_precondition_failure_with_its_name() {
    let kiln = Kiln::start().await;
    for (function, prefix) in [(DigestFunction::Sha256, ""), (DigestFunction::Blake3, "blake3/")] {
        let action = function.digest(b"never uploaded");
        let status = of_grpc(&refused(&kiln, request(&action)).await);
        assert_eq!(missing(&status), [format!("blobs/{prefix}{}/14", action.hex())]);
    }
}

#[tokio::test]
async fn a_missing_command_and_input_root_are_named_at_once() {
    let kiln = Kiln::start().await;
    let function = DigestFunction::Sha256;
    let (command, root) = (function.digest(b"command"), function.digest(b"root"));
    let action = reapi::Action {
        command_digest: Some(command.to_wire()),
        input_root_digest: Some(root.to_wire()),
        ..Default::default()
    };
    let action = kiln.blob(action.encode_to_vec(), function).await;
    let status = of_grpc(&refused(&kiln, request(&action)).await);
    assert_eq!(missing(&status), [format!("blobs/{command}"), format!("blobs/{root}")]);
}

#[tokio::test]
async fn inputs_that_the_worker_misses_are_named_in_the_response() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let action = kiln.action_with(ActionSpec::default(), DigestFunction::Blake3).await;
    let mut client = kiln.execute(&action).await;
    let lease = worker.lease().await;
    let blobs = [b"one", b"two"].map(|data| DigestFunction::Blake3.digest(data));
    let on_wire = |digest: &Digest| worker::Digest { hash: digest.hex(), size_bytes: 3 };
    let mut failure = failure(Kind::MissingInputs, "two inputs");
    failure.missing = blobs.iter().map(on_wire).collect();
    worker.fail(&lease, failure).await;
    let subjects = missing(&client.status().await);
    assert_eq!(subjects, blobs.map(|digest| format!("blobs/blake3/{}/3", digest.hex())));
}

#[tokio::test]
async fn malformed_requests_are_refused_with_the_field_that_is_wrong() {
    let kiln = Kiln::start().await;
    let good = request(&kiln.simple().await);
    let digest = |hash: &str, size_bytes| Some(reapi::Digest { hash: hash.to_owned(), size_bytes });
    let hash = good.action_digest.clone().unwrap().hash;
    let garbage = kiln.blob(vec![0xff; 8], DigestFunction::Sha256).await;
    let empty = kiln.blob(vec![0x4a, 0], DigestFunction::Sha256).await;
    let too_long = kiln.action(ActionSpec { timeout_s: Some(86_401), ..Default::default() }).await;
    let negative = kiln.action(ActionSpec { timeout_s: Some(-1), ..Default::default() }).await;
    type Spoil<'a> = Box<dyn Fn(&mut reapi::ExecuteRequest) + 'a>;
    let cases: [(&str, Spoil<'_>); 10] = [
        ("action_digest is not set", Box::new(|r| r.action_digest = None)),
        ("action_digest: hash", Box::new(|r| r.action_digest = digest("xyz", 3))),
        ("action_digest: size_bytes", Box::new(|r| r.action_digest = digest(&hash, -1))),
        ("digest_function: ", Box::new(|r| r.digest_function = 3)),
        ("the action has", Box::new(|r| r.action_digest = digest(&hash, 1 << 40))),
        ("instance_name has", Box::new(|r| r.instance_name = "x".repeat(5000))),
        ("is not an Action", Box::new(|r| r.action_digest = Some(garbage.to_wire()))),
        ("Action.command_digest", Box::new(|r| r.action_digest = Some(empty.to_wire()))),
        ("maximum of 86400 s", Box::new(|r| r.action_digest = Some(too_long.to_wire()))),
        ("Action.timeout", Box::new(|r| r.action_digest = Some(negative.to_wire()))),
    ];
    for (message, spoil) in cases {
        let mut bad = good.clone();
        spoil(&mut bad);
        let status = refused(&kiln, bad).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(message), "{message:?} is not in {status}");
    }
    // The server still serves.
    let mut worker = kiln.worker("w", 1, &[]).await;
    let mut client = kiln.try_execute(good).await.unwrap();
    worker.succeed_next().await;
    assert_eq!(client.status().await.code, 0);
}

#[tokio::test]
async fn a_full_queue_and_a_full_store_are_resource_exhausted() {
    let limits = Limits { max_queued: 1, ..Default::default() };
    let kiln = Kiln::with(SchedulerConfig { limits, ..Default::default() }).await;
    let mut waiting = kiln.execute(&kiln.simple().await).await;
    let status = refused(&kiln, request(&kiln.simple().await)).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("limit"), "{status}");
    let mut worker = kiln.worker("w", 1, &[]).await;
    let lease = worker.lease().await;
    worker.fail(&lease, failure(Kind::StoreFull, "the store is full: 5 of 5 bytes")).await;
    let status = waiting.status().await;
    assert_eq!(status.code, Code::ResourceExhausted as i32);
    assert!(status.message.contains("5 of 5 bytes"));
}

#[tokio::test]
async fn an_invalid_action_is_the_clients_fault() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    let lease = worker.lease().await;
    worker.fail(&lease, failure(Kind::InvalidAction, "Command.arguments is empty")).await;
    let status = client.status().await;
    assert_eq!(status.code, Code::InvalidArgument as i32);
    assert_eq!(status.message, "Command.arguments is empty");
}
