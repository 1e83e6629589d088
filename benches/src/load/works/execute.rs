//! Execute: distinct actions, none of which was run before.

use std::sync::Arc;

use bytes::Bytes;
use kiln_protos::{longrunning, protobuf, reapi};
use prost::Message;

use super::names::EXECUTE;
use crate::load::burst::{self, Burst, Limits, Operation};
use crate::load::channel::{Channel, Rpc};
use crate::load::error::CallError;
use crate::load::prepared::Hits;
use crate::load::samples::Samples;
use crate::load::target::{Numbers, Target};
use crate::load::upload::upload;
use crate::load::wire::{Framed, frame};
use crate::sample;

/// Actions of the first burst, which only finds out how fast the target is.
const FIRST_POOL: u64 = 24;
/// By which factor more actions are made ready than the last burst's rate asks for.
const HEADROOM: f64 = 1.4;
/// Time limit of an action in seconds.
const TIMEOUT: i64 = 60;
/// The directories of the shared input root; the next constants say how many files are in each, and
/// of how many bytes.
const DIRECTORIES: u64 = 10;
const FILES: u64 = 20;
const FILE_SIZE: usize = 1024;
/// The content of the output that `echo > out` writes.
const OUTPUT: &[u8] = b"\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inputs {
    None,
    /// 200 files in 10 directories, the same for all actions.
    Shared,
    /// No inputs; but the action is a test as Bazel runs one, and writes a report of ten cases.
    Test,
}

pub async fn run(
    target: &mut Target,
    samples: &Samples,
    inputs: Inputs,
    limits: Limits,
) -> Result<Burst, CallError> {
    let wanted = target.prepared.execution.rate.map_or(FIRST_POOL as f64, |rate| {
        rate * limits.duration.as_secs_f64() * HEADROOM + limits.in_flight as f64
    });
    let pool = Arc::new(Pool {
        requests: actions(target, samples, inputs, (wanted as u64).min(limits.operations)).await?,
        numbers: Numbers::default(),
    });
    let limits = Limits { operations: pool.requests.len() as u64, ..limits };
    let rpc = target.channel().rpc(EXECUTE)?;
    let operations = (0..limits.in_flight).map(|n| Execute {
        channel: target.lanes[n % target.lanes.len()].channel.clone(),
        rpc: rpc.clone(),
        pool: pool.clone(),
        output: sample::digest_of(OUTPUT),
    });
    let burst = burst::run(target, limits, operations.collect()).await?;
    let rate = target.prepared.execution.rate.unwrap_or(0.0).max(burst.per_second());
    target.prepared.execution.rate = Some(rate);
    Ok(burst)
}

struct Pool {
    requests: Vec<Framed>,
    numbers: Numbers,
}

struct Execute {
    channel: Channel,
    rpc: Rpc,
    pool: Arc<Pool>,
    output: reapi::Digest,
}

impl Operation for Execute {
    async fn once(&mut self) -> Result<u64, CallError> {
        let place = self.pool.numbers.next() as usize;
        let request = &self.pool.requests[place];
        let request = bytes::Buf::chain(request.first_ref().clone(), request.last_ref().clone());
        let operations = self.channel.server_stream(&self.rpc, request).await?;
        let response = response_of(operations)?;
        let result = response.result.unwrap_or_default();
        let file = result.output_files.iter().find(|file| file.path == "out");
        if file.and_then(|file| file.digest.as_ref()) != Some(&self.output) {
            return Err(CallError::wrong("the action's output is not what it wrote"));
        }
        if response.cached_result {
            return Err(CallError::wrong("a cached result for an action that was never run"));
        }
        Ok(0)
    }
}

/// The response in the last of an execution's updates; an error unless the action succeeded.
fn response_of(operations: Vec<Bytes>) -> Result<reapi::ExecuteResponse, CallError> {
    let last = operations.into_iter().next_back();
    let last = last.ok_or_else(|| CallError::wrong("Execute ended without an operation"))?;
    let operation = longrunning::Operation::decode(last).map_err(CallError::lost)?;
    let Some(longrunning::operation::Result::Response(any)) = operation.result else {
        return Err(CallError::wrong("Execute ended without a response"));
    };
    let response = reapi::ExecuteResponse::decode(&any.value[..]).map_err(CallError::lost)?;
    if let Some(status) = response.status.as_ref().filter(|status| status.code != 0) {
        let message = status.message.clone();
        return Err(CallError::Status { code: status.code.unsigned_abs(), message });
    }
    match response.result.as_ref().map(|result| result.exit_code) {
        Some(0) => Ok(response),
        other => Err(CallError::wrong(format!("the action's exit code is {other:?}"))),
    }
}

/// Uploads `count` new actions and answers a request for each.
async fn actions(
    target: &Target,
    samples: &Samples,
    inputs: Inputs,
    count: u64,
) -> Result<Vec<Framed>, CallError> {
    let mut blobs = Vec::new();
    let root = match inputs {
        Inputs::None | Inputs::Test => put(&mut blobs, &reapi::Directory::default()),
        Inputs::Shared => shared_root(&mut blobs),
    };
    let numbers = target.numbers();
    let mut requests = Vec::new();
    for _ in 0..count {
        let name = format!("{:x}-{}", samples.run, numbers.next());
        let command = match inputs {
            Inputs::Test => test(&name),
            Inputs::None | Inputs::Shared => shell("echo > out", &name, &["out"]),
        };
        let command = put(&mut blobs, &command);
        let action = put(&mut blobs, &action(command, root.clone()));
        requests.push(frame(&execute_request(target, action)));
    }
    upload(target, blobs.into_iter()).await?;
    Ok(requests)
}

type Blobs = Vec<(reapi::Digest, Bytes)>;

fn put(blobs: &mut Blobs, message: &impl Message) -> reapi::Digest {
    let (digest, data) = sample::encode(message);
    blobs.push((digest.clone(), data));
    digest
}

fn shell(script: &str, name: &str, outputs: &[&str]) -> reapi::Command {
    reapi::Command {
        arguments: ["/bin/sh", "-c", script, name].map(str::to_owned).into(),
        output_paths: outputs.iter().map(|&path| path.to_owned()).collect(),
        environment_variables: vec![reapi::command::EnvironmentVariable {
            name: "PATH".to_owned(),
            value: "/usr/bin:/bin".to_owned(),
        }],
        ..Default::default()
    }
}

/// How many tests there are: every action is another attempt at one of them.
const TESTS: u64 = 100;

fn test(name: &str) -> reapi::Command {
    let case = |n: u32| format!("<testcase classname=\"Suite\" name=\"case_{n}\" time=\"0.01\"/>");
    let cases: String = (0..10).map(case).collect();
    let script =
        format!("echo > out; echo '<testsuite name=\"Suite\">{cases}</testsuite>' > test.xml");
    let mut command = shell(&script, name, &["out", "test.xml"]);
    let number = name.bytes().fold(0, |sum: u64, byte| sum * 31 % TESTS + u64::from(byte)) % TESTS;
    let variables = [
        ("TEST_TARGET", format!("//load:test_{number}")),
        ("XML_OUTPUT_FILE", "test.xml".to_owned()),
    ];
    let variables = variables
        .map(|(name, value)| reapi::command::EnvironmentVariable { name: name.to_owned(), value });
    command.environment_variables.extend(variables);
    command
}

fn action(command: reapi::Digest, root: reapi::Digest) -> reapi::Action {
    reapi::Action {
        command_digest: Some(command),
        input_root_digest: Some(root),
        timeout: Some(protobuf::Duration { seconds: TIMEOUT, nanos: 0 }),
        ..Default::default()
    }
}

fn execute_request(target: &Target, action: reapi::Digest) -> reapi::ExecuteRequest {
    reapi::ExecuteRequest {
        instance_name: target.instance.to_string(),
        action_digest: Some(action),
        ..Default::default()
    }
}

fn shared_root(blobs: &mut Blobs) -> reapi::Digest {
    let pattern = sample::Pattern::new(FILE_SIZE);
    let directories = (0..DIRECTORIES).map(|n| {
        let files = (0..FILES).map(|m| {
            let key = sample::Key { run: 0, index: n * FILES + m };
            let digest = pattern.digest(key);
            blobs.push((digest.clone(), pattern.blob(key)));
            reapi::FileNode {
                name: format!("file{m:03}.h"),
                digest: Some(digest),
                ..Default::default()
            }
        });
        let directory = reapi::Directory { files: files.collect(), ..Default::default() };
        reapi::DirectoryNode { name: format!("dir{n:03}"), digest: Some(put(blobs, &directory)) }
    });
    let root = reapi::Directory { directories: directories.collect(), ..Default::default() };
    put(blobs, &root)
}

/// One executed action with three files and a standard output, as a hit to look up.
pub async fn executed_hit(target: &Target, samples: &Samples) -> Result<Hits, CallError> {
    let mut blobs = Vec::new();
    let root = put(&mut blobs, &reapi::Directory::default());
    let script = "for f in a b c; do echo $f > $f; done; echo done";
    let name = format!("{:x}-hit", samples.run);
    let command = put(&mut blobs, &shell(script, &name, &["a", "b", "c"]));
    let action = put(&mut blobs, &action(command, root));
    upload(target, blobs.into_iter()).await?;
    let mut channel = target.channel();
    let request = frame(&execute_request(target, action.clone()));
    let operations = channel.server_stream(&channel.rpc(EXECUTE)?, request).await?;
    let expected = response_of(operations)?.result.unwrap_or_default();
    if expected.output_files.len() != 3 {
        return Err(CallError::wrong("the action's result does not name its three outputs"));
    }
    Ok(Hits { actions: vec![action], expected })
}
