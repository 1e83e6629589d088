//! What tests that run in parts do, and what their clients ask for.

use kiln_cas::{Digest, DigestFunction};
use kiln_protos::reapi::{self, command::EnvironmentVariable};
use kiln_protos::worker::Lease;
use prost::Message;
use tonic::Request;

use crate::harness::{Client, Kiln, Worker, exited, request};

pub const REPORT: &str = "out/testlogs/a/t/test.xml";
const STATUS: &str = "out/testlogs/a/t/test.shard";
/// The program that runs tests for Bazel.
const RUNNER: &str = "test-setup.sh";

/// A test action with these platform properties.
pub async fn test_action(kiln: &Kiln, properties: &[(&str, &str)]) -> Digest {
    test_action_of(kiln, properties, &[]).await
}

pub async fn test_action_of(
    kiln: &Kiln,
    properties: &[(&str, &str)],
    arguments: &[String],
) -> Digest {
    made(kiln, properties, (RUNNER, arguments), &[]).await
}

/// A test action of a client that has cut the test itself.
pub async fn shard_of_client(kiln: &Kiln, index: u32, count: u32) -> Digest {
    of_client(kiln, RUNNER, index, count).await
}

/// The action by which such a client makes the report of a shard that has run.
pub async fn report_of_client(kiln: &Kiln, index: u32, count: u32) -> Digest {
    of_client(kiln, "external/bazel_tools/tools/test/generate-xml.sh", index, count).await
}

async fn of_client(kiln: &Kiln, program: &str, index: u32, count: u32) -> Digest {
    let (index, count) = (index.to_string(), count.to_string());
    let variables = [("TEST_SHARD_INDEX", &*index), ("TEST_TOTAL_SHARDS", &*count)];
    made(kiln, &[], (program, &[]), &variables).await
}

async fn made(
    kiln: &Kiln,
    properties: &[(&str, &str)],
    (program, arguments): (&str, &[String]),
    variables: &[(&str, &str)],
) -> Digest {
    let variable = |name: &str, value: &str| EnvironmentVariable {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let usual = [("TEST_TARGET", "//a:t"), ("XML_OUTPUT_FILE", REPORT)];
    let all = variables.iter().chain(&usual).map(|(name, value)| variable(name, value));
    let command = reapi::Command {
        arguments: [&[program.to_owned()], arguments].concat(),
        environment_variables: all.collect(),
        output_paths: vec![REPORT.to_owned()],
        ..Default::default()
    };
    let property = |(name, value): &(&str, &str)| reapi::platform::Property {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    let function = DigestFunction::Sha256;
    let command = kiln.blob(command.encode_to_vec(), function).await;
    let root = kiln.blob(reapi::Directory::default().encode_to_vec(), function).await;
    let action = reapi::Action {
        command_digest: Some(command.to_wire()),
        input_root_digest: Some(root.to_wire()),
        platform: Some(reapi::Platform { properties: properties.iter().map(property).collect() }),
        ..Default::default()
    };
    kiln.blob(action.encode_to_vec(), function).await
}

pub async fn try_run(kiln: &Kiln, request: reapi::ExecuteRequest) -> Result<Client, tonic::Status> {
    let metadata = reapi::RequestMetadata {
        tool_invocation_id: "build-1".to_owned(),
        action_mnemonic: "TestRunner".to_owned(),
        target_id: "//a:t".to_owned(),
        ..Default::default()
    };
    let mut request = Request::new(request);
    let value = tonic::metadata::MetadataValue::from_bytes(&metadata.encode_to_vec());
    let header = "build.bazel.remote.execution.v2.requestmetadata-bin";
    request.metadata_mut().insert_bin(header, value);
    Ok(Client { stream: kiln.execution().execute(request).await?.into_inner() })
}

pub async fn run(kiln: &Kiln, action: &Digest) -> Client {
    try_run(kiln, request(action)).await.unwrap()
}

/// Executes the action without asking the cache first.
pub async fn run_again(kiln: &Kiln, action: &Digest) -> Client {
    let request = reapi::ExecuteRequest { skip_cache_lookup: true, ..request(action) };
    try_run(kiln, request).await.unwrap()
}

async fn read<M: Message + Default>(kiln: &Kiln, digest: Option<&reapi::Digest>) -> M {
    M::decode(content(kiln, digest).await).unwrap()
}

pub async fn content(kiln: &Kiln, digest: Option<&reapi::Digest>) -> bytes::Bytes {
    use kiln_cas::BlobStore;
    let digest = Digest::from_wire(digest.unwrap(), DigestFunction::Sha256).unwrap();
    kiln.blobs.read(&digest, 0, None).await.unwrap().collect(u64::MAX).await.unwrap()
}

pub fn action_of(lease: &Lease) -> reapi::Digest {
    let action = lease.action.clone().unwrap();
    reapi::Digest { hash: action.hash, size_bytes: action.size_bytes }
}

/// The value of an environment variable in a lease's action; `None`: it is not set.
pub async fn variable(kiln: &Kiln, lease: &Lease, name: &str) -> Option<String> {
    let action: reapi::Action = read(kiln, Some(&action_of(lease))).await;
    let command: reapi::Command = read(kiln, action.command_digest.as_ref()).await;
    let mut variables = command.environment_variables.into_iter();
    variables.find(|variable| variable.name == name).map(|variable| variable.value)
}

/// A runner's end: the cases that it reports, and whether it knows of shards.
pub async fn ended(
    kiln: &Kiln,
    exit_code: i32,
    cases: &[&str],
    touches: bool,
) -> reapi::ExecuteResponse {
    ended_after(kiln, 5_000, exit_code, cases, touches).await
}

/// A runner's end as in `ended`, where each case took `ms` milliseconds.
pub async fn ended_after(
    kiln: &Kiln,
    ms: u64,
    exit_code: i32,
    cases: &[&str],
    touches: bool,
) -> reapi::ExecuteResponse {
    let mut response = exited(exit_code);
    let result = response.result.as_mut().unwrap();
    let text: String = cases.iter().map(|case| format!("{case} {ms}\n")).collect();
    let mut file = |path: &str, digest: Digest| {
        let (path, digest) = (path.to_owned(), Some(digest.to_wire()));
        result.output_files.push(reapi::OutputFile { path, digest, ..Default::default() });
    };
    let function = DigestFunction::Sha256;
    file(REPORT, kiln.blob(text.clone().into_bytes(), function).await);
    if touches {
        file(STATUS, function.digest(b""));
    }
    let log = kiln.blob(format!("ran {}", cases.join(" ")).into_bytes(), function).await;
    result.stdout_digest = Some(log.to_wire());
    response
}

/// The leases of all parts, in the order of their numbers.
pub async fn parts(kiln: &Kiln, worker: &mut Worker, count: usize) -> Vec<Lease> {
    let mut leases = vec![None; count];
    for _ in 0..count {
        let lease = worker.lease().await;
        assert_eq!(variable(kiln, &lease, "TEST_TOTAL_SHARDS").await, Some(count.to_string()));
        let index: usize =
            variable(kiln, &lease, "TEST_SHARD_INDEX").await.unwrap().parse().unwrap();
        assert!(leases[index].replace(lease).is_none(), "part {index} came twice");
    }
    leases.into_iter().flatten().collect()
}
