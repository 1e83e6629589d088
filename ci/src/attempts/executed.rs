//! What an executed action says of a test: nothing, unless it was a run of one.
//!
//! Bazel runs a test as one action for each run, shard and attempt, and says in its environment what it is.
//! Beside these it executes actions that look like tests and are none: one that writes a report for a runner
//! that wrote none, one that merges coverage. Buck2 says nothing in the environment; its tests are known by
//! where their outputs lie, and a listing of cases is no run.

use std::collections::HashMap;
use std::time::Duration;

use super::{Attempt, BlobName, Failure, Known, Slot, name};
use crate::flakes::{Identity, Run, seed};
use crate::model::{Outcome, TestKey, Time, run_in};

/// What Bazel calls the outputs of its tests, whatever directory they are in.
const EXITED_PREMATURELY: &str = "test.exited_prematurely";
const INFRASTRUCTURE_FAILURE: &str = "test.infrastructure_failure";
const LOG: &str = "test.log";

/// The oldest Bazel that fails a sharded test whose runner did not say that it knows of shards.
const CHECKS_SHARDING: u32 = 7;

/// How an execution ended, as the scheduler knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The execution has a result, with this exit code.
    Exited(i32),
    /// The time of the execution was over.
    TimedOut,
    /// The execution was stopped since nobody waited for it any more.
    Cancelled,
    /// A worker was lost, inputs were missing, memory ran out: nothing that the test did.
    Infrastructure,
}

/// An output that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFile {
    pub path: String,
    pub blob: BlobName,
}

/// Which part of a run an execution was, where the server ran the test over several workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The number of the part, counted from 1.
    pub number: u32,
    pub count: u32,
}

/// An action that was executed, or whose request was answered by another one's execution.
#[derive(Clone, Debug)]
pub struct Execution<'a> {
    pub instance: &'a str,
    /// Unique for each request.
    pub id: &'a str,
    pub is_merged: bool,
    /// `None`: the client asked for it as it is.
    pub part: Option<Part>,
    pub invocation: &'a str,
    /// What the client says in the metadata of its requests; each may be empty.
    pub target: &'a str,
    pub mnemonic: &'a str,
    pub configuration: &'a str,
    pub tool: &'a str,
    pub tool_version: &'a str,
    pub worker: &'a str,
    pub action: BlobName,
    pub argv: &'a [String],
    pub environment: &'a [(String, String)],
    pub working_directory: &'a str,
    /// The digest of the input root as `hash/size`.
    pub input_root: &'a str,
    pub platform: &'a [(String, String)],
    /// Paths that the command promises.
    pub declared: &'a [String],
    pub outputs: &'a [OutputFile],
    /// What the command printed, where that was kept as a blob.
    pub stdout: Option<BlobName>,
    pub ending: Ending,
    /// When the worker began with it, when the action itself ran, and how long.
    pub leased: Time,
    pub run_start: Time,
    pub run: Option<Duration>,
}

/// Why an action is no run of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotATest {
    /// The action does not look like a run of a test.
    Other,
    /// The action writes a report for a test runner that wrote none.
    WritesXml,
    /// The action merges what was covered.
    Coverage,
    /// The action lists cases, and runs none.
    Listing,
    /// Nobody waited for the execution to end.
    Cancelled,
}

/// The attempt that an execution was. Its cases are in the report among its outputs: [`super::add_cases`].
pub fn derive(it: &Execution<'_>) -> Result<Attempt, NotATest> {
    let environment: HashMap<&str, &str> =
        it.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let kind = kind(it, &environment)?;
    if it.ending == Ending::Cancelled {
        return Err(NotATest::Cancelled);
    }
    let label = match kind {
        Kind::Bazel(label) if it.target.is_empty() => label,
        _ => it.target,
    };
    let test = TestKey {
        instance: name(it.instance),
        label: name(label),
        configuration: name(it.configuration),
    };
    let number = |name: &str| environment.get(name).and_then(|it| it.parse::<u32>().ok());
    let sharded = number("TEST_TOTAL_SHARDS").unwrap_or(1).max(1);
    // The environment counts shards from 0.
    let index = if sharded > 1 { number("TEST_SHARD_INDEX").unwrap_or(0) } else { 0 };
    let own = Part { number: index.saturating_add(1), count: sharded };
    // A part that is told its cases by a filter has no shard in its environment.
    let Part { number: shard, count: shards } = it.part.unwrap_or(own);
    let run = number("TEST_RUN_NUMBER")
        .or_else(|| run_in(environment.get("XML_OUTPUT_FILE")?))
        .unwrap_or(1)
        .max(1);
    let slot = Slot { run, shard, attempt: 0 };
    let (outcome, why) = outcome(it, &kind, &environment, shards);
    let log = it.outputs.iter().find(|output| file_name(&output.path) == LOG);
    let log = log.map(|output| output.blob.clone()).or_else(|| it.stdout.clone());
    let mut known = if it.is_merged { Known::MERGED } else { Known::EXECUTED };
    if it.part.is_some() {
        known |= Known::PART;
    }
    Ok(Attempt {
        shards,
        execution: execution(it.id),
        outcome,
        started: it.run_start,
        duration: it.run,
        set_up: (it.leased.0 > 0).then(|| it.run_start.since(it.leased)),
        worker: name(it.worker),
        action: Some(it.action.clone()),
        identity: Some(identity(it)),
        seed: seed(it.environment).map(name),
        log: log.filter(|_| is_failure(outcome)),
        failure: why.and_then(Failure::of),
        ..Attempt::new(test, it.invocation, slot, known)
    })
}

/// Whether the log of an attempt with this outcome is worth keeping.
pub(super) fn is_failure(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Failed | Outcome::TimedOut)
}

enum Kind<'a> {
    /// Bazel runs a test, with the label that the environment names.
    Bazel(&'a str),
    Buck2,
}

fn kind<'a>(
    it: &Execution<'_>,
    environment: &HashMap<&str, &'a str>,
) -> Result<Kind<'a>, NotATest> {
    let set = |name: &str| environment.get(name).copied().filter(|value| !value.is_empty());
    if let (Some(label), Some(_)) = (set("TEST_TARGET"), set("XML_OUTPUT_FILE")) {
        return if set("IS_COVERAGE_SPAWN") == Some("1") {
            Err(NotATest::Coverage)
        } else if writes_xml(it.argv) {
            Err(NotATest::WritesXml)
        } else {
            Ok(Kind::Bazel(label))
        };
    }
    let stages: Vec<_> = it.declared.iter().filter_map(|path| buck2_test(path)).collect();
    match stages.contains(&"execution") {
        true => Ok(Kind::Buck2),
        false if stages.is_empty() => Err(NotATest::Other),
        false => Err(NotATest::Listing),
    }
}

/// `generate-xml.sh LOG XML SECONDS EXIT_CODE`, by whatever name the tool goes.
fn writes_xml(argv: &[String]) -> bool {
    let Some(program) = argv.first() else { return false };
    let [.., log, xml, seconds, code] = argv else { return false };
    let is_tool = file_name(program).starts_with("generate-xml")
        || file_name(program).starts_with("generate_xml")
        || file_name(program).starts_with("xml_writer");
    let is_number = |text: &str| text.parse::<f64>().is_ok();
    is_tool
        || (log.ends_with(".log") && xml.ends_with(".xml") && is_number(seconds) && is_number(code))
}

/// What is behind `test/` in the path of an output of Buck2: `execution`, or the name of another stage.
fn buck2_test(path: &str) -> Option<&str> {
    let (_, rest) = path.split_once("buck-out/")?;
    let mut parts = rest.split('/').skip(1);
    (parts.next()? == "test").then(|| parts.next()).flatten()
}

/// An exit code of 0 can still be a failure, and another one that of the machine.
fn outcome(
    it: &Execution<'_>,
    kind: &Kind<'_>,
    environment: &HashMap<&str, &str>,
    shards: u32,
) -> (Outcome, Option<&'static str>) {
    let has = |name: &str| it.outputs.iter().any(|output| file_name(&output.path) == name);
    let touched = || match environment.get("TEST_SHARD_STATUS_FILE") {
        Some(path) => has(file_name(path)),
        None => true,
    };
    match it.ending {
        Ending::Infrastructure | Ending::Cancelled => (Outcome::Infrastructure, None),
        Ending::TimedOut => (Outcome::TimedOut, None),
        Ending::Exited(_) if has(INFRASTRUCTURE_FAILURE) => (Outcome::Infrastructure, None),
        Ending::Exited(0) if has(EXITED_PREMATURELY) => {
            (Outcome::Failed, Some("the test exited before it was done, with exit code 0"))
        }
        Ending::Exited(0)
            if matches!(kind, Kind::Bazel(_))
                && shards > 1
                // Whoever makes parts looks after the runners that ignore shards: such a test runs whole.
                && it.part.is_none()
                && checks_sharding(it)
                && !touched() =>
        {
            (
                Outcome::Failed,
                Some("the runner does not know of shards: TEST_SHARD_STATUS_FILE is untouched"),
            )
        }
        Ending::Exited(0) => (Outcome::Passed, None),
        Ending::Exited(_) => (Outcome::Failed, None),
    }
}

/// Older ones let such a test pass, and a version that nobody says is taken for a newer one.
fn checks_sharding(it: &Execution<'_>) -> bool {
    let major = it.tool_version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    it.tool != "bazel" || major.is_none_or(|major| major >= CHECKS_SHARDING)
}

fn identity(it: &Execution<'_>) -> Identity {
    Identity::of(&Run {
        argv: it.argv,
        environment: it.environment,
        working_directory: it.working_directory,
        input_root: it.input_root,
        platform: it.platform,
    })
}

/// A number for the id of a request; never 0.
fn execution(id: &str) -> u64 {
    let hash = blake3::hash(id.as_bytes());
    let mut short = [0; 8];
    short.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(short).max(1)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
#[path = "executed_tests.rs"]
mod tests;
