//! One build: the executions of an invocation, in sums.

use kiln_scheduler::journal::{BuildSummary, Counts};
use serde::{Deserialize, Serialize};

use super::cursor;

#[derive(Debug, Serialize, Deserialize)]
pub struct Builds {
    /// The one that began last first.
    pub builds: Vec<Build>,
    pub next_before: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
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

#[derive(Debug, Serialize, Deserialize)]
pub struct BuildCounts {
    pub executed: u64,
    pub cache_hits: u64,
    pub merged: u64,
    pub failed: u64,
    pub queue_ns: u64,
    pub run_ns: u64,
}

#[derive(Debug, Serialize, Deserialize)]
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
