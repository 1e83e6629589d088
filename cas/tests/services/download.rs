//! FetchBlob from a web server.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kiln_cas::access::{Authorizer, Everybody, Refused, Right};
use kiln_cas::services::{FetchConfig, QuotaLimits, Quotas};
use kiln_net::Allowed;
use kiln_protos::asset::fetch_client::FetchClient;
use kiln_protos::asset::{FetchBlobRequest, FetchBlobResponse, Qualifier};
use kiln_protos::protobuf;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

use crate::asset::{blob_request, failed, fetch, qualifier};
use crate::harness::{BLAKE3, SHA256, refused, start, start_with, wire};
use crate::origin::{origin, origin_with};

const HELLO_SRI: &str = "sha256-LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=";

#[track_caller]
fn found(response: &FetchBlobResponse, content: &str) {
    assert_eq!(response.status.clone().unwrap_or_default().code, 0, "{response:?}");
    assert_eq!(response.blob_digest, wire(&SHA256.digest(content.as_bytes())), "{response:?}");
}

#[tokio::test]
async fn allowed_uris_are_downloaded_wherever_they_redirect_to() {
    let (origin, server) = origin().await;
    for (path, content) in [
        ("hello", "hello"),
        ("moved", "hello"),
        ("d/relative", "hello"),
        ("beside", "hello"),
        ("capitals", "hello"),
        ("empty", ""),
    ] {
        let uri = origin.ok(path);
        let response = fetch(&server, blob_request(&uri)).await.unwrap();
        found(&response, content);
        assert_eq!(response.uri, uri);
        assert!(server.has(&SHA256.digest(content.as_bytes())).await);
    }
    let both = FetchBlobRequest {
        uris: vec![origin.ok("none"), origin.ok("hello")],
        digest_function: 9,
        ..Default::default()
    };
    let response = fetch(&server, both).await.unwrap();
    assert_eq!(response.blob_digest, wire(&BLAKE3.digest(b"hello")));
    assert_eq!(response.uri, origin.ok("hello"));
}

#[tokio::test]
async fn downloads_count_for_whoever_asked() {
    let (origin, server) = origin_with(|config| {
        let lease = std::time::Duration::from_secs(3600);
        let limits = QuotaLimits { caller_bytes: 0, instance_bytes: 4, lease };
        config.quotas = Arc::new(Quotas::new(limits));
    })
    .await;
    let refused = fetch(&server, blob_request(&origin.ok("hello"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("quotas.instance_bytes: instance \"\""), "{refused}");
    assert!(!server.has(&SHA256.digest(b"hello")).await);
}

#[tokio::test]
async fn what_may_not_or_cannot_be_downloaded_says_why() {
    let (origin, server) = origin().await;
    let ask = async |path: &str| {
        fetch(&server, blob_request(&format!("{}{path}", origin.base))).await.unwrap()
    };
    failed(&ask("/private/hello").await, Code::PermissionDenied, "allows to download none");
    failed(&ask("/ok/../private/hello").await, Code::PermissionDenied, "allows");
    failed(&ask("/ok/out").await, Code::PermissionDenied, "does not allow");
    failed(&ask("/ok/up").await, Code::PermissionDenied, "does not allow");
    failed(&ask("/ok/away").await, Code::Unavailable, "user or a password");
    failed(&ask("/ok/nowhere").await, Code::Unavailable, "does not say where");
    failed(&ask("/ok/none").await, Code::NotFound, "404");
    failed(&ask("/ok/loop").await, Code::Unavailable, "redirections");
    failed(&ask("/ok/query").await, Code::Unavailable, "redirections");
    failed(&ask("/ok/large").await, Code::ResourceExhausted, "larger than the limit");
    failed(&ask("/ok/secret").await, Code::PermissionDenied, "401");
    failed(&ask("/ok/brotli").await, Code::Unavailable, "content coding \"br\"");
    let mut slow = blob_request(&origin.ok("never"));
    slow.timeout = Some(protobuf::Duration { seconds: 0, nanos: 50_000_000 });
    failed(&fetch(&server, slow).await.unwrap(), Code::DeadlineExceeded, "took longer");
    let disabled = start().await;
    let response = fetch(&disabled, blob_request(&origin.ok("hello"))).await.unwrap();
    failed(&response, Code::NotFound, "downloading is not enabled");
}

#[tokio::test]
async fn content_codings_are_undone_but_for_files_that_are_compressed() {
    let (origin, server) = origin().await;
    found(&fetch(&server, blob_request(&origin.ok("coded"))).await.unwrap(), "hello");
    let mut checked = blob_request(&origin.ok("coded"));
    checked.qualifiers = vec![qualifier("checksum.sri", HELLO_SRI)];
    found(&fetch(&server, checked).await.unwrap(), "hello");
    let file = fetch(&server, blob_request(&origin.ok("file.tar.gz"))).await.unwrap();
    assert_eq!(file.blob_digest.unwrap().size_bytes, 25);
}

#[tokio::test]
async fn the_server_says_who_asks_and_for_what() {
    let (origin, server) = origin().await;
    let response = fetch(&server, blob_request(&origin.ok("echo"))).await.unwrap();
    let agent = concat!("user-agent=kiln/", env!("CARGO_PKG_VERSION"));
    found(&response, &format!("{agent} accept-encoding=identity x-extra="));
    let mut first_alone = blob_request(&origin.ok("echo"));
    first_alone.qualifiers = vec![
        qualifier("http_header:user-agent", "curl"),
        qualifier("http_header_url:0:x-extra", "yes"),
        qualifier("http_header_url:1:x-extra", "no"),
    ];
    let response = fetch(&server, first_alone).await.unwrap();
    found(&response, "user-agent=curl accept-encoding=identity x-extra=yes");
}

#[tokio::test]
async fn qualifiers_are_honoured_or_refused() {
    let (origin, server) = origin().await;
    let ask = |path: &str, name: &str, value: &str| FetchBlobRequest {
        qualifiers: vec![qualifier(name, value)],
        ..blob_request(&origin.ok(path))
    };
    for list in [HELLO_SRI.to_owned(), format!("md5-unknown {HELLO_SRI}")] {
        found(&fetch(&server, ask("hello", "checksum.sri", &list)).await.unwrap(), "hello");
    }
    let wrong = HELLO_SRI.replace("LPJ", "AAA");
    let response = fetch(&server, ask("hello", "checksum.sri", &wrong)).await.unwrap();
    failed(&response, Code::Aborted, "checksum.sri");
    let header = ask("secret", "http_header:authorization", "Bearer right");
    found(&fetch(&server, header).await.unwrap(), "secret content");
    let result = fetch(&server, ask("hello", "checksum.sri", "md5-x")).await;
    refused(result, Code::InvalidArgument, "qualifiers: checksum.sri");
    for header in ["host", "X-Forwarded-Host", "x-http-method-override", "forwarded"] {
        let name = format!("http_header:{header}");
        let result = fetch(&server, ask("hello", &name, "other.example")).await;
        refused(result, Code::InvalidArgument, &format!("qualifiers: {name}"));
    }
    let status = fetch(&server, ask("hello", "vcs.branch", "main")).await.unwrap_err();
    let detail = String::from_utf8_lossy(status.details()).into_owned();
    for part in ["google.rpc.BadRequest", "qualifiers.name", "\"vcs.branch\" not supported"] {
        assert!(detail.contains(part), "{detail}");
    }
    refused::<()>(Err(status), Code::InvalidArgument, "\"vcs.branch\" not supported");
}

#[tokio::test]
async fn only_the_uri_that_was_downloaded_stands_for_what_came() {
    let (origin, server) = origin().await;
    let (own, others) = (origin.ok("other"), ["https://trusted.example/x", &origin.ok("hello")]);
    let mut several = blob_request(&own);
    several.uris.extend(others.map(str::to_owned));
    found(&fetch(&server, several).await.unwrap(), "other");
    found(&fetch(&server, blob_request(others[1])).await.unwrap(), "hello");
    let response = fetch(&server, blob_request(others[0])).await.unwrap();
    failed(&response, Code::PermissionDenied, "allows to download none");
}

/// Everybody may read, nobody may write.
struct Readers;

impl Authorizer for Readers {
    fn check(&self, _: &http::Extensions, right: Right, _: &str) -> Result<(), Refused> {
        self.check_everywhere(&http::Extensions::new(), right)
    }

    fn check_everywhere(&self, _: &http::Extensions, right: Right) -> Result<(), Refused> {
        match right {
            Right::Read => Ok(()),
            _ => Err(Refused::Denied("readers may read".to_owned())),
        }
    }

    fn name(&self, _: &http::Extensions) -> Option<Arc<str>> {
        None
    }

    fn tools(&self, _: &http::Extensions, _: &str) -> Option<Arc<str>> {
        None
    }
}

#[tokio::test]
async fn a_reader_downloads_nothing_and_reads_what_is_known() {
    let (origin, writer) = origin().await;
    found(&fetch(&writer, blob_request(&origin.ok("hello"))).await.unwrap(), "hello");
    let (blobs, records) = (writer.blobs.clone(), writer.records.clone());
    let allowed = Allowed::new(&[format!("{}/ok/", origin.base)]).unwrap();
    let reader = start_with(|config| {
        config.access = Arc::new(Readers);
        (config.blobs, config.records) = (blobs, records);
        config.fetch = FetchConfig { allowed, max_size: 1 << 20, ..FetchConfig::default() };
    })
    .await;
    found(&fetch(&reader, blob_request(&origin.ok("hello"))).await.unwrap(), "hello");
    let result = fetch(&reader, blob_request(&origin.ok("other"))).await;
    refused(result, Code::PermissionDenied, "the right to store blobs: readers may read");
    assert!(!reader.has(&SHA256.digest(b"other")).await);
}

#[tokio::test]
async fn where_clients_write_no_results_the_server_downloads_for_them() {
    let (origin, server) =
        origin_with(|config| config.access = Arc::new(Everybody { write_results: false })).await;
    found(&fetch(&server, blob_request(&origin.ok("hello"))).await.unwrap(), "hello");
}

#[tokio::test]
async fn calls_for_one_uri_share_a_download() {
    let (origin, server) = origin().await;
    let uri = origin.ok("gate/shared");
    let calls = (0..20).map(|_| fetch(&server, blob_request(&uri)));
    let calls = futures_util::future::join_all(calls);
    let opened = async {
        origin.until_asked(1).await;
        origin.seen.gate.add_permits(20);
    };
    let (answers, ()) = tokio::join!(calls, opened);
    for answer in answers {
        found(&answer.unwrap(), "shared");
    }
    assert_eq!(origin.asked(), 1);
}

#[tokio::test]
async fn a_download_outlives_the_call_that_began_it() {
    let (origin, server) = origin().await;
    let uri = origin.ok("gate/patient");
    let mut request = blob_request(&uri);
    request.timeout = Some(protobuf::Duration { seconds: 60, nanos: 0 });
    let call = fetch(&server, request);
    tokio::select! {
        answer = call => panic!("nothing was sent yet: {answer:?}"),
        () = origin.until_asked(1) => {}
    }
    origin.seen.gate.add_permits(1);
    found(&fetch(&server, blob_request(&uri)).await.unwrap(), "patient");
    assert_eq!(origin.asked(), 1);
}

#[tokio::test]
async fn downloads_under_way_share_the_room_that_there_is() {
    let (origin, server) = origin_with(|config| config.fetch.max_size = 4).await;
    let response = fetch(&server, blob_request(&origin.ok("hello"))).await.unwrap();
    failed(&response, Code::ResourceExhausted, "larger than the limit of 4 bytes");
}

#[tokio::test]
async fn what_is_announced_and_does_not_come_takes_no_room() {
    let (origin, server) = origin_with(|config| config.fetch.max_size = 8).await;
    let stalled = fetch(&server, blob_request(&origin.ok("stalled/8")));
    let other = async {
        origin.until_asked(1).await;
        fetch(&server, blob_request(&origin.ok("hello"))).await.unwrap()
    };
    tokio::select! {
        answer = stalled => panic!("it never ends: {answer:?}"),
        answer = other => found(&answer, "hello"),
    }
}

#[tokio::test]
async fn a_web_server_that_falls_silent_holds_no_place() {
    const IDLE: Duration = Duration::from_millis(100);
    let (origin, server) = origin_with(|config| config.fetch.idle = IDLE).await;
    for path in ["never", "stalled/8"] {
        let mut request = blob_request(&origin.ok(path));
        request.timeout = Some(protobuf::Duration { seconds: 10, nanos: 0 });
        let response = fetch(&server, request).await.unwrap();
        failed(&response, Code::Unavailable, "nothing came for 100ms (fetch.idle_timeout)");
    }
}

/// A client that always asks for newer content starts a download with each call.
#[tokio::test]
async fn more_downloads_than_may_wait_are_refused() {
    const CALLS: usize = 300;
    const ADMITTED: usize = 256;
    let (origin, server) = origin().await;
    let uri = origin.ok("gate/newer");
    let mut calls = FuturesUnordered::new();
    for _ in 0..3 {
        // One connection carries no more than 200 calls at a time.
        let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
        let client = FetchClient::new(endpoint.connect().await.unwrap());
        for _ in 0..CALLS / 3 {
            let (mut client, mut request) = (client.clone(), blob_request(&uri));
            request.oldest_content_accepted =
                Some(protobuf::Timestamp { seconds: i64::from(u32::MAX), nanos: 0 });
            calls.push(async move { client.fetch_blob(request).await.unwrap().into_inner() });
        }
    }
    for _ in ADMITTED..CALLS {
        let refused = calls.next().await.unwrap();
        failed(&refused, Code::ResourceExhausted, "256 downloads are under way");
    }
    origin.seen.gate.add_permits(CALLS);
    while let Some(response) = calls.next().await {
        found(&response, "newer");
    }
    assert_eq!(origin.asked(), ADMITTED);
}

#[tokio::test]
async fn a_name_leads_to_this_machine_only_where_it_is_said() {
    // Every system knows `localhost`; none of the names that are listed here is that one.
    let (origin, server) = origin_with(|config| {
        config.fetch.allowed =
            Allowed::new(&["http://".to_owned(), "https://".to_owned()]).unwrap();
    })
    .await;
    for uri in [origin.ok("hello"), origin.ok("hello").replace("127.0.0.1", "localhost")] {
        let response = fetch(&server, blob_request(&uri)).await.unwrap();
        failed(&response, Code::PermissionDenied, "allows to download none");
    }
}

/// A request with one qualifier is refused as a whole, before anything is downloaded.
#[tokio::test]
async fn nothing_is_downloaded_for_a_request_that_cannot_be_honoured() {
    let (origin, server) = origin().await;
    let request = FetchBlobRequest {
        qualifiers: vec![Qualifier { name: "unheard-of".into(), value: "x".into() }],
        ..blob_request(&origin.ok("gate/x"))
    };
    let result: Result<_, Status> = fetch(&server, request).await;
    refused(result, Code::InvalidArgument, "unheard-of");
    assert_eq!(origin.asked(), 0);
}
