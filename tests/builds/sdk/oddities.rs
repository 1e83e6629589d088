//! Clients may send deadlines, headers that are too large or make no sense, and calls that no service has, although
//! most do not. None of that fails a build or ends a connection.

use std::time::Duration;

use axum::http;
use kiln_protos::reapi;
use kiln_protos::reapi::capabilities_client::CapabilitiesClient;
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};
use tower::{Service, ServiceExt};

use crate::sdk::execution::{response, shell};
use crate::sdk::house::{Caller, House};

const METADATA: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

/// Makes a unary call with `body` as raw bytes, and with headers that no client library would send. Returns the body
/// of the answer, or the error status.
async fn raw(
    caller: &Caller,
    path: &str,
    headers: &[(&str, &[u8])],
    frame: Vec<u8>,
) -> Result<Vec<u8>, Status> {
    let mut request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, http::HeaderValue::from_bytes(value).unwrap());
    }
    let body = tonic::body::Body::new(axum::body::Body::from(frame));
    let mut channel = caller.channel.clone();
    let ready = channel.ready().await.map_err(broken)?;
    let answer = ready.call(request.body(body).unwrap()).await.map_err(broken)?;
    if let Some(status) = Status::from_header_map(answer.headers())
        && status.code() != Code::Ok
    {
        return Err(status);
    }
    assert_eq!(answer.status(), http::StatusCode::OK);
    let body = axum::body::Body::new(answer.into_body());
    Ok(axum::body::to_bytes(body, 1 << 20).await.unwrap().to_vec())
}

fn broken(error: tonic::transport::Error) -> Status {
    Status::from_error(Box::new(error))
}

/// Returns a message in the framing in which gRPC sends it.
fn frame(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame
}

const GET_CAPABILITIES: &str = "/build.bazel.remote.execution.v2.Capabilities/GetCapabilities";

async fn expect_well(caller: &Caller) {
    let answer = caller.run(caller.shell("echo well").await).await;
    assert_eq!(answer.result.unwrap().exit_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_answered_to_whoever_asks() {
    let house = House::new().await;
    let [caller, ..] = house.callers();
    let check = "/grpc.health.v1.Health/Check";
    let answer = raw(&caller, check, &[], vec![0; 5]).await.unwrap();
    // These bytes are HealthCheckResponse { status: SERVING }.
    assert_eq!(answer, [0, 0, 0, 0, 2, 8, 1]);
    // These bytes are HealthCheckRequest { service: "no" }.
    let unknown = raw(&caller, check, &[], vec![0, 0, 0, 0, 4, 10, 2, b'n', b'o']).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_makes_no_sense_is_ignored() {
    let house = House::new().await;
    let [caller, ..] = house.callers();
    let request = reapi::GetCapabilitiesRequest::default();
    for value in [&b"!!! not base64 !!!"[..], b"AAAA", b"", b"\xff\xfe"] {
        let answer = raw(&caller, GET_CAPABILITIES, &[(METADATA, value)], frame(&request)).await;
        assert!(answer.is_ok(), "{value:?}: {answer:?}");
    }
    let rubbish = vec![0xff; 40_000];
    for (index, bytes) in [&b"\xff\xff\xff"[..], b"", &rubbish].into_iter().enumerate() {
        let mut request = Request::new(caller.shell(&format!("echo {index}")).await);
        request.metadata_mut().insert_bin(METADATA, MetadataValue::from_bytes(bytes));
        let mut updates = caller.executions().execute(request).await.unwrap().into_inner();
        assert_eq!(response(&mut updates).await.result.unwrap().exit_code, 0);
    }
}

async fn capabilities_with_header(house: &House, bytes: usize) -> Result<(), Status> {
    let mut request = Request::new(reapi::GetCapabilitiesRequest::default());
    request.metadata_mut().insert_bin(METADATA, MetadataValue::from_bytes(&vec![7; bytes]));
    let mut client = CapabilitiesClient::new(house.channel.clone());
    client.get_capabilities(request).await.map(drop)
}

/// Kiln accepts 64 KiB of headers, in which binary values are counted in base64. It takes headers of many more frames
/// for an attack on the connection, which it may then end.
#[tokio::test(flavor = "multi_thread")]
async fn headers_beyond_the_limit_fail_only_their_call() {
    let house = House::new().await;
    let [caller, ..] = house.callers();
    capabilities_with_header(&house, 45_000).await.unwrap();
    capabilities_with_header(&house, 52_000).await.unwrap_err();
    expect_well(&caller).await;
    capabilities_with_header(&house, 500_000).await.unwrap_err();
    let endpoint = tonic::transport::Endpoint::from_shared(house.server.url()).unwrap();
    let channel = endpoint.connect().await.unwrap();
    expect_well(&Caller { channel, ..caller }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_end_their_call() {
    let house = House::new().await;
    let [caller, ..] = house.callers();
    let mut request = Request::new(caller.shell("sleep 600").await);
    request.set_timeout(Duration::from_millis(300));
    let ended = match caller.executions().execute(request).await {
        Ok(updates) => {
            let mut updates = updates.into_inner();
            loop {
                match updates.message().await {
                    Ok(Some(operation)) => assert!(!operation.done),
                    Ok(None) => panic!("the stream ended without a status"),
                    Err(status) => break status,
                }
            }
        }
        Err(status) => status,
    };
    assert_eq!(ended.code(), Code::DeadlineExceeded, "{ended:?}");
    expect_well(&caller).await;

    let mut request = Request::new(caller.action(&shell("true"), &Default::default(), None).await);
    request.set_timeout(Duration::from_secs(3_600));
    let mut updates = caller.executions().execute(request).await.unwrap().into_inner();
    assert_eq!(response(&mut updates).await.result.unwrap().exit_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_service_has_is_unimplemented_by_name() {
    let house = House::new().await;
    let [caller, ..] = house.callers();
    for (path, named) in [
        ("/build.bazel.remote.execution.v2.Capabilities/Dream", ""),
        ("/build.bazel.remote.execution.v2.ContentAddressableStorage/Dream", "Dream"),
        ("/example.Other/Call", "does not know the method /example.Other/Call"),
    ] {
        let error = raw(&caller, path, &[], vec![0; 5]).await.unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented, "{path}: {error:?}");
        assert!(error.message().contains(named), "{path}: {error:?}");
    }
    // The request is compressed in a way that client and server have not agreed on.
    let frame = vec![1, 0, 0, 0, 1, 0];
    for path in [GET_CAPABILITIES, "/build.bazel.remote.execution.v2.ActionCache/GetActionResult"] {
        let error = raw(&caller, path, &[("grpc-encoding", b"gzip")], frame.clone()).await;
        assert_eq!(error.unwrap_err().code(), Code::Unimplemented, "{path}");
    }
    expect_well(&caller).await;
}
