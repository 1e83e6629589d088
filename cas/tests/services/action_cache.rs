use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use kiln_cas::access::Everybody;
use kiln_cas::services::{MAX_NAMED_IN_TRAILER, REQUEST_METADATA};
use kiln_cas::stores::{Faults, Faulty, MemoryActionCache, MemoryBlobStore, Operation};
use kiln_cas::{ActionCache, ActionKey, Digest, StoreError};
use kiln_protos::events::execution::Origin;
use kiln_protos::reapi::{
    ActionResult, Directory, FileNode, GetActionResultRequest, OutputDirectory, OutputFile,
    OutputSymlink, RequestMetadata, ToolDetails, Tree, UpdateActionResultRequest,
};
use kiln_protos::rpc;
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use crate::harness::{BLAKE3, Readers, SHA256, Server, refused, start, start_with, wire};

fn action() -> Digest {
    SHA256.digest(b"an action")
}

fn get_request() -> GetActionResultRequest {
    GetActionResultRequest {
        instance_name: "a/b".into(),
        action_digest: wire(&action()),
        ..Default::default()
    }
}

async fn get(server: &Server, request: GetActionResultRequest) -> Result<ActionResult, Status> {
    Ok(server.action_cache().get_action_result(request).await?.into_inner())
}

async fn update(server: &Server, result: ActionResult) -> Result<ActionResult, Status> {
    let request = UpdateActionResultRequest {
        instance_name: "a/b".into(),
        action_digest: wire(&action()),
        action_result: Some(result),
        ..Default::default()
    };
    Ok(server.action_cache().update_action_result(request).await?.into_inner())
}

fn output(path: &str, digest: &Digest) -> OutputFile {
    OutputFile { path: path.into(), digest: wire(digest), ..Default::default() }
}

fn files(outputs: Vec<OutputFile>) -> ActionResult {
    ActionResult { output_files: outputs, ..Default::default() }
}

fn directory(names: &[&str], file: &Digest) -> Directory {
    let node =
        |name: &&str| FileNode { name: (*name).into(), digest: wire(file), ..Default::default() };
    Directory { files: names.iter().map(node).collect(), ..Default::default() }
}

async fn with_tree(server: &Server, root: Directory) -> ActionResult {
    let tree = Tree { root: Some(root), children: Vec::new() };
    let tree_digest = server.put_message(&tree).await;
    let output = OutputDirectory {
        path: "dir".into(),
        tree_digest: wire(&tree_digest),
        ..Default::default()
    };
    ActionResult { output_directories: vec![output], ..Default::default() }
}

#[tokio::test]
async fn what_is_written_is_read_back_with_metadata() {
    let server = start().await;
    let file = server.put(SHA256, "contents").await;
    refused(get(&server, get_request()).await, Code::NotFound, "action_digest: no result");
    let stored = update(&server, files(vec![output("out", &file)])).await.unwrap();
    assert!(stored.execution_metadata.is_some(), "Buck2 fails without it");
    let read = get(&server, get_request()).await.unwrap();
    assert_eq!(read, stored);
    assert_eq!(read.output_files, [output("out", &file)]);

    let other = GetActionResultRequest { instance_name: "a".into(), ..get_request() };
    refused(get(&server, other).await, Code::NotFound, "action_digest");
}

#[tokio::test]
async fn blake3_results_work() {
    let server = start().await;
    let file = server.put(BLAKE3, "contents").await;
    let action_digest = wire(&BLAKE3.digest(b"an action"));
    let request = UpdateActionResultRequest {
        action_digest: action_digest.clone(),
        action_result: Some(files(vec![output("out", &file)])),
        digest_function: 9,
        ..Default::default()
    };
    server.action_cache().update_action_result(request).await.unwrap();
    let request =
        GetActionResultRequest { action_digest, digest_function: 9, ..Default::default() };
    assert_eq!(get(&server, request).await.unwrap().output_files.len(), 1);
}

#[tokio::test]
#[allow(deprecated)]
async fn symlinks_are_in_all_lists() {
    let server = start().await;
    let link = OutputSymlink { path: "l".into(), target: "t".into(), ..Default::default() };
    let result = ActionResult { output_symlinks: vec![link.clone()], ..Default::default() };
    update(&server, result).await.unwrap();
    let read = get(&server, get_request()).await.unwrap();
    assert_eq!(read.output_symlinks, std::slice::from_ref(&link));
    assert_eq!(read.output_file_symlinks, [link]);
}

#[tokio::test]
async fn output_is_inlined_where_asked_for_and_where_it_fits() {
    let server = start().await;
    let small = server.put(SHA256, "small").await;
    let large = server.put(SHA256, vec![b'x'; 2 << 20]).await;
    let result = ActionResult {
        stdout_digest: wire(&small),
        stderr_digest: wire(&large),
        ..files(vec![output("a", &small), output("b", &small)])
    };
    update(&server, result).await.unwrap();
    let plain = get(&server, get_request()).await.unwrap();
    assert!(plain.stdout_raw.is_empty() && plain.output_files[0].contents.is_empty());

    let request = GetActionResultRequest {
        inline_stdout: true,
        inline_stderr: true,
        inline_output_files: vec!["b".into(), "none".into()],
        ..get_request()
    };
    let inlined = get(&server, request).await.unwrap();
    assert_eq!(inlined.stdout_raw, b"small");
    assert!(inlined.stderr_raw.is_empty(), "it would not fit into a message");
    assert!(inlined.output_files[0].contents.is_empty());
    assert_eq!(inlined.output_files[1].contents, b"small");
}

#[tokio::test]
async fn results_without_their_blobs_are_refused() {
    let server = start().await;
    let absent = SHA256.digest(b"absent");
    let cases = [
        files(vec![output("out", &absent)]),
        ActionResult { stdout_digest: wire(&absent), ..Default::default() },
        with_tree(&server, directory(&["f"], &absent)).await,
        ActionResult {
            output_directories: vec![OutputDirectory {
                path: "d".into(),
                tree_digest: wire(&absent),
                ..Default::default()
            }],
            ..Default::default()
        },
    ];
    for result in cases {
        let answer = update(&server, result).await;
        assert_eq!(missing(&answer), [format!("blobs/{absent}")]);
        refused(answer, Code::FailedPrecondition, &absent.to_string());
    }
    refused(get(&server, get_request()).await, Code::NotFound, "no result");
}

#[tokio::test]
async fn all_blobs_that_a_result_lacks_are_named_as_far_as_an_error_holds_them() {
    let server = start().await;
    let present = server.put(SHA256, "x").await;
    let absent = [b"a", b"b", b"c"].map(|data| SHA256.digest(data));
    let mut outputs = vec![output("there", &present)];
    outputs.extend(absent.iter().map(|digest| output(&digest.hex(), digest)));
    let mut subjects = absent.map(|digest| format!("blobs/{digest}"));
    subjects.sort();
    assert_eq!(missing(&update(&server, files(outputs)).await), subjects);

    let many: Vec<_> = (0..1000_u32).map(|n| SHA256.digest(&n.to_le_bytes())).collect();
    let outputs = many.iter().map(|digest| output(&digest.hex(), digest)).collect();
    let answer = update(&server, files(outputs)).await;
    assert_eq!(missing(&answer).len(), MAX_NAMED_IN_TRAILER);
    refused(answer, Code::FailedPrecondition, "(1000)");
}

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
fn missing(answer: &Result<ActionResult, Status>) -> Vec<String> {
    let error = answer.as_ref().expect_err("it has to be refused");
    let status = rpc::Status::decode(error.details()).unwrap();
    assert_eq!((status.code, status.message.as_str()), (error.code() as i32, error.message()));
    assert_eq!(status.details.len(), 1, "{status:?}");
    let detail = &status.details[0];
    assert_eq!(detail.type_url, "type.googleapis.com/google.rpc.PreconditionFailure");
    let failure = PreconditionFailure::decode(detail.value.as_slice()).unwrap();
    assert!(failure.violations.iter().all(|violation| violation.r#type == "MISSING"));
    failure.violations.into_iter().map(|violation| violation.subject).collect()
}

/// The working directory may lie deep in the input root: its outputs need not lie below it.
#[tokio::test]
async fn outputs_beside_the_working_directory_are_read_back() {
    let server = start().await;
    let file = server.put(SHA256, "x").await;
    let mut result = with_tree(&server, directory(&["a"], &file)).await;
    result.output_directories[0].path = "../..".into();
    result.output_files = ["../../b/c", "./d"].map(|path| output(path, &file)).to_vec();
    update(&server, result.clone()).await.unwrap();
    let found = get(&server, get_request()).await.unwrap();
    assert_eq!(found.output_files, result.output_files);
    assert_eq!(found.output_directories, result.output_directories);
}

#[tokio::test]
async fn malformed_results_are_refused_by_name() {
    let server = start().await;
    let file = server.put(SHA256, "x").await;
    for path in ["x/../y", "/x", "", "a//b", "a/./b", "..//x"] {
        let result = files(vec![output(path, &file)]);
        let part = "action_result.output_files[0]";
        refused(update(&server, result).await, Code::InvalidArgument, part);
    }
    for names in [&[".."][..], &["a/b"], &[""], &["a", "a"], &["b", "a"]] {
        let result = with_tree(&server, directory(names, &file)).await;
        refused(update(&server, result).await, Code::InvalidArgument, "files[");
    }
    let rubbish = server.put(SHA256, "\u{1}rubbish").await;
    let mut result = with_tree(&server, directory(&["a"], &file)).await;
    result.output_directories[0].tree_digest = wire(&rubbish);
    refused(update(&server, result).await, Code::InvalidArgument, "it is not a Tree");
    let mut unset = files(vec![output("a", &file)]);
    unset.output_files[0].digest = None;
    refused(update(&server, unset).await, Code::InvalidArgument, "output_files[0].digest");
    let large = ActionResult { stdout_raw: vec![0; 3_500_000], ..Default::default() };
    refused(update(&server, large).await, Code::InvalidArgument, "action_result: ");
    let request = UpdateActionResultRequest { action_digest: wire(&file), ..Default::default() };
    let nothing = server.action_cache().update_action_result(request).await;
    refused(nothing, Code::InvalidArgument, "action_result: it is not set");
}

#[tokio::test]
async fn malformed_requests_are_refused_by_name() {
    let server = start().await;
    let unset = GetActionResultRequest { action_digest: None, ..get_request() };
    refused(get(&server, unset).await, Code::InvalidArgument, "action_digest: the digest is not");
    let function = GetActionResultRequest { digest_function: 3, ..get_request() };
    refused(get(&server, function).await, Code::InvalidArgument, "digest_function");
}

#[tokio::test]
async fn callers_without_the_right_may_read_but_not_write() {
    let server =
        start_with(|config| config.access = Arc::new(Everybody { write_results: false })).await;
    let result = update(&server, ActionResult::default()).await;
    refused(result, Code::PermissionDenied, "may not write action results");
    refused(get(&server, get_request()).await, Code::NotFound, "no result");
}

#[tokio::test]
async fn hits_become_events_where_the_client_says_who_it_is() {
    let server = start().await;
    let mut events = server.events.subscribe();
    update(&server, ActionResult { exit_code: 3, ..Default::default() }).await.unwrap();
    get(&server, get_request()).await.unwrap();
    let result = server.action_cache().get_action_result(of_a_build()).await.unwrap().into_inner();

    let event = events.try_recv().expect("one hit had metadata");
    assert_eq!(event.origin(), Origin::CacheHit);
    assert_eq!((event.invocation_id.as_str(), event.exit_code), ("invocation", 3));
    assert_eq!((event.target_id.as_str(), event.mnemonic.as_str()), ("//a:b", "CppCompile"));
    assert_eq!((event.tool_name.as_str(), event.instance_name.as_str()), ("bazel", "a/b"));
    assert_eq!(event.action.as_ref().map(|d| d.hash.clone()), Some(action().hex()));
    assert_eq!(event.action_result, result.encode_to_vec());
    assert!(events.try_recv().is_err(), "the hit without metadata published nothing");
}

/// A look-up by a client that says which build it belongs to.
fn of_a_build() -> Request<GetActionResultRequest> {
    let metadata = RequestMetadata {
        tool_details: Some(ToolDetails { tool_name: "bazel".into(), tool_version: "4.2.3".into() }),
        tool_invocation_id: "invocation".into(),
        action_mnemonic: "CppCompile".into(),
        target_id: "//a:b".into(),
        ..Default::default()
    };
    let mut request = Request::new(get_request());
    let value = MetadataValue::from_bytes(&metadata.encode_to_vec());
    request.metadata_mut().insert_bin(REQUEST_METADATA, value);
    request
}

#[tokio::test]
async fn who_may_only_read_is_no_part_of_any_build() {
    let server = start_with(|config| config.access = Arc::new(Readers)).await;
    let mut events = server.events.subscribe();
    let key = ActionKey { instance: "a/b".into(), action: action() };
    server.actions.put(&key, ActionResult::default().encode_to_vec().into()).await.unwrap();
    server.action_cache().get_action_result(of_a_build()).await.unwrap();
    assert!(events.try_recv().is_err(), "a reader has written to the journal");
}

#[tokio::test]
async fn a_tree_is_counted_before_it_is_decoded() {
    let server = start().await;
    // A root (field 1) of empty files (field 1), two bytes each.
    let root = [0x0a, 0].repeat(1 << 20);
    let mut encoded = vec![0x0a];
    prost::encoding::encode_varint(root.len() as u64, &mut encoded);
    encoded.extend(root);
    let tree = server.put(SHA256, encoded).await;
    let directory =
        OutputDirectory { path: "out".into(), tree_digest: wire(&tree), ..Default::default() };
    let result = ActionResult { output_directories: vec![directory], ..Default::default() };
    refused(update(&server, result).await, Code::InvalidArgument, "more than 250000 entries");
    let links = vec![OutputSymlink::default(); 250_001];
    let result = ActionResult { output_symlinks: links, ..Default::default() };
    refused(update(&server, result).await, Code::InvalidArgument, "more than 250000 entries");
}

/// Results in a Redis that fails over when the first one is put: the new master gets it.
#[derive(Default)]
struct FailsOver {
    results: MemoryActionCache,
    over: AtomicBool,
}

#[async_trait]
impl ActionCache for FailsOver {
    async fn get(&self, key: &ActionKey) -> Result<Option<Bytes>, StoreError> {
        self.results.get(key).await
    }

    async fn put(&self, key: &ActionKey, result: Bytes) -> Result<(), StoreError> {
        if !self.over.swap(true, Ordering::Relaxed) {
            self.results.fail_over(&[]);
        }
        self.results.put(key, result).await
    }

    fn failures(&self) -> u64 {
        self.results.failures()
    }
}

#[tokio::test]
async fn blobs_are_asked_for_again_when_redis_fails_over_before_their_result_is_put() {
    let faults = Faults::default();
    let blobs = Arc::new(Faulty::new(MemoryBlobStore::default(), faults.clone()));
    let server = start_with(|config| {
        config.blobs = blobs;
        config.actions = Arc::new(FailsOver::default());
    })
    .await;
    let file = server.put(SHA256, "contents").await;
    let mut asked = Vec::new();
    for _ in 0..2 {
        let before = faults.count(Operation::FindMissing);
        update(&server, files(vec![output("out", &file)])).await.unwrap();
        asked.push(faults.count(Operation::FindMissing) - before);
    }
    assert!(asked[1] > 0 && asked[0] == 2 * asked[1], "{asked:?}");
}
