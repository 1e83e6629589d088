//! One execution.

use std::borrow::Cow;

use kiln_protos::events::execution::Origin;
use kiln_protos::{events, reapi};
use kiln_scheduler::journal::{Class, JournalEntry, STAGES, Stage, between};
use prost::Message;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cursor::cursor;
use super::digest::{Digest, Property};

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Executions {
    /// Executions, newest first.
    pub executions: Vec<Execution>,
    /// `before=` of the next page; null at the end.
    pub next_before: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Execution {
    pub id: String,
    /// Place in the journal: `before=` of the next page.
    pub cursor: String,
    pub instance_name: String,
    /// `executed`, `cache_hit`, `merged`; `refused`: it ended without having been at a worker.
    pub origin: Cow<'static, str>,
    /// The digest function of all digests here: `sha256` or `blake3`.
    pub digest_function: String,
    pub action: Option<Digest>,
    pub command: Option<Digest>,
    pub input_root: Option<Digest>,
    pub invocation_id: String,
    pub correlated_invocations_id: String,
    pub target_id: String,
    pub mnemonic: String,
    pub configuration_id: String,
    pub tool_name: String,
    pub tool_version: String,
    pub worker: String,
    pub attempts: u32,
    /// The code of the execution's status, one of `google.rpc.Code`.
    pub status_code: i32,
    pub status_message: String,
    /// The exit code of the command; `null`: the execution has no result.
    pub exit_code: Option<i32>,
    /// Stopped because it was cancelled, or because no client waited for it any more.
    #[serde(default)]
    pub cancelled: bool,
    pub timeline: Timeline,
    pub do_not_cache: bool,
    pub skip_cache_lookup: bool,
    pub platform: Vec<Property>,
    /// Milliseconds that it was expected to run, learned from other targets of its mnemonic where it had not run
    /// itself; 0: unknown.
    pub expected_ms: u64,
    pub result: Option<ActionResult>,
    /// Which part of an action that was run in parts this is, or that it is the whole of one; `null`: neither.
    #[serde(default)]
    pub shard: Option<Shard>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Shard {
    /// Counted from 1; 0: the whole, put together from all of them.
    pub number: u32,
    pub count: u32,
    /// The digest of the action that this one is a part of; `null` for the whole.
    pub whole: Option<Digest>,
}

impl Shard {
    /// The shard in words, such as `shard 2 of 5`.
    pub fn words(&self) -> String {
        match (self.number, self.count) {
            (0, count) => format!("put together from {count} shards"),
            (number, count) => format!("shard {number} of {count}"),
        }
    }
}

impl From<&events::Shard> for Shard {
    fn from(shard: &events::Shard) -> Self {
        let whole = shard.whole.as_ref().map(Digest::from);
        Self { number: shard.number, count: shard.count, whole }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Timeline {
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub received: i64,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub queued: i64,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub leased: i64,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub input_fetch_start: i64,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub input_fetch_end: i64,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub run_start: i64,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub run_end: i64,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub upload_start: i64,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub upload_end: i64,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub finished: i64,
}

impl Timeline {
    /// Nanoseconds that the command ran.
    pub fn run_ns(&self) -> u64 {
        u64::try_from(self.run_end.saturating_sub(self.run_start)).unwrap_or(0)
    }

    /// What the time went into: name and nanoseconds, in order. Empty when the action cache
    /// answered.
    pub fn stages(&self) -> Vec<(&'static str, u64)> {
        let timeline = events::Timeline::from(self);
        let stage = |stage: Stage| {
            let (start, end) = stage.span_of_finished(&timeline)?;
            Some((stage.words(), between(start, end)))
        };
        STAGES.into_iter().filter_map(stage).collect()
    }

    /// Nanoseconds from the request to the answer.
    pub fn total_ns(&self) -> u64 {
        u64::try_from(self.finished.saturating_sub(self.received)).unwrap_or(0)
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ActionResult {
    pub output_files: Vec<OutputFile>,
    pub output_directories: Vec<OutputDirectory>,
    pub output_symlinks: Vec<OutputSymlink>,
    pub stdout_digest: Option<Digest>,
    pub stderr_digest: Option<Digest>,
    pub exit_code: i32,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct OutputFile {
    pub path: String,
    pub digest: Option<Digest>,
    pub is_executable: bool,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct OutputDirectory {
    pub path: String,
    pub tree_digest: Option<Digest>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct OutputSymlink {
    pub path: String,
    pub target: String,
}

/// Where the answer came from, as the API names it. What was cancelled keeps the origin that it would have had.
fn origin(run: &events::Execution) -> &'static str {
    match (Class::of(run), run.origin()) {
        (Class::Refused, _) => "refused",
        (_, Origin::Executed) => "executed",
        (_, Origin::CacheHit) => "cache_hit",
        (_, Origin::Merged) => "merged",
        (_, Origin::Unspecified) => "unspecified",
    }
}

/// An error has no exit code, unless there is a result beside it; a result that is too large is not kept.
fn exit_code(run: &events::Execution) -> Option<i32> {
    let has_result = run.status_code == 0 || run.exit_code != 0 || !run.action_result.is_empty();
    has_result.then_some(run.exit_code)
}

impl From<&JournalEntry> for Execution {
    fn from(entry: &JournalEntry) -> Self {
        let run = &*entry.execution;
        let function = kiln_cas::DigestFunction::from_wire(run.digest_function);
        Self {
            id: run.id.clone(),
            cursor: cursor(entry.seq),
            instance_name: run.instance_name.clone(),
            origin: Cow::Borrowed(origin(run)),
            digest_function: function.map(|f| f.to_string()).unwrap_or_default(),
            action: run.action.as_ref().map(Digest::from),
            command: run.command.as_ref().map(Digest::from),
            input_root: run.input_root.as_ref().map(Digest::from),
            invocation_id: run.invocation_id.clone(),
            correlated_invocations_id: run.correlated_invocations_id.clone(),
            target_id: run.target_id.clone(),
            mnemonic: run.mnemonic.clone(),
            configuration_id: run.configuration_id.clone(),
            tool_name: run.tool_name.clone(),
            tool_version: run.tool_version.clone(),
            worker: run.worker.clone(),
            attempts: run.attempts,
            status_code: run.status_code,
            status_message: run.status_message.clone(),
            exit_code: exit_code(run),
            cancelled: run.cancelled,
            timeline: Timeline::from(&run.timeline.unwrap_or_default()),
            do_not_cache: run.do_not_cache,
            skip_cache_lookup: run.skip_cache_lookup,
            platform: run.platform.iter().map(Property::from).collect(),
            expected_ms: run.expected_ms,
            result: result(run),
            shard: run.shard.as_ref().map(Shard::from),
        }
    }
}

fn result(run: &events::Execution) -> Option<ActionResult> {
    if run.action_result.is_empty() {
        return None;
    }
    let result = reapi::ActionResult::decode(run.action_result.clone()).ok()?;
    Some(ActionResult::from(&result))
}

impl From<&events::Timeline> for Timeline {
    fn from(t: &events::Timeline) -> Self {
        Self {
            received: t.received,
            queued: t.queued,
            leased: t.leased,
            input_fetch_start: t.input_fetch_start,
            input_fetch_end: t.input_fetch_end,
            run_start: t.run_start,
            run_end: t.run_end,
            upload_start: t.upload_start,
            upload_end: t.upload_end,
            finished: t.finished,
        }
    }
}

impl From<&Timeline> for events::Timeline {
    fn from(t: &Timeline) -> Self {
        Self {
            received: t.received,
            queued: t.queued,
            leased: t.leased,
            input_fetch_start: t.input_fetch_start,
            input_fetch_end: t.input_fetch_end,
            run_start: t.run_start,
            run_end: t.run_end,
            upload_start: t.upload_start,
            upload_end: t.upload_end,
            finished: t.finished,
        }
    }
}

impl From<&reapi::ActionResult> for ActionResult {
    fn from(result: &reapi::ActionResult) -> Self {
        let file = |file: &reapi::OutputFile| OutputFile {
            path: file.path.clone(),
            digest: file.digest.as_ref().map(Digest::from),
            is_executable: file.is_executable,
        };
        let directory = |directory: &reapi::OutputDirectory| OutputDirectory {
            path: directory.path.clone(),
            tree_digest: directory.tree_digest.as_ref().map(Digest::from),
        };
        let symlink = |link: &reapi::OutputSymlink| OutputSymlink {
            path: link.path.clone(),
            target: link.target.clone(),
        };
        Self {
            output_files: result.output_files.iter().map(file).collect(),
            output_directories: result.output_directories.iter().map(directory).collect(),
            output_symlinks: result.output_symlinks.iter().map(symlink).collect(),
            stdout_digest: result.stdout_digest.as_ref().map(Digest::from),
            stderr_digest: result.stderr_digest.as_ref().map(Digest::from),
            exit_code: result.exit_code,
        }
    }
}
