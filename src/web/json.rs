//! Executions and builds as JSON. Times are nanoseconds since the Unix epoch, 0 where a step
//! did not happen; durations say their unit in their names.

use kiln_protos::events::execution::Origin;
use kiln_protos::{events, reapi};
use kiln_scheduler::journal::{BuildSummary, Counts, Entry};
use prost::Message;
use serde::Serialize;

#[derive(Serialize)]
pub struct Digest {
    hash: String,
    size_bytes: i64,
}

impl From<&events::Digest> for Digest {
    fn from(digest: &events::Digest) -> Self {
        Self { hash: digest.hash.clone(), size_bytes: digest.size_bytes }
    }
}

impl From<&reapi::Digest> for Digest {
    fn from(digest: &reapi::Digest) -> Self {
        Self { hash: digest.hash.clone(), size_bytes: digest.size_bytes }
    }
}

#[derive(Serialize)]
pub struct Execution {
    pub id: String,
    /// Place in the journal: `before=` of the next page.
    pub cursor: String,
    pub instance_name: String,
    /// `executed`, `cache_hit`, `merged`.
    pub origin: &'static str,
    /// `sha256`, `blake3`.
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
    /// `google.rpc.Code`.
    pub status_code: i32,
    pub status_message: String,
    pub exit_code: i32,
    pub timeline: Timeline,
    pub do_not_cache: bool,
    pub skip_cache_lookup: bool,
    pub platform: Vec<Property>,
    /// 0: unknown.
    pub expected_ms: u64,
    pub result: Option<ActionResult>,
}

#[derive(Serialize)]
pub struct Property {
    name: String,
    value: String,
}

/// Nanoseconds since the Unix epoch.
#[derive(Serialize)]
pub struct Timeline {
    received: i64,
    queued: i64,
    leased: i64,
    input_fetch_start: i64,
    input_fetch_end: i64,
    run_start: i64,
    run_end: i64,
    upload_start: i64,
    upload_end: i64,
    finished: i64,
}

#[derive(Serialize)]
pub struct ActionResult {
    output_files: Vec<OutputFile>,
    output_directories: Vec<OutputDirectory>,
    output_symlinks: Vec<OutputSymlink>,
    stdout_digest: Option<Digest>,
    stderr_digest: Option<Digest>,
    exit_code: i32,
}

#[derive(Serialize)]
struct OutputFile {
    path: String,
    digest: Option<Digest>,
    is_executable: bool,
}

#[derive(Serialize)]
struct OutputDirectory {
    path: String,
    tree_digest: Option<Digest>,
}

#[derive(Serialize)]
struct OutputSymlink {
    path: String,
    target: String,
}

pub fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Executed => "executed",
        Origin::CacheHit => "cache_hit",
        Origin::Merged => "merged",
        Origin::Unspecified => "unspecified",
    }
}

impl From<&Entry> for Execution {
    fn from(entry: &Entry) -> Self {
        let run = &*entry.execution;
        let function = kiln_cas::DigestFunction::from_wire(run.digest_function);
        Self {
            id: run.id.clone(),
            cursor: cursor(entry.seq),
            instance_name: run.instance_name.clone(),
            origin: origin(run.origin()),
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
            exit_code: run.exit_code,
            timeline: Timeline::from(&run.timeline.unwrap_or_default()),
            do_not_cache: run.do_not_cache,
            skip_cache_lookup: run.skip_cache_lookup,
            platform: run.platform.iter().map(Property::from).collect(),
            expected_ms: run.expected_ms,
            result: result(run),
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

impl From<&events::Property> for Property {
    fn from(property: &events::Property) -> Self {
        Self { name: property.name.clone(), value: property.value.clone() }
    }
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

#[derive(Serialize)]
pub struct Build {
    pub invocation_id: String,
    /// Place of its first execution in the journal: `before=` of the next page.
    pub cursor: String,
    pub correlated_invocations_id: String,
    pub tool_name: String,
    pub tool_version: String,
    pub instance_name: String,
    /// Nanoseconds since the Unix epoch.
    pub first_at: i64,
    pub last_at: i64,
    pub targets: u64,
    #[serde(flatten)]
    pub counts: BuildCounts,
    pub mnemonics: Vec<Mnemonic>,
}

#[derive(Serialize)]
pub struct BuildCounts {
    pub executed: u64,
    pub cache_hits: u64,
    pub merged: u64,
    pub failed: u64,
    pub queue_ns: u64,
    pub run_ns: u64,
}

#[derive(Serialize)]
pub struct Mnemonic {
    mnemonic: String,
    #[serde(flatten)]
    counts: BuildCounts,
}

impl From<&Counts> for BuildCounts {
    fn from(counts: &Counts) -> Self {
        Self {
            executed: counts.executed,
            cache_hits: counts.hits,
            merged: counts.merged,
            failed: counts.failed,
            queue_ns: counts.queue_ns,
            run_ns: counts.run_ns,
        }
    }
}

impl From<&BuildSummary> for Build {
    fn from(build: &BuildSummary) -> Self {
        let mnemonic = |m: &kiln_scheduler::journal::MnemonicCounts| Mnemonic {
            mnemonic: m.mnemonic.clone(),
            counts: BuildCounts::from(&m.counts),
        };
        Self {
            invocation_id: build.invocation_id.clone(),
            cursor: cursor(build.first_seq),
            correlated_invocations_id: build.correlated_invocations_id.clone(),
            tool_name: build.tool_name.clone(),
            tool_version: build.tool_version.clone(),
            instance_name: build.instance_name.clone(),
            first_at: build.first_at,
            last_at: build.last_at,
            targets: build.targets,
            counts: BuildCounts::from(&build.counts),
            mnemonics: build.mnemonics.iter().map(mnemonic).collect(),
        }
    }
}

/// A place in the journal: text, because it does not fit into a JavaScript number.
pub fn cursor(seq: u64) -> String {
    format!("{seq:016x}")
}

pub fn parse_cursor(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}
