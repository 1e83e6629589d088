//! Metrics, traces and health of a real server.
#![allow(clippy::panic, clippy::unwrap_used)]

mod collector;
mod exposition;
use crate::support;

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use collector::{Collector, attributes};
use exposition::Scrape;
use kiln_protos::reapi;
use kiln_protos::reapi::action_cache_client::ActionCacheClient;
use kiln_protos::reapi::execution_client::ExecutionClient;
use support::pki::Authority;
use support::reapi::{Client, Spec};
use support::server::{Server, command, program};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::ServiceExt;

const PATIENCE: Duration = Duration::from_secs(20);
/// The pause between two looks at figures, which follow a request by some milliseconds.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const ENDPOINT: &str = "KILN_TELEMETRY_OTLP_ENDPOINT";
const INVOCATION: &str = "0af76519-16cd-43dd-8448-eb211c80319c";

const ACTION_CACHE: &str = "build.bazel.remote.execution.v2.ActionCache";

/// Sends `GET path`. Returns the head and the body of the answer.
fn get(address: &str, path: &str, accept: &str) -> (String, String) {
    let mut stream = std::net::TcpStream::connect(address).expect("the server accepts");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )
    .expect("the request is sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the answer is UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer with a body");
    (head.to_owned(), body.to_owned())
}

fn scrape(server: &Server) -> Scrape {
    let (head, body) = get(&server.address, "/metrics", "*/*");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    support::promtool::check(&body);
    Scrape::parse(&body)
}

/// Scrapes until `condition` holds, and returns that scrape.
async fn scrape_until(server: &Server, condition: impl Fn(&Scrape) -> bool) -> Scrape {
    let start = Instant::now();
    loop {
        let scrape = scrape(server);
        if condition(&scrape) {
            return scrape;
        }
        assert!(start.elapsed() < PATIENCE, "the figures do not come");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn calls(scrape: &Scrape, method: &str, code: &str) -> f64 {
    scrape.sum("kiln_grpc_requests_total", &[("method", method), ("code", code)])
}

fn traced(data: &Path, endpoint: &str) -> Server {
    let data = data.join("kiln");
    let mut command = command("127.0.0.1:0", &data, &["--workers", "1"]);
    command.env(ENDPOINT, endpoint);
    Server::spawn(command, &data)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_actions_are_counted() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&data.path().join("kiln"), &["--workers", "1"]);
    let client = Client::connect(&server.url()).await;
    let spec = Spec::shell("echo made > out.txt", &["out.txt"]);
    let action = client.prepare(&spec).await;
    assert!(client.cached(&action).await.is_none());
    client.execute_action(action.clone(), false).await.expect("an answer");
    assert!(client.cached(&action).await.is_some());
    let (head, _) = get(&server.address, "/nothing/here", "*/*");
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");

    let executed = ("kiln_executions_total", [("outcome", "success")]);
    let now = scrape_until(&server, |now| now.sum(executed.0, &executed.1) == 1.0).await;
    assert_eq!(calls(&now, "GetActionResult", "NotFound"), 1.0);
    assert_eq!(calls(&now, "GetActionResult", "OK"), 1.0);
    assert_eq!(calls(&now, "Execute", "OK"), 1.0);
    assert_eq!(calls(&now, "BatchUpdateBlobs", "OK"), 3.0);
    let method = [("service", ACTION_CACHE), ("method", "GetActionResult")];
    assert_eq!(now.value("kiln_grpc_request_duration_seconds_count", &method), 2.0);
    assert!(now.value("kiln_grpc_request_duration_seconds_sum", &method) > 0.0);
    assert_eq!(now.value("kiln_grpc_requests_in_flight", &[]), 0.0);
    assert!(now.value("kiln_connections", &[]) >= 1.0);
    let not_found = [("route", "other"), ("status", "404")];
    assert_eq!(now.value("kiln_http_requests_total", &not_found), 1.0);

    assert_eq!(now.value("kiln_actions_total", &[("origin", "executed")]), 1.0);
    assert_eq!(now.value("kiln_actions_failed_total", &[]), 0.0);
    for stage in ["queue", "input_fetch", "run", "upload"] {
        let stage = [("stage", stage)];
        assert_eq!(now.value("kiln_action_stage_duration_seconds_count", &stage), 1.0);
    }
    assert_eq!(now.value("kiln_action_duration_seconds_count", &[]), 1.0);
    assert_eq!(now.value("kiln_operations_completed_total", &[("code", "OK")]), 1.0);
    assert_eq!(now.value("kiln_slots", &[]), 1.0);
    assert_eq!(now.value("kiln_workers", &[("state", "active")]), 1.0);
    assert_eq!(now.value("kiln_slots_wanted", &[]), 0.0);
    assert_eq!(now.value("kiln_action_cache_entries", &[]), 1.0);
    // The store has the command, the action and the output. The input root is the empty blob, which the store does
    // not count.
    assert_eq!(now.value("kiln_storage_blobs", &[]), 3.0);
    let used = now.value("kiln_storage_used_bytes", &[]);
    assert!(used > 0.0 && used <= now.value("kiln_storage_max_bytes", &[]));
    assert!(now.value("process_resident_memory_bytes", &[]) > 1e6);

    let (head, body) =
        get(&server.address, "/metrics", "application/openmetrics-text;version=1.0.0");
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(body.contains("# TYPE kiln_grpc_requests counter\n"), "{body}");
    assert!(body.ends_with("# EOF\n"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_that_clients_make_up_are_one_series() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&data.path().join("kiln"), &["--workers", "0"]);
    let client = Client::connect(&server.url()).await;
    for path in ["/made.up.Service/Method", "/google.bytestream.ByteStream/Nothing"] {
        let channel = client.channel.clone().map_request(
            move |mut request: http::Request<tonic::body::Body>| {
                *request.uri_mut() = http::Uri::from_static(path);
                request
            },
        );
        let answer = ActionCacheClient::new(channel)
            .get_action_result(reapi::GetActionResultRequest::default())
            .await;
        assert_eq!(answer.expect_err("no such method").code(), tonic::Code::Unimplemented);
    }
    let labels = [("service", "unknown"), ("method", "unknown"), ("code", "Unimplemented")];
    let now = scrape(&server);
    assert_eq!(now.value("kiln_grpc_requests_total", &labels), 2.0);
    assert_eq!(now.sum("kiln_grpc_requests_total", &[]), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_operations_want_slots_until_their_client_goes_away() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&data.path().join("kiln"), &["--workers", "0"]);
    let client = Client::connect(&server.url()).await;
    let action = client.prepare(&Spec::shell("true", &[])).await;
    let request = reapi::ExecuteRequest {
        instance_name: client.instance.clone(),
        action_digest: Some(action),
        ..Default::default()
    };
    let mut updates = ExecutionClient::new(client.channel.clone())
        .execute(request)
        .await
        .expect("the call is taken")
        .into_inner();
    updates.message().await.expect("a first update").expect("the stream goes on");

    let now = scrape_until(&server, |now| now.value("kiln_queue_depth", &[]) == 1.0).await;
    assert_eq!(now.value("kiln_slots_wanted", &[]), 1.0);
    assert_eq!(now.value("kiln_slots", &[]), 0.0);
    assert_eq!(now.sum("kiln_property_set_slots_wanted", &[]), 1.0);
    assert_eq!(now.sum("kiln_property_set_unserved", &[]), 1.0);
    assert_eq!(now.value("kiln_grpc_requests_in_flight", &[]), 1.0);

    drop(updates);
    let now = scrape_until(&server, |now| calls(now, "Execute", "Cancelled") == 1.0).await;
    assert_eq!(now.value("kiln_grpc_requests_in_flight", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executed_action_is_a_trace() {
    let mut collector = Collector::start().await;
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = traced(data.path(), &collector.url());
    let client = Client::connect(&server.url()).await;
    let action = client.prepare(&Spec::shell("exit 3", &[])).await;
    let metadata = reapi::RequestMetadata {
        tool_invocation_id: INVOCATION.into(),
        action_mnemonic: "Genrule".into(),
        target_id: "//some:target".into(),
        ..Default::default()
    };
    client.execute_with(action.clone(), &metadata).await.expect("an answer");

    let span = collector.span("Genrule").await;
    let trace: Vec<u8> = span.trace_id.clone();
    let hex: String = trace.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, INVOCATION.replace('-', ""), "the trace id is the invocation id");
    let known = attributes(&span.attributes);
    let digest = format!("{}/{}", action.hash, action.size_bytes);
    for (key, value) in [
        ("kiln.action.digest", digest.as_str()),
        ("kiln.target", "//some:target"),
        ("kiln.mnemonic", "Genrule"),
        ("kiln.invocation.id", INVOCATION),
        ("kiln.origin", "executed"),
        ("process.exit.code", "3"),
    ] {
        assert_eq!(known.get(key).map(String::as_str), Some(value), "{key} in {known:?}");
    }
    assert!(known.contains_key("kiln.worker"), "{known:?}");
    assert_eq!(span.status.as_ref().expect("a status").message, "exit code 3");
    for stage in ["queue", "input_fetch", "run", "upload"] {
        let stage = collector.span(stage).await;
        assert_eq!((&stage.trace_id, &stage.parent_span_id), (&trace, &span.span_id));
        assert!(stage.start_time_unix_nano >= span.start_time_unix_nano, "{stage:?}");
        assert!(stage.start_time_unix_nano <= stage.end_time_unix_nano, "{stage:?}");
        assert!(stage.end_time_unix_nano <= span.end_time_unix_nano, "{stage:?}");
    }
    assert_eq!(collector.resource.get("service.name").map(String::as_str), Some("kiln"));
    let sent = |now: &Scrape| now.value("kiln_trace_spans_exported_total", &[]) == 5.0;
    scrape_until(&server, sent).await;

    // The server sends the span of the build when it ends.
    let ended = tokio::task::spawn_blocking(move || server.terminate()).await.expect("it ends");
    assert!(ended.success(), "{ended}");
    let build = collector.span("build").await;
    assert_eq!((&build.trace_id, &build.span_id), (&trace, &span.parent_span_id));
    assert!(build.parent_span_id.is_empty(), "{build:?}");
    let known = attributes(&build.attributes);
    assert_eq!(known.get("kiln.build.executed").map(String::as_str), Some("1"), "{known:?}");
    assert_eq!(known.get("kiln.build.failed").map(String::as_str), Some("1"), "{known:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_behind_tls_is_trusted_when_its_authority_is() {
    let mut collector = Collector::start().await;
    let data = tempfile::tempdir().expect("a temporary directory");
    let [ours, theirs] = ["ours", "theirs"].map(|name| Authority::new(data.path(), name));
    let endpoint = format!("https://{}", collector.behind_tls(&ours.server()).await);
    let start = |name: &str, authority: &Authority| {
        let data = data.path().join(name);
        let mut command = command("127.0.0.1:0", &data, &["--workers", "1"]);
        command.env(ENDPOINT, &endpoint).env("KILN_TELEMETRY_OTLP_CA", &authority.file);
        Server::spawn(command, &data)
    };
    let server = start("one", &ours);
    Client::connect(&server.url()).await.execute(&Spec::shell("true", &[])).await.expect("done");
    collector.span("action").await;

    let server = start("two", &theirs);
    Client::connect(&server.url()).await.execute(&Spec::shell("true", &[])).await.expect("done");
    let dropped = [("reason", "export_failed")];
    let all = |now: &Scrape| now.value("kiln_trace_spans_dropped_total", &dropped) == 5.0;
    let now = scrape_until(&server, all).await;
    assert_eq!(now.value("kiln_trace_spans_exported_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_collector_a_build_goes_on_and_spans_are_counted_as_dropped() {
    // The test takes a port and gives it back, so nobody listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = traced(data.path(), &endpoint);
    let client = Client::connect(&server.url()).await;
    for number in 0..3 {
        let spec = Spec::shell(&format!("echo {number}"), &[]);
        let response = client.execute(&spec).await.expect("an answer");
        assert_eq!(response.status.unwrap_or_default().code, 0);
    }
    let dropped = [("reason", "export_failed")];
    let all = |now: &Scrape| now.value("kiln_trace_spans_dropped_total", &dropped) == 15.0;
    let now = scrape_until(&server, all).await;
    assert_eq!(now.value("kiln_trace_spans_exported_total", &[]), 0.0);
    let ended = tokio::task::spawn_blocking(move || server.terminate()).await.expect("it ends");
    assert!(ended.success(), "{ended}");
}

#[test]
fn an_endpoint_that_cannot_work_is_refused_at_the_start() {
    let data = tempfile::tempdir().expect("a temporary directory");
    for endpoint in ["grpc://127.0.0.1:4317", "127.0.0.1:4317", "http://", "https://"] {
        let mut command = command("127.0.0.1:0", &data.path().join("kiln"), &["--workers", "0"]);
        command.env(ENDPOINT, endpoint);
        let (code, text) = program(command).expect("it does not start");
        assert_eq!(code, 2, "{text}");
        assert!(text.contains("telemetry.otlp_endpoint") && text.contains("http://"), "{text}");
    }
    let mut command = command("127.0.0.1:0", &data.path().join("kiln"), &["--workers", "0"]);
    let authority = Authority::new(data.path(), "ca");
    command.env(ENDPOINT, "http://127.0.0.1:4317").env("KILN_TELEMETRY_OTLP_CA", &authority.file);
    let (code, text) = program(command).expect("it does not start");
    assert_eq!((code, text.contains("https://")), (2, true), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drains_says_so_and_finishes_what_runs() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&data.path().join("kiln"), &["--workers", "1"]);
    let client = Client::connect(&server.url()).await;
    let mut health = HealthClient::new(client.channel.clone());
    let whole = HealthCheckRequest::default();
    let mut states = health.watch(whole.clone()).await.expect("a watch").into_inner();
    let state = states.message().await.expect("a state").expect("the stream goes on");
    assert_eq!(state.status(), ServingStatus::Serving);

    let running = {
        let client = client.clone();
        tokio::spawn(async move { client.execute(&Spec::shell("sleep 3", &[])).await })
    };
    scrape_until(&server, |now| now.value("kiln_operations_running", &[]) == 1.0).await;
    let kill = Command::new("kill").arg(server.id().to_string()).status().expect("kill runs");
    assert!(kill.success());

    let state = states.message().await.expect("a state").expect("the stream goes on");
    assert_eq!(state.status(), ServingStatus::NotServing);
    let answer = health.check(whole).await.expect("an answer").into_inner();
    assert_eq!(answer.status(), ServingStatus::NotServing);
    assert!(!running.is_finished(), "the state was known while the action ran");
    let response = running.await.expect("the call ends").expect("an answer");
    assert_eq!(response.status.unwrap_or_default().code, 0);
    // The server ends the watch long before the drain time is over.
    let end = tokio::time::timeout(PATIENCE, states.message()).await.expect("the watch ends");
    assert_eq!(end.expect("it ends in order"), None);
}
