//! What the event of an execution says of a test, once it is read what was asked for.

use std::time::Duration;

use kiln_protos::events::execution::Origin;
use kiln_protos::events::{self, Timeline};
use kiln_protos::reapi::{ActionResult, Command, OutputFile as WireFile};
use prost::Message;
use tonic::Code;

use super::report::Reader;
use crate::attempts::{Attempt, BlobName, Ending, Execution, OutputFile, Part, derive};
use crate::model::Time;

/// Bytes of a Command that is read: more than one may have.
const MAX_COMMAND: u64 = 64 << 20;

/// What Bazel calls the action of a test.
const TEST_RUNNER: &str = "TestRunner";
const REPORT: &str = "test.xml";

/// Whether the execution may have been a run of a test: what it was asked to run tells for sure.
pub fn may_be_a_test(event: &events::Execution) -> bool {
    let has_run = matches!(event.origin(), Origin::Executed | Origin::Merged);
    let is_named = event.tool_name == "bazel" && !event.mnemonic.is_empty();
    has_run && !event.cancelled && (!is_named || event.mnemonic == TEST_RUNNER)
}

/// The attempt that it was, with its cases; nothing when it was none.
pub async fn attempt(reader: &Reader, event: &events::Execution) -> Option<Attempt> {
    let named = blob(event.command.as_ref()?);
    let bytes = reader.fetch(event.digest_function, &named, MAX_COMMAND).await?;
    let command = Command::decode(bytes).ok()?;
    let mut result = ActionResult::decode(&event.action_result[..]).unwrap_or_default();
    let files = std::mem::take(&mut result.output_files);
    let outputs: Vec<_> = files.into_iter().filter_map(output).collect();
    let attempt = derive_from(event, command, &result, &outputs)?;
    let report = outputs.iter().find(|it| it.path.rsplit('/').next() == Some(REPORT));
    match report.filter(|_| event.origin() == Origin::Executed) {
        Some(report) => Some(reader.with_cases(attempt, event.digest_function, &report.blob).await),
        None => Some(attempt),
    }
}

fn derive_from(
    event: &events::Execution,
    mut command: Command,
    result: &ActionResult,
    outputs: &[OutputFile],
) -> Option<Attempt> {
    let variables = std::mem::take(&mut command.environment_variables).into_iter();
    let environment: Vec<_> = variables.map(|it| (it.name, it.value)).collect();
    let platform = event.platform.iter().map(|it| (it.name.clone(), it.value.clone()));
    let platform: Vec<_> = platform.collect();
    let input_root = event.input_root.as_ref().map(blob);
    let times = event.timeline.unwrap_or_default();
    let declared = declared(&mut command);
    let execution = Execution {
        instance: &event.instance_name,
        id: &event.id,
        is_merged: event.origin() == Origin::Merged,
        part: part(event),
        invocation: &event.invocation_id,
        target: &event.target_id,
        mnemonic: &event.mnemonic,
        configuration: &event.configuration_id,
        tool: &event.tool_name,
        tool_version: &event.tool_version,
        worker: &event.worker,
        action: event.action.as_ref().map(blob)?,
        argv: &command.arguments,
        environment: &environment,
        working_directory: &command.working_directory,
        input_root: &input_root.map(|it| format!("{}/{}", it.hash, it.size)).unwrap_or_default(),
        platform: &platform,
        declared: &declared,
        outputs,
        stdout: result.stdout_digest.as_ref().and_then(wire_blob),
        ending: ending(event),
        leased: time(times.leased),
        run_start: started(&times),
        run: ran(&times),
    };
    derive(&execution).ok()
}

/// The number 0 says that the execution is the whole.
fn part(event: &events::Execution) -> Option<Part> {
    let shard = event.shard.as_ref().filter(|shard| shard.number > 0)?;
    Some(Part { number: shard.number, count: shard.count })
}

#[expect(deprecated, reason = "older clients name their outputs in these fields alone")]
fn declared(command: &mut Command) -> Vec<String> {
    let Command { output_paths, output_files, output_directories, .. } = command;
    [output_paths, output_files, output_directories].into_iter().flat_map(std::mem::take).collect()
}

fn ending(event: &events::Execution) -> Ending {
    match Code::from_i32(event.status_code) {
        _ if event.cancelled => Ending::Cancelled,
        Code::Ok => Ending::Exited(event.exit_code),
        Code::DeadlineExceeded => Ending::TimedOut,
        _ => Ending::Infrastructure,
    }
}

/// An execution that never got as far as running its action has a time all the same.
fn started(times: &Timeline) -> Time {
    let known = [times.run_start, times.leased, times.finished, times.received];
    known.into_iter().map(time).find(|it| it.0 > 0).unwrap_or_default()
}

fn ran(times: &Timeline) -> Option<Duration> {
    let ran = times.run_end.checked_sub(times.run_start).filter(|_| times.run_start > 0)?;
    u64::try_from(ran).ok().map(Duration::from_nanos)
}

fn time(nanos: i64) -> Time {
    Time(u64::try_from(nanos / 1_000_000).unwrap_or(0))
}

fn blob(digest: &events::Digest) -> BlobName {
    BlobName { hash: digest.hash.clone(), size: u64::try_from(digest.size_bytes).unwrap_or(0) }
}

fn wire_blob(digest: &kiln_protos::reapi::Digest) -> Option<BlobName> {
    let size = u64::try_from(digest.size_bytes).ok().filter(|size| *size > 0)?;
    Some(BlobName { hash: digest.hash.clone(), size })
}

fn output(file: WireFile) -> Option<OutputFile> {
    let digest = file.digest?;
    let size = u64::try_from(digest.size_bytes).ok()?;
    Some(OutputFile { path: file.path, blob: BlobName { hash: digest.hash, size } })
}
