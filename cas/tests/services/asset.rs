use std::time::{SystemTime, UNIX_EPOCH};

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

pub fn qualifier(name: &str, value: &str) -> Qualifier {
    Qualifier { name: name.into(), value: value.into() }
}

pub fn blob_request(uri: &str) -> FetchBlobRequest {
    FetchBlobRequest { uris: vec![uri.into()], ..Default::default() }
}

pub async fn fetch(
    server: &Server,
    request: FetchBlobRequest,
) -> Result<FetchBlobResponse, Status> {
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
pub fn failed(response: &FetchBlobResponse, code: Code, part: &str) {
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
