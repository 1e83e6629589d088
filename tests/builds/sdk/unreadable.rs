//! The test sends messages that nobody can read to every method. The server has to tell the client that the mistake
//! is the client's, with a code for which the client does not try again.

use axum::http;
use http_body_util::BodyExt;
use kiln_protos::longrunning::GetOperationRequest;
use kiln_protos::longrunning::operations_client::OperationsClient;
use tonic::{Code, Status};
use tower::{Service, ServiceExt};

use crate::sdk::house::{Caller, House};

/// The table from which the server counts its calls. The server serves no method that is not in it.
const TABLE: &str = include_str!("../../../src/telemetry/requests/methods.rs");

/// Returns the paths of all methods in the table.
fn methods() -> Vec<String> {
    let (_, table) = TABLE.split_once("METHODS: &[Method] = methods! {").unwrap();
    let (table, _) = table.split_once("\n};").unwrap();
    let quoted = |service: &'static str| service.split('"').skip(1).step_by(2);
    let paths = table.split(';').flat_map(|service| {
        let mut words = quoted(service);
        let service = words.next();
        words.map(move |method| format!("/{}/{method}", service.unwrap()))
    });
    paths.collect()
}

/// Calls the method at `path` with `body` as raw bytes, and returns the status that the call ends with.
async fn status(caller: &Caller, path: &str, body: &[u8]) -> Status {
    let body = tonic::body::Body::new(axum::body::Body::from(body.to_vec()));
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body);
    let mut channel = caller.channel.clone();
    let answer = channel.ready().await.unwrap().call(request.unwrap()).await.unwrap();
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return status;
    }
    let body = answer.into_body().collect().await.unwrap();
    Status::from_header_map(body.trailers().unwrap()).unwrap()
}

/// A status travels in the headers, of which clients accept only 8 or 16 KiB.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_repeats_what_it_was_sent_is_short_enough_to_arrive() {
    let house = House::new().await;
    let [caller, ..] = house.callers();
    let mut operations = OperationsClient::new(caller.channel);
    let name = format!("operations/{}", "x".repeat(70_000));
    let status = operations.get_operation(GetOperationRequest { name }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    assert!(status.message().len() < 3_000, "{}", status.message().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_the_clients_doing_in_every_method() {
    let house = House::new().await;
    let [caller, ..] = house.callers();
    let methods = methods();
    assert!(methods.len() > 30 && methods.iter().all(|path| path.matches('/').count() == 2));
    let mut wrong = Vec::new();
    for path in &methods {
        // A worker begins a session with its Hello. The server refuses anything else as an argument that is wrong.
        let is_session = path.ends_with("/Session");
        let too_large = if is_session { Code::InvalidArgument } else { Code::OutOfRange };
        for (what, body, expected) in [
            // The field has a wire type that does not exist.
            ("rubbish", &[0, 0, 0, 0, 2, 0xff, 0xff][..], Code::InvalidArgument),
            ("a broken off message", &[0, 0, 0, 0, 9, 10][..], Code::InvalidArgument),
            ("a broken off prefix", &[0, 0][..], Code::InvalidArgument),
            ("4 GiB", &[0, 0xff, 0xff, 0xff, 0xff, 0][..], too_large),
        ] {
            let status = status(&caller, path, body).await;
            if status.code() != expected {
                wrong.push(format!("{path}: {what}: {status:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
