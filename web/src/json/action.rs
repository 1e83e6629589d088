//! One action with everything that is known of it, and how it differs from another.

use std::borrow::Cow;

use kiln_protos::reapi;
use kiln_scheduler::snapshot::OperationView;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::build::Running;
use super::digest::{Digest, Property};
use super::execution::{ActionResult, Execution};
use super::queue::Operation;

/// What is shown as the network of an action for which [`Action::ran_offline`] holds.
pub const NO_NETWORK: &str = "none; the property kiln-network=true asks for one";

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Action {
    /// The digest function of all digests here: `sha256` or `blake3`.
    pub digest_function: String,
    pub digest: Digest,
    pub instance_name: String,
    /// Address of the page that shows the same.
    pub page: String,
    /// The action cache holds a result under `instance_name`.
    pub is_cached: bool,
    pub timeout_seconds: Option<f64>,
    pub do_not_cache: bool,
    pub platform: Vec<Property>,
    /// The run failed, and had no network.
    #[serde(default)]
    pub ran_offline: bool,
    /// `null` when the store does not have it any more.
    pub command: Option<Command>,
    pub command_digest: Option<Digest>,
    pub input_root: Option<Digest>,
    /// What of the action could not be read, and why; empty where all could be.
    pub unreadable: Vec<String>,
    /// The run that was asked for, else the last one; of a test that failed first and succeeded
    /// in the same build, the one that failed. Absent for one that runs or waits.
    pub execution: Option<Execution>,
    /// The operation of the action that runs or waits, where that was asked for or nothing newer has ended; `null`
    /// otherwise.
    #[serde(default)]
    pub running: Option<Running>,
    /// Something to know about which run this is.
    #[serde(default)]
    pub remark: Option<String>,
    /// The result of the run that is shown, else the one in the action cache; `null` where there is neither.
    pub result: Option<ActionResult>,
    pub stdout: Option<Log>,
    pub stderr: Option<Log>,
    /// Why the run was not answered from the cache.
    pub explanation: Explanation,
    /// Runs of this action, newest first.
    pub runs: Vec<Execution>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Command {
    pub arguments: Vec<String>,
    pub environment_variables: Vec<Property>,
    pub working_directory: String,
    pub output_paths: Vec<String>,
}

/// What was found for a name that a user gave: executions and operations that it may mean.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Found {
    /// Executions that have ended, newest first.
    pub executions: Vec<Execution>,
    #[schemars(with = "Vec<Operation>")]
    pub operations: Vec<OperationView>,
}

/// The end of stdout or stderr.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Log {
    /// The text, with the control sequences that colour a terminal.
    pub text: String,
    /// The digest of the whole log; `null` where it is not stored as a blob.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// Bytes of the whole log, of which `text` may be only the end.
    pub size_bytes: u64,
    /// Whether the log has more than `text`.
    pub is_cut: bool,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// Why the action was not answered from the cache, a sentence each.
    pub reasons: Vec<String>,
    /// The digest of the action that was compared with this one; `null`: nothing was compared.
    pub before: Option<Digest>,
    pub after: Digest,
    /// The run that `before` is from, where the server chose it.
    pub before_execution: Option<Execution>,
    pub differences: Vec<Difference>,
    /// Whether there are more differences than are listed.
    pub is_cut: bool,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "InputDifference")]
pub struct Difference {
    /// `input`, `argument`, `environment variable`, `platform property`, `declared output`,
    /// `setting`.
    pub kind: Cow<'static, str>,
    /// Whether the thing was `changed`, `added` or `removed`.
    pub change: Cow<'static, str>,
    /// Empty for arguments and declared outputs.
    pub name: String,
    pub before: Option<String>,
    pub after: Option<String>,
    /// The lines that differ in a changed text file, as `diff -u` shows them; `null` for all else.
    #[serde(default)]
    pub text: Option<String>,
}

impl From<&reapi::Command> for Command {
    #[allow(deprecated)] // Older clients declare files and directories apart.
    fn from(command: &reapi::Command) -> Self {
        let variable = |variable: &reapi::command::EnvironmentVariable| Property {
            name: variable.name.clone(),
            value: variable.value.clone(),
        };
        Self {
            arguments: command.arguments.clone(),
            environment_variables: command.environment_variables.iter().map(variable).collect(),
            working_directory: command.working_directory.clone(),
            output_paths: [
                &command.output_paths[..],
                &command.output_files,
                &command.output_directories,
            ]
            .concat(),
        }
    }
}
