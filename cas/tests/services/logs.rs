use bytes::Bytes;
use kiln_protos::logstream::log_stream_service_client::LogStreamServiceClient;
use kiln_protos::logstream::{CreateLogStreamRequest, LogStream};
use tonic::{Code, Status};

use crate::harness::{Server, refused, start, write_request};

async fn create(server: &Server, parent: &str) -> Result<LogStream, Status> {
    let mut client = LogStreamServiceClient::new(server.channel.clone());
    let request = CreateLogStreamRequest { parent: parent.into() };
    Ok(client.create_log_stream(request).await?.into_inner())
}

#[tokio::test]
async fn a_log_is_read_while_it_grows() {
    let server = start().await;
    let name = "in/stance/logstreams/op-1/stdout";
    server.logs.create(name);
    server.logs.append(name, 0, &Bytes::from_static(b"first "));
    let request =
        kiln_protos::bytestream::ReadRequest { resource_name: name.into(), ..Default::default() };
    let mut stream = server.byte_stream().read(request).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().data, b"first ");
    server.logs.append(name, 6, &Bytes::from_static(b"second"));
    assert_eq!(stream.message().await.unwrap().unwrap().data, b"second");
    server.logs.finish(name);
    assert!(stream.message().await.unwrap().is_none());
    assert_eq!(server.read(name, 3, 5).await.unwrap(), b"st se");
    refused(server.read("logstreams/no", 0, 0).await, Code::NotFound, "there is no log");
}

#[tokio::test]
async fn logs_are_written_by_whoever_holds_the_token() {
    let server = start().await;
    let log = create(&server, "projects/1").await.unwrap();
    assert!(log.name.starts_with("projects/1/logstreams/"), "{}", log.name);
    let name = &log.write_resource_name;
    let part = write_request(name, 0, b"hello ", false);
    assert_eq!(server.write(vec![part]).await.unwrap(), 6);
    assert_eq!(server.write_status(name).await, (6, false));
    let gap = write_request(name, 7, b"x", false);
    refused(server.write(vec![gap]).await, Code::InvalidArgument, "write_offset: 7 is wrong");
    let rest = write_request(name, 6, b"world", true);
    assert_eq!(server.write(vec![rest]).await.unwrap(), 11);
    assert_eq!(server.write_status(name).await, (11, true));
    assert_eq!(server.read(&log.name, 0, 0).await.unwrap(), b"hello world");

    let forged = format!("{}/{}", log.name, "0".repeat(64));
    let result = server.write(vec![write_request(&forged, 0, b"x", true)]).await;
    refused(result, Code::PermissionDenied, "resource_name: it is not the write_resource_name");
    let result = server.write(vec![write_request(&log.name, 0, b"x", true)]).await;
    refused(result, Code::InvalidArgument, "resource_name");
    refused(server.read(name, 0, 0).await, Code::InvalidArgument, "resource_name");
}

#[tokio::test]
async fn parents_that_would_confuse_names_are_refused() {
    let server = start().await;
    for parent in ["a//b", "/a", "a/blobs/b", "uploads", "logstreams/x"] {
        refused(create(&server, parent).await, Code::InvalidArgument, "parent: ");
    }
    assert_ne!(create(&server, "").await.unwrap().name, create(&server, "").await.unwrap().name);
}
