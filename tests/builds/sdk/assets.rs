//! Calls of the services Remote Asset and LogStream.

use kiln_protos::asset::fetch_client::FetchClient;
use kiln_protos::asset::push_client::PushClient;
use kiln_protos::asset::{
    FetchBlobRequest, FetchDirectoryRequest, PushBlobRequest, PushDirectoryRequest, Qualifier,
};
use kiln_protos::bytestream::QueryWriteStatusRequest;
use kiln_protos::logstream::CreateLogStreamRequest;
use kiln_protos::logstream::log_stream_service_client::LogStreamServiceClient;
use kiln_protos::reapi;
use tonic::Code;

use crate::sdk::house::House;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_is_fetched() {
    let house = House::new().await;
    let (mut push, mut fetch) =
        (PushClient::new(house.channel.clone()), FetchClient::new(house.channel.clone()));
    let qualifiers =
        vec![Qualifier { name: "resource_type".into(), value: "application/x-git".into() }];
    for caller in house.callers() {
        let uris = vec!["https://example.org/source.git".to_owned()];
        let blob = Some(caller.put(caller.instance.as_bytes()).await);
        let request = PushBlobRequest {
            instance_name: caller.instance(),
            uris: uris.clone(),
            qualifiers: qualifiers.clone(),
            blob_digest: blob.clone(),
            digest_function: caller.number(),
            ..Default::default()
        };
        push.push_blob(request).await.unwrap();
        let request = FetchBlobRequest {
            instance_name: caller.instance(),
            uris: uris.clone(),
            qualifiers: qualifiers.clone(),
            digest_function: caller.number(),
            ..Default::default()
        };
        let found = fetch.fetch_blob(request).await.unwrap().into_inner();
        assert_eq!((found.status.unwrap().code, found.blob_digest), (0, blob));

        let root = Some(caller.put_message(&reapi::Directory::default()).await);
        let request = PushDirectoryRequest {
            instance_name: caller.instance(),
            uris: uris.clone(),
            root_directory_digest: root.clone(),
            digest_function: caller.number(),
            ..Default::default()
        };
        push.push_directory(request).await.unwrap();
        let request = FetchDirectoryRequest {
            instance_name: caller.instance(),
            uris,
            digest_function: caller.number(),
            ..Default::default()
        };
        let found = fetch.fetch_directory(request).await.unwrap().into_inner();
        assert_eq!((found.status.unwrap().code, found.root_directory_digest), (0, root));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_configuration_allows_is_downloaded() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}/", listener.local_addr().unwrap());
    let router =
        axum::Router::new().route("/source", axum::routing::get(async || "to be downloaded"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let house = House::fetching_from(&origin).await;
    let [_, blake, ..] = house.callers();
    let fetch = async |uri: String| {
        let request = FetchBlobRequest {
            uris: vec![uri],
            digest_function: blake.number(),
            ..Default::default()
        };
        FetchClient::new(house.channel.clone()).fetch_blob(request).await.unwrap().into_inner()
    };
    let found = fetch(format!("{origin}source")).await;
    assert_eq!(found.status.clone().unwrap_or_default().code, 0, "{found:?}");
    let downloaded = found.blob_digest.expect("the digest of what was downloaded");
    assert_eq!(downloaded, blake.digest(b"to be downloaded"));
    assert_eq!(blake.blob(&downloaded).await, b"to be downloaded");

    let forbidden = fetch("http://127.0.0.2/cas/x".into()).await.status.unwrap();
    assert_eq!(forbidden.code, Code::PermissionDenied as i32, "{forbidden:?}");
    assert!(forbidden.message.contains("the configuration allows"), "{}", forbidden.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_written_and_read() {
    let house = House::new().await;
    let [caller, ..] = house.callers();
    let request = CreateLogStreamRequest { parent: "projects/a.b/main".into() };
    let mut logs = LogStreamServiceClient::new(house.channel.clone());
    let log = logs.create_log_stream(request).await.unwrap().into_inner();
    assert_eq!(caller.write(&log.write_resource_name, b"line\nmore\n", 0, true).await, 10);
    assert_eq!(caller.read(&log.name, 5).await.unwrap(), b"more\n");
    let request = QueryWriteStatusRequest { resource_name: log.write_resource_name };
    let status = caller.byte_stream().query_write_status(request).await.unwrap().into_inner();
    assert_eq!((status.committed_size, status.complete), (10, true));
}
