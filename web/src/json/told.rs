//! What builds told of themselves by build events.

use std::collections::BTreeMap;

use kiln_ci::events::{FileRef, Summary, TargetOutcome, TestRun, View};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::suite::{millis, nanos};

/// Targets, runs of tests and failed actions in an answer, each.
const MAX_LISTED: usize = 2000;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Invocations {
    /// The one that began last first.
    pub invocations: Vec<Invocation>,
    /// `before=` of the next page; null at the end.
    pub next_before: Option<String>,
}

/// A build in short, as it told of itself.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Invocation {
    pub invocation_id: String,
    pub instance_name: String,
    /// The command of the build tool: `build`, `test` and so on.
    pub command: String,
    pub patterns: Vec<String>,
    pub user: Option<String>,
    pub host: Option<String>,
    pub branch: Option<String>,
    pub commit: Option<String>,
    pub repository: Option<String>,
    /// When the build began, by the client's clock, as is the end.
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub started_at: i64,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub finished_at: i64,
    /// The exit code of the build tool; null while the build goes on, and where its end was never told.
    pub exit_code: Option<i32>,
    /// The name that the build tool gives the exit code, such as `TESTS_FAILED`; null while there is none.
    pub exit_name: Option<String>,
    pub is_complete: bool,
    pub targets: u64,
    pub failed_targets: u64,
    pub tests: u64,
    pub failed_tests: u64,
    pub first_failure: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Told {
    #[serde(flatten)]
    pub invocation: Invocation,
    /// How many events the build told, and (`events_left_out`) how many of these were too many to be kept.
    pub events: u64,
    pub events_left_out: u64,
    pub command_line: Vec<String>,
    pub explicit_options: Vec<String>,
    pub metadata: BTreeMap<String, String>,
    pub workspace_status: BTreeMap<String, String>,
    /// What became of targets, in the order in which they were announced, at most 2,000.
    pub target_outcomes: Vec<ToldTarget>,
    /// Attempts of tests, at most 2,000.
    pub test_runs: Vec<ToldTest>,
    pub failed_actions: Vec<ToldAction>,
    pub logs: Vec<ToldFile>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ToldTarget {
    pub label: String,
    pub configuration: String,
    /// What became of the target: `pending`, `built`, `failed`, `skipped` or `aborted`.
    #[schemars(with = "String")]
    pub outcome: TargetOutcome,
    pub kind: String,
    pub why: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ToldTest {
    pub label: String,
    pub configuration: String,
    pub run: u32,
    pub shard: u32,
    pub attempt: u32,
    /// How the attempt ended, as the build tool names it: `passed`, `failed`, `timeout` and so on.
    pub status: String,
    pub is_cached: bool,
    pub duration_ms: Option<u64>,
    pub files: Vec<ToldFile>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ToldAction {
    pub label: String,
    pub mnemonic: String,
    pub exit_code: i32,
    pub logs: Vec<ToldFile>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ToldFile {
    pub name: String,
    /// The digest of the file; null where it is not in this server's store.
    pub digest: Option<Digest>,
}

impl From<&Summary> for Invocation {
    fn from(it: &Summary) -> Self {
        let exit = it.exit_code.clone();
        Self {
            invocation_id: it.stream.invocation.clone(),
            instance_name: it.stream.instance.clone(),
            command: it.command.clone(),
            patterns: it.patterns.clone(),
            user: it.origin.user.clone(),
            host: it.origin.host.clone(),
            branch: it.origin.branch.clone(),
            commit: it.origin.commit.clone(),
            repository: it.origin.repository.clone(),
            started_at: it.started.map_or(0, nanos),
            finished_at: it.finished.map_or(0, nanos),
            exit_code: exit.as_ref().map(|(code, _)| *code),
            exit_name: exit.map(|(_, name)| name).filter(|name| !name.is_empty()),
            is_complete: it.is_complete,
            targets: it.targets,
            failed_targets: it.failed_targets,
            tests: it.tests,
            failed_tests: it.failed_tests,
            first_failure: it.first_failure.clone(),
        }
    }
}

impl Told {
    pub fn new(noted: &Summary, view: &View) -> Self {
        let facts = view.build.known();
        let summary = Summary::of(&noted.stream, facts);
        let targets = facts.targets.iter().take(MAX_LISTED).map(|(key, it)| ToldTarget {
            label: key.label.clone(),
            configuration: key.configuration.clone(),
            outcome: it.outcome,
            kind: it.kind.clone(),
            why: it.why.clone(),
        });
        let runs = view.results.runs.iter().take(MAX_LISTED);
        let actions = facts.failed_actions.iter().map(|it| ToldAction {
            label: it.label.clone(),
            mnemonic: it.mnemonic.clone(),
            exit_code: it.exit_code,
            logs: it.logs.iter().map(ToldFile::from).collect(),
        });
        Self {
            invocation: Invocation::from(summary.as_ref().unwrap_or(noted)),
            events: facts.events,
            events_left_out: facts.left_out.events,
            command_line: facts.options.command_line.clone(),
            explicit_options: facts.options.explicit.clone(),
            metadata: facts.metadata.clone(),
            workspace_status: facts.workspace_status.clone(),
            target_outcomes: targets.collect(),
            test_runs: runs.map(|(key, run)| test(&key.label, &key.configuration, run)).collect(),
            failed_actions: actions.collect(),
            logs: facts.logs.iter().map(ToldFile::from).collect(),
        }
    }
}

fn test(label: &str, configuration: &str, run: &TestRun) -> ToldTest {
    ToldTest {
        label: label.to_owned(),
        configuration: configuration.to_owned(),
        run: run.slot.run,
        shard: run.slot.shard,
        attempt: run.slot.attempt,
        status: run.status.clone(),
        is_cached: run.is_cached,
        duration_ms: run.took.map(millis),
        files: run.files.iter().map(ToldFile::from).collect(),
    }
}

impl From<&FileRef> for ToldFile {
    fn from(file: &FileRef) -> Self {
        Self { name: file.name.clone(), digest: file.blob.as_ref().map(Digest::from) }
    }
}
