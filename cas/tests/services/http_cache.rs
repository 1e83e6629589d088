use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use kiln_cas::Digest;
use kiln_cas::access::Everybody;
use kiln_cas::services::OpaqueInstances;
use kiln_protos::reapi::{ActionResult, OutputFile};
use prost::Message;
use std::sync::Arc;

use crate::harness::{SHA256, Server, noise, start, start_with, wire};

type BoxBody = http_body_util::combinators::UnsyncBoxBody<Bytes, std::convert::Infallible>;

async fn send(server: &Server, method: Method, path: &str, body: BoxBody) -> (Response<()>, Bytes) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let uri = format!("http://{}{path}", server.address);
    let request = Request::builder().method(method).uri(uri).body(body).unwrap();
    let (parts, body) = client.request(request).await.unwrap().into_parts();
    (Response::from_parts(parts, ()), body.collect().await.unwrap().to_bytes())
}

fn full(data: impl Into<Bytes>) -> BoxBody {
    Full::new(data.into()).boxed_unsync()
}

/// Returns a body for a request without a Content-Length.
fn chunked(data: Vec<u8>) -> BoxBody {
    let frames = futures_util::stream::iter([Ok(http_body::Frame::data(Bytes::from(data)))]);
    StreamBody::new(frames).boxed_unsync()
}

async fn put(server: &Server, path: &str, body: BoxBody) -> (StatusCode, String) {
    let (response, text) = send(server, Method::PUT, path, body).await;
    (response.status(), String::from_utf8_lossy(&text).into_owned())
}

async fn get(server: &Server, path: &str) -> (StatusCode, Bytes) {
    let (response, body) = send(server, Method::GET, path, full("")).await;
    (response.status(), body)
}

#[tokio::test]
async fn blobs_put_over_http_are_the_blobs_of_grpc() {
    let server = start().await;
    for (prefix, size) in [("", 0), ("", 10), ("/a/b", 1 << 20), ("/x", 5 << 20)] {
        let data = noise(size, size as u64);
        let digest = SHA256.digest(&data);
        let path = format!("{prefix}/cas/{}", digest.hex());
        if size > 0 {
            assert_eq!(get(&server, &path).await.0, StatusCode::NOT_FOUND);
        }
        assert_eq!(put(&server, &path, full(data.clone())).await.0, StatusCode::OK);
        assert_eq!(put(&server, &path, full(data.clone())).await.0, StatusCode::OK, "again");
        let (status, body) = get(&server, &path).await;
        assert!(status == StatusCode::OK && body == data, "{path}");
        let (head, body) = send(&server, Method::HEAD, &path, full("")).await;
        assert_eq!((head.status(), body.len()), (StatusCode::OK, 0));
        assert_eq!(head.headers()["content-length"], size.to_string());
        assert!(server.has(&digest).await);
        assert!(server.read(&format!("blobs/{digest}"), 0, 0).await.unwrap() == data);
    }
}

#[tokio::test]
async fn bodies_without_a_length() {
    let server = start().await;
    let data = noise(100_000, 1);
    let path = format!("/cas/{}", SHA256.digest(&data).hex());
    assert_eq!(put(&server, &path, chunked(data.clone())).await.0, StatusCode::OK);
    assert_eq!(get(&server, &path).await.1, data);
    let large = noise((1 << 20) + 1, 1);
    let path = format!("/cas/{}", SHA256.digest(&large).hex());
    assert_eq!(put(&server, &path, chunked(large)).await.0, StatusCode::LENGTH_REQUIRED);
}

#[tokio::test]
async fn wrong_bytes_and_names_are_refused() {
    let server = start_with(|config| config.max_blob_size = 4 << 20).await;
    for size in [100, 2 << 20] {
        let digest = SHA256.digest(&noise(size, 1));
        let path = format!("/cas/{}", digest.hex());
        let (status, text) = put(&server, &path, full(noise(size, 2))).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(text.contains("the bytes hash to"), "{text}");
        assert_eq!(get(&server, &path).await.0, StatusCode::NOT_FOUND);
    }
    for bad in ["/cas/xyz", "/ac/xyz"] {
        let (status, text) = put(&server, bad, full("data")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(text.starts_with("hash in the path"), "{text}");
    }
    let path = format!("/cas/{}", SHA256.digest(b"x").hex());
    let (status, text) = put(&server, &path, full(vec![0; 5 << 20])).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
}

fn result(file: &Digest) -> Vec<u8> {
    let file = OutputFile { path: "out".into(), digest: wire(file), ..Default::default() };
    ActionResult { output_files: vec![file], ..Default::default() }.encode_to_vec()
}

#[tokio::test]
async fn action_results_are_checked_like_those_of_grpc() {
    let server = start().await;
    let path = format!("/in/stance/ac/{}", SHA256.digest(b"action").hex());
    assert_eq!(get(&server, &path).await.0, StatusCode::NOT_FOUND);
    let file = SHA256.digest(b"contents");
    let (status, text) = put(&server, &path, full(result(&file))).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED, "{text}");
    server.put(SHA256, "contents").await;
    assert_eq!(put(&server, &path, full(result(&file))).await.0, StatusCode::OK);
    let (status, body) = get(&server, &path).await;
    assert_eq!(status, StatusCode::OK);
    let read = ActionResult::decode(body).unwrap();
    assert_eq!(read.output_files[0].digest, wire(&file));
    assert_eq!(put(&server, &path, full("\u{1}no result")).await.0, StatusCode::BAD_REQUEST);
    let other = path.replace("/in/stance", "/other");
    assert_eq!(get(&server, &other).await.0, StatusCode::NOT_FOUND, "instances are apart");
}

#[tokio::test]
async fn instances_for_it_take_any_bytes_and_no_others_see_them() {
    let names = ["tools/ccache".to_owned()];
    let server = start_with(|config| config.opaque = OpaqueInstances::new(names)).await;
    let key = SHA256.digest(b"key").hex();
    let path = format!("/tools/ccache/ac/{key}");
    assert_eq!(get(&server, &path).await.0, StatusCode::NOT_FOUND);
    for value in [noise(3 << 20, 1), b"\x01short".to_vec(), Vec::new()] {
        assert_eq!(put(&server, &path, full(value.clone())).await.0, StatusCode::OK);
        let (status, body) = get(&server, &path).await;
        assert!(status == StatusCode::OK && body == value, "{}", value.len());
        let (head, _) = send(&server, Method::HEAD, &path, full("")).await;
        assert_eq!(head.headers()["content-length"], value.len().to_string());
    }
    // Results that were put there are values like any other.
    let value = result(&SHA256.digest(b"absent"));
    assert_eq!(put(&server, &path, full(value.clone())).await.0, StatusCode::OK);
    assert_eq!(get(&server, &path).await.1, value);
    for elsewhere in ["/ac/", "/tools/ac/", "/tools/ccache/x/ac/"].map(|at| format!("{at}{key}")) {
        assert_eq!(get(&server, &elsewhere).await.0, StatusCode::NOT_FOUND);
        assert_eq!(put(&server, &elsewhere, full("\u{1}any")).await.0, StatusCode::BAD_REQUEST);
    }
    let large = format!("/tools/ccache/ac/{}", SHA256.digest(b"large").hex());
    let (status, text) = put(&server, &large, full(vec![0; (64 << 20) + 1])).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
}

#[tokio::test]
async fn callers_without_the_right_may_not_write_results() {
    let server =
        start_with(|config| config.access = Arc::new(Everybody { write_results: false })).await;
    let path = format!("/ac/{}", SHA256.digest(b"action").hex());
    assert_eq!(put(&server, &path, full("")).await.0, StatusCode::FORBIDDEN);
}
