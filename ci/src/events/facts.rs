//! What a build was, as its own events say.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attempts::BlobName;
use crate::model::Time;

/// A file that an event names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileRef {
    /// The path of the file, or what it is (`test.log`).
    pub name: String,
    /// The address at which the client says that the file is: at this server, on its own disk, or anywhere.
    pub uri: String,
    /// The blob that the address names; `None`: it names none in the CAS.
    pub blob: Option<BlobName>,
    /// The path that a symbolic link leads to; `None`: it is a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// Whose build it was, and of which sources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub commit: Option<String>,
    pub branch: Option<String>,
    pub repository: Option<String>,
    pub user: Option<String>,
    pub host: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// What was given, as one command line.
    pub command_line: Vec<String>,
    /// What was given by hand, without rc files.
    pub explicit: Vec<String>,
    /// What counted in the end.
    pub effective: Vec<String>,
    pub startup: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    pub mnemonic: String,
    pub platform: String,
    pub cpu: String,
    pub is_tool: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TargetKey {
    pub label: String,
    pub configuration: String,
    /// The aspect that made something of the target; empty for the target itself.
    pub aspect: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetOutcome {
    #[default]
    Pending,
    Built,
    Failed,
    /// The target does not fit the platform, or was not asked for.
    Skipped,
    Aborted,
}

/// How the runs of a test came out, as the client sums them up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestTotals {
    /// How the test came out, in the protocol's words, lower case: `passed`, `flaky`, `timeout`, `failed`, ...
    pub status: String,
    pub runs: u32,
    pub shards: u32,
    pub attempts: u32,
    pub cached: u32,
    pub duration: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub kind: String,
    pub tags: Vec<String>,
    pub outcome: TargetOutcome,
    pub why: Option<String>,
    /// Output groups, and the sets of files that are in them.
    pub outputs: Vec<(String, Vec<String>)>,
    pub test: Option<TestTotals>,
}

/// An action that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedAction {
    pub label: String,
    pub configuration: String,
    pub mnemonic: String,
    pub exit_code: i32,
    pub output: String,
    pub logs: Vec<FileRef>,
}

/// Why an event that was announced never came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aborted {
    /// Why it was aborted, in the protocol's words, lower case.
    pub reason: String,
    pub description: String,
    /// The target, where it is about one.
    pub label: Option<String>,
}

/// What was too much to be kept. All of it is in the stream itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Events that are not kept, or for which there is no room in memory.
    #[serde(default)]
    pub events: u64,
    pub targets: u64,
    pub files: u64,
    pub actions: u64,
    pub attempts: u64,
    pub texts: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub invocation: String,
    pub command: String,
    pub tool_version: String,
    pub directory: String,
    pub started: Option<Time>,
    pub finished: Option<Time>,
    /// The exit code with its name, as `TESTS_FAILED`.
    pub exit_code: Option<(i32, String)>,
    pub options: Options,
    pub patterns: Vec<String>,
    pub origin: Origin,
    pub workspace_status: BTreeMap<String, String>,
    pub metadata: BTreeMap<String, String>,
    pub configurations: BTreeMap<String, Configuration>,
    pub targets: Vec<(TargetKey, Target)>,
    pub failed_actions: Vec<FailedAction>,
    pub aborted: Vec<Aborted>,
    /// What failed first: an action's label, a target's or a test's.
    pub first_failure: Option<String>,
    /// Results that were not run for this build.
    pub cached_tests: u64,
    /// The profile and other logs of the build tool.
    pub logs: Vec<FileRef>,
    /// The end of what was printed on the terminal.
    pub progress: String,
    pub progress_bytes: u64,
    pub events: u64,
    /// The build tool said that nothing more comes.
    pub is_complete: bool,
    pub left_out: LeftOut,
}

impl Origin {
    /// What people say of their build counts more than what a script found out.
    pub fn of(metadata: &BTreeMap<String, String>, status: &BTreeMap<String, String>) -> Self {
        let find = |keys: &[&str]| {
            let maps = [metadata, status].into_iter();
            let all = maps.flat_map(|map| keys.iter().filter_map(|key| map.get(*key)));
            all.map(|it| it.trim()).find(|it| !it.is_empty()).map(str::to_owned)
        };
        Self {
            commit: find(&[
                "COMMIT_SHA",
                "GIT_COMMIT",
                "STABLE_GIT_COMMIT",
                "STABLE_COMMIT_SHA",
                "BUILD_SCM_REVISION",
                "STABLE_SCM_REVISION",
                "GITHUB_SHA",
                "CI_COMMIT_SHA",
            ]),
            branch: find(&[
                "BRANCH_NAME",
                "GIT_BRANCH",
                "STABLE_GIT_BRANCH",
                "BUILD_SCM_BRANCH",
                "STABLE_SCM_BRANCH",
                "GITHUB_HEAD_REF",
                "GITHUB_REF_NAME",
                "CI_COMMIT_BRANCH",
            ]),
            repository: find(&["REPO_URL", "GIT_URL", "BUILD_SCM_REMOTE", "STABLE_REPO_URL"]),
            user: find(&["USER", "BUILD_USER", "STABLE_USER"]),
            host: find(&["HOST", "BUILD_HOST", "STABLE_HOST"]),
        }
    }
}

impl Facts {
    pub fn took(&self) -> Option<Duration> {
        Some(self.finished?.since(self.started?))
    }
}
