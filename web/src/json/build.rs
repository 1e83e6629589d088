//! One build: the executions of an invocation, in sums.

use std::borrow::Cow;

use kiln_scheduler::journal::{BuildSummary, Counts};
use kiln_scheduler::snapshot::OperationView;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cursor::cursor;
use super::queue::Operation;
use super::told::Told;
use crate::progress::Progress;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Builds {
    /// The one that began last first.
    pub builds: Vec<Build>,
    pub next_before: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Build {
    pub invocation_id: String,
    /// Place of its first execution in the journal: `before=` of the next page.
    pub cursor: String,
    pub correlated_invocations_id: String,
    pub tool_name: String,
    pub tool_version: String,
    pub instance_name: String,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub first_at: i64,
    /// When the last answer to the build went out.
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub last_at: i64,
    /// `running`: something runs or waits; `idle`; `cancelled`: so ended the last of it; `lost`:
    /// the server that knew what was open is gone. A server is never told that a build ends.
    pub state: Cow<'static, str>,
    /// Requests of the build that wait or run.
    pub open: u64,
    /// Requests of the build that will never end.
    pub lost: u64,
    pub targets: u64,
    #[serde(flatten)]
    pub counts: BuildCounts,
    pub mnemonics: Vec<Mnemonic>,
    /// Operations of the build that run or wait, the oldest first; filled only where one build was asked for.
    #[serde(default)]
    pub operations: Vec<Running>,
    /// What the build told of itself by build events; only where one build was asked for, and absent where it told
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Told>,
}

/// An action that runs or waits.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Running {
    #[serde(flatten)]
    #[schemars(with = "Operation")]
    pub operation: OperationView,
    /// Whether a worker has the operation; otherwise it waits.
    pub is_running: bool,
    /// The end of what it has printed so far, stderr after stdout.
    pub output: String,
    /// Why no worker can take it; `null` where one can.
    pub lacking: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct BuildCounts {
    /// Requests that a worker ran.
    pub executed: u64,
    pub cache_hits: u64,
    pub merged: u64,
    /// Ended with an error without having been at a worker.
    #[serde(default)]
    pub refused: u64,
    /// Looked up in vain, and not executed here: the client ran them itself, or is about to ask.
    #[serde(default)]
    pub ran_at_client: u64,
    /// Executed, merged and refused requests that failed.
    pub failed: u64,
    #[serde(default)]
    pub cancelled: u64,
    /// Nanoseconds that these requests waited for a worker, in sum; of a build, with those that still wait.
    pub queue_ns: u64,
    /// Nanoseconds that workers ran these requests, in sum; of a build, with those that still run.
    pub run_ns: u64,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Mnemonic {
    pub mnemonic: String,
    #[serde(flatten)]
    pub counts: BuildCounts,
}

impl From<&Counts> for BuildCounts {
    fn from(counts: &Counts) -> Self {
        Self {
            executed: counts.executed,
            cache_hits: counts.hits,
            merged: counts.merged,
            refused: counts.refused,
            ran_at_client: counts.ran_at_client(),
            failed: counts.failed,
            cancelled: counts.cancelled,
            queue_ns: counts.queue_ns,
            run_ns: counts.run_ns,
        }
    }
}

impl Build {
    pub fn new(build: &BuildSummary, progress: Progress) -> Self {
        let mnemonic = |m: &kiln_scheduler::journal::MnemonicCounts| Mnemonic {
            mnemonic: m.mnemonic.clone(),
            counts: BuildCounts::from(&m.counts),
        };
        let mut counts = BuildCounts::from(&build.counts);
        counts.queue_ns = counts.queue_ns.saturating_add(progress.queue_ns);
        counts.run_ns = counts.run_ns.saturating_add(progress.run_ns);
        Self {
            invocation_id: build.invocation_id.clone(),
            cursor: cursor(build.first_seq),
            correlated_invocations_id: build.correlated_invocations_id.clone(),
            tool_name: build.tool_name.clone(),
            tool_version: build.tool_version.clone(),
            instance_name: build.instance_name.clone(),
            first_at: build.first_at,
            last_at: build.last_at,
            state: progress.state.name().into(),
            open: progress.open,
            lost: progress.lost,
            targets: build.targets,
            counts,
            mnemonics: build.mnemonics.iter().map(mnemonic).collect(),
            operations: Vec::new(),
            told: None,
        }
    }
}
