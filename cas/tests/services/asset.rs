use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use kiln_cas::Digest;
use kiln_cas::access::Everybody;
use kiln_protos::asset::fetch_client::FetchClient;
use kiln_protos::asset::push_client::PushClient;
use kiln_protos::asset::{
    FetchBlobRequest, FetchBlobResponse, FetchDirectoryRequest, PushBlobRequest,
    PushDirectoryRequest, Qualifier,
};
use kiln_protos::protobuf;
use kiln_protos::reapi::{Directory, DirectoryNode, FileNode};
use std::sync::Arc;
use tonic::{Code, Status};

use crate::harness::{BLAKE3, SHA256, Server, refused, start, start_with, wire};

fn qualifier(name: &str, value: &str) -> Qualifier {
    Qualifier { name: name.into(), value: value.into() }
}

fn blob_request(uri: &str) -> FetchBlobRequest {
    FetchBlobRequest { uris: vec![uri.into()], ..Default::default() }
}

async fn fetch(server: &Server, request: FetchBlobRequest) -> Result<FetchBlobResponse, Status> {
    Ok(FetchClient::new(server.channel.clone()).fetch_blob(request).await?.into_inner())
}

async fn push(server: &Server, request: PushBlobRequest) -> Result<(), Status> {
    PushClient::new(server.channel.clone()).push_blob(request).await.map(drop)
}

fn pushed(uris: &[&str], digest: &Digest) -> PushBlobRequest {
    PushBlobRequest {
        uris: uris.iter().map(|uri| (*uri).into()).collect(),
        blob_digest: wire(digest),
        ..Default::default()
    }
}

#[track_caller]
fn failed(response: &FetchBlobResponse, code: Code, part: &str) {
    let status = response.status.clone().unwrap();
    assert_eq!(status.code, code as i32, "{status:?}");
    assert!(status.message.contains(part), "{:?} does not hold {part:?}", status.message);
    assert!(response.blob_digest.is_none());
}

fn seconds_from_now(seconds: i64) -> Option<protobuf::Timestamp> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    Some(protobuf::Timestamp { seconds: now + seconds, nanos: 0 })
}

#[tokio::test]
async fn pushed_blobs_are_fetched_by_any_of_their_uris() {
    let server = start().await;
    let digest = server.put(SHA256, "content").await;
    let mut request = pushed(&["urn:a", "urn:b"], &digest);
    request.qualifiers = vec![qualifier("branch", "main"), qualifier("arch", "x")];
    push(&server, request).await.unwrap();
    let mut ask = blob_request("urn:b");
    ask.uris.insert(0, "urn:unknown".into());
    ask.qualifiers = vec![qualifier("arch", "x"), qualifier("branch", "main")];
    let found = fetch(&server, ask.clone()).await.unwrap();
    assert_eq!((found.uri.as_str(), found.blob_digest), ("urn:b", wire(&digest)));
    assert_eq!(found.status.unwrap().code, 0);

    ask.qualifiers.pop();
    failed(&fetch(&server, ask).await.unwrap(), Code::NotFound, "uris: nothing is known");
    let elsewhere = FetchBlobRequest { instance_name: "x".into(), ..blob_request("urn:a") };
    failed(&fetch(&server, elsewhere).await.unwrap(), Code::NotFound, "uris");
}

#[tokio::test]
async fn blake3_assets_are_apart() {
    let server = start().await;
    let digest = server.put(BLAKE3, "content").await;
    let request = PushBlobRequest { digest_function: 9, ..pushed(&["urn:a"], &digest) };
    push(&server, request).await.unwrap();
    let ask = FetchBlobRequest { digest_function: 9, ..blob_request("urn:a") };
    let found = fetch(&server, ask).await.unwrap();
    assert_eq!((found.blob_digest, found.digest_function), (wire(&digest), 9));
    failed(&fetch(&server, blob_request("urn:a")).await.unwrap(), Code::NotFound, "uris");
}

#[tokio::test]
async fn content_expires_and_ages() {
    let server = start().await;
    let digest = server.put(SHA256, "content").await;
    let past = PushBlobRequest { expire_at: seconds_from_now(-5), ..pushed(&["urn:a"], &digest) };
    refused(push(&server, past).await, Code::InvalidArgument, "expire_at");
    let soon = PushBlobRequest { expire_at: seconds_from_now(60), ..pushed(&["urn:a"], &digest) };
    push(&server, soon).await.unwrap();
    let found = fetch(&server, blob_request("urn:a")).await.unwrap();
    assert!(found.blob_digest.is_some() && found.expires_at.is_some());
    let newer =
        FetchBlobRequest { oldest_content_accepted: seconds_from_now(30), ..blob_request("urn:a") };
    failed(&fetch(&server, newer).await.unwrap(), Code::NotFound, "uris");
}

#[tokio::test]
async fn bad_requests_are_refused_by_name() {
    let server = start().await;
    let absent = SHA256.digest(b"absent");
    refused(push(&server, pushed(&["u"], &absent)).await, Code::NotFound, "blob_digest: blob");
    let digest = server.put(SHA256, "x").await;
    refused(push(&server, pushed(&[], &digest)).await, Code::InvalidArgument, "uris: 0 given");
    refused(push(&server, pushed(&[""], &digest)).await, Code::InvalidArgument, "uris[0]");
    let mut twice = pushed(&["u"], &digest);
    twice.qualifiers = vec![qualifier("a", "1"), qualifier("a", "2")];
    refused(push(&server, twice).await, Code::InvalidArgument, "qualifiers: \"a\" occurs twice");
    let references =
        PushBlobRequest { references_blobs: vec![absent.to_wire()], ..pushed(&["u"], &digest) };
    refused(push(&server, references).await, Code::NotFound, "references_blobs");

    let locked =
        start_with(|config| config.access = Arc::new(Everybody { write_results: false })).await;
    let digest = locked.put(SHA256, "x").await;
    refused(push(&locked, pushed(&["u"], &digest)).await, Code::PermissionDenied, "may not write");
}

#[tokio::test]
async fn directories_are_pushed_whole_or_not_at_all() {
    let server = start().await;
    let mut client = PushClient::new(server.channel.clone());
    let mut push = async |root: &Digest| {
        let request = PushDirectoryRequest {
            uris: vec!["urn:dir".into()],
            root_directory_digest: wire(root),
            ..Default::default()
        };
        client.push_directory(request).await.map(drop)
    };
    let file = SHA256.digest(b"file");
    let named = |name: &str| Directory {
        files: vec![FileNode { name: name.into(), digest: wire(&file), ..Default::default() }],
        ..Default::default()
    };
    let child = server.put_message(&named("f")).await;
    let node = DirectoryNode { name: "c".into(), digest: wire(&child) };
    let root = Directory { directories: vec![node], ..Default::default() };
    let root = server.put_message(&root).await;
    refused(push(&root).await, Code::NotFound, "of the tree is not in the store");
    server.put(SHA256, "file").await;
    let bad = server.put_message(&named("..")).await;
    refused(push(&bad).await, Code::InvalidArgument, "files[0].name");
    push(&root).await.unwrap();

    let mut client = FetchClient::new(server.channel.clone());
    let mut fetch = async |uri: &str| {
        let request = FetchDirectoryRequest { uris: vec![uri.into()], ..Default::default() };
        client.fetch_directory(request).await.unwrap().into_inner()
    };
    assert_eq!(fetch("urn:dir").await.root_directory_digest, wire(&root));
    assert_eq!(fetch("urn:no").await.status.unwrap().code, Code::NotFound as i32);
}

/// A web server with some content, and Kiln with the right to download from one part of it.
async fn origin() -> (String, Server) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let secret = |headers: http::HeaderMap| async move {
        match headers.get("authorization").map(|value| value.as_bytes()) {
            Some(b"Bearer right") => Ok("secret content"),
            _ => Err(http::StatusCode::UNAUTHORIZED),
        }
    };
    let router = Router::new()
        .route("/ok/hello", get(|| async { "hello" }))
        .route("/ok/empty", get(|| async { "" }))
        .route("/ok/moved", get(|| async { Redirect::temporary("/ok/hello") }))
        .route("/ok/out", get(|| async { Redirect::temporary("/private/hello") }))
        .route("/ok/loop", get(|| async { Redirect::temporary("/ok/loop") }))
        .route("/ok/large", get(|| async { vec![0_u8; 3 << 20] }))
        .route("/ok/secret", get(secret))
        .route("/ok/never", get(std::future::pending::<()>))
        .route("/private/hello", get(|| async { "hello" }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let prefix = format!("{base}/ok/");
    let server = start_with(|config| {
        config.fetch_allowed_prefixes = vec![prefix];
        config.max_blob_size = 1 << 20;
    })
    .await;
    (base, server)
}

#[tokio::test]
async fn allowed_uris_are_downloaded_once() {
    let (base, server) = origin().await;
    for (path, content) in [("hello", "hello"), ("moved", "hello"), ("empty", "")] {
        let uri = format!("{base}/ok/{path}");
        let found = fetch(&server, blob_request(&uri)).await.unwrap();
        assert_eq!(found.status.unwrap().code, 0);
        let digest = SHA256.digest(content.as_bytes());
        assert_eq!((found.uri, found.blob_digest), (uri, wire(&digest)));
        assert!(server.has(&digest).await);
    }
    let both = FetchBlobRequest {
        uris: vec![format!("{base}/ok/none"), format!("{base}/ok/hello")],
        digest_function: 9,
        ..Default::default()
    };
    let found = fetch(&server, both).await.unwrap();
    assert_eq!(found.blob_digest, wire(&BLAKE3.digest(b"hello")));
    assert_eq!(found.uri, format!("{base}/ok/hello"));
}

#[tokio::test]
async fn what_may_not_or_cannot_be_downloaded_says_why() {
    let (base, server) = origin().await;
    let ask =
        async |path: &str| fetch(&server, blob_request(&format!("{base}{path}"))).await.unwrap();
    failed(&ask("/private/hello").await, Code::PermissionDenied, "allows to download none");
    failed(&ask("/ok/../private/hello").await, Code::PermissionDenied, "allows");
    failed(&ask("/ok/out").await, Code::PermissionDenied, "does not allow");
    failed(&ask("/ok/none").await, Code::NotFound, "404");
    failed(&ask("/ok/loop").await, Code::Unavailable, "redirections");
    failed(&ask("/ok/large").await, Code::ResourceExhausted, "larger than the limit");
    failed(&ask("/ok/secret").await, Code::PermissionDenied, "401");
    let mut slow = blob_request(&format!("{base}/ok/never"));
    slow.timeout = Some(protobuf::Duration { seconds: 0, nanos: 50_000_000 });
    failed(&fetch(&server, slow).await.unwrap(), Code::DeadlineExceeded, "took longer");
    let disabled = start().await;
    let response = fetch(&disabled, blob_request(&format!("{base}/ok/hello"))).await.unwrap();
    failed(&response, Code::NotFound, "downloading is not enabled");
}

#[tokio::test]
async fn qualifiers_are_honoured_or_refused() {
    let (base, server) = origin().await;
    let ask = |path: &str, name: &str, value: &str| FetchBlobRequest {
        qualifiers: vec![qualifier(name, value)],
        ..blob_request(&format!("{base}/ok/{path}"))
    };
    let sri = "sha256-LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=";
    let found = fetch(&server, ask("hello", "checksum.sri", sri)).await.unwrap();
    assert_eq!(found.blob_digest, wire(&SHA256.digest(b"hello")));
    let wrong = sri.replace("LPJ", "AAA");
    let response = fetch(&server, ask("hello", "checksum.sri", &wrong)).await.unwrap();
    failed(&response, Code::Aborted, "checksum.sri");
    let found =
        fetch(&server, ask("secret", "http_header:authorization", "Bearer right")).await.unwrap();
    assert_eq!(found.blob_digest, wire(&SHA256.digest(b"secret content")));
    let result = fetch(&server, ask("hello", "checksum.sri", "md5-x")).await;
    refused(result, Code::InvalidArgument, "qualifiers: checksum.sri");
    let result = fetch(&server, ask("hello", "vcs.branch", "main")).await;
    refused(result, Code::InvalidArgument, "qualifiers: \"vcs.branch\" is not supported");
}
