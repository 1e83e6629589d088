//! One action with everything that is known of it, and how it differs from another.

use std::borrow::Cow;

use kiln_protos::reapi;
use kiln_scheduler::snapshot::OperationView;
use serde::{Deserialize, Serialize};

use super::{ActionResult, Digest, Execution, Property, Running};
use crate::web::action::Loaded;
use crate::web::compare;
use crate::web::content::digest;
use crate::web::explain;
use crate::web::format::path_of;

#[derive(Debug, Serialize, Deserialize)]
pub struct Action {
    /// `sha256`, `blake3`.
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
    /// `null` when the store does not have it any more.
    pub command: Option<Command>,
    pub command_digest: Option<Digest>,
    pub input_root: Option<Digest>,
    /// What could not be read, and why.
    pub unreadable: Vec<String>,
    /// The run that was asked for, else the last one; of a test that failed first and succeeded
    /// in the same build, the one that failed. Absent for one that runs or waits.
    pub execution: Option<Execution>,
    /// It runs or waits, where that was asked for or nothing newer has ended.
    #[serde(default)]
    pub running: Option<Running>,
    /// Something to know about which run this is.
    #[serde(default)]
    pub remark: Option<String>,
    /// Of that run, else of the action cache.
    pub result: Option<ActionResult>,
    pub stdout: Option<Log>,
    pub stderr: Option<Log>,
    /// Why the run was not answered from the cache.
    pub explanation: Explanation,
    /// Runs of this action, newest first.
    pub runs: Vec<Execution>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Command {
    pub arguments: Vec<String>,
    pub environment_variables: Vec<Property>,
    pub working_directory: String,
    pub output_paths: Vec<String>,
}

/// What a name may mean.
#[derive(Debug, Serialize, Deserialize)]
pub struct Found {
    /// Newest first.
    pub executions: Vec<Execution>,
    pub operations: Vec<OperationView>,
}

/// The end of stdout or stderr.
#[derive(Debug, Serialize, Deserialize)]
pub struct Log {
    /// With the control sequences that colour a terminal.
    pub text: String,
    /// Of the whole; `null` where it is not stored as a blob.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// Bytes of the whole.
    pub size_bytes: u64,
    /// There is more than `text`.
    pub is_cut: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// In words.
    pub reasons: Vec<String>,
    /// `null`: nothing was compared.
    pub before: Option<Digest>,
    pub after: Digest,
    /// The run that `before` is from, where the server chose it.
    pub before_execution: Option<Execution>,
    pub differences: Vec<Difference>,
    /// There are more differences than are listed.
    pub is_cut: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Difference {
    /// `input`, `argument`, `environment variable`, `platform property`, `declared output`,
    /// `setting`.
    pub kind: Cow<'static, str>,
    /// `changed`, `added`, `removed`.
    pub change: Cow<'static, str>,
    /// Empty for arguments and declared outputs.
    pub name: String,
    pub before: Option<String>,
    pub after: Option<String>,
    /// Of a changed text file, its lines as `diff -u` shows them.
    #[serde(default)]
    pub text: Option<String>,
}

impl From<&kiln_cas::Digest> for Digest {
    fn from(digest: &kiln_cas::Digest) -> Self {
        Self::from(&digest.to_wire())
    }
}

impl Action {
    pub fn new(
        loaded: &Loaded,
        base_url: &str,
        logs: [Option<Log>; 2],
        running: Option<Running>,
        why: Explanation,
    ) -> Self {
        let action = loaded.action.as_ref().ok();
        let function = loaded.digest.function;
        let [stdout, stderr] = logs;
        let digest_of = |wire: Option<&reapi::Digest>| digest(wire, function).map(|d| (&d).into());
        let seconds =
            |d: &kiln_protos::protobuf::Duration| d.seconds as f64 + f64::from(d.nanos) / 1e9;
        Self {
            digest_function: function.to_string(),
            digest: (&loaded.digest).into(),
            instance_name: loaded.instance.clone(),
            page: format!("{base_url}/actions/{}", path_of(&loaded.digest)),
            is_cached: loaded.is_cached,
            timeout_seconds: action.and_then(|action| action.timeout.as_ref()).map(seconds),
            do_not_cache: action.is_some_and(|action| action.do_not_cache),
            platform: loaded.platform().iter().map(Property::from).collect(),
            command: loaded.command.as_ref().ok().map(Command::from),
            command_digest: action.and_then(|action| digest_of(action.command_digest.as_ref())),
            input_root: action.and_then(|action| digest_of(action.input_root_digest.as_ref())),
            unreadable: unreadable(loaded),
            execution: loaded.run.as_ref().map(Execution::from),
            running,
            remark: loaded.remark.map(str::to_owned),
            result: loaded.result.as_ref().map(ActionResult::from),
            stdout,
            stderr,
            explanation: why,
            runs: loaded.runs.iter().map(Execution::from).collect(),
        }
    }
}

/// A message that is gone is named once, not again by what hangs from it.
fn unreadable(loaded: &Loaded) -> Vec<String> {
    if let Err(error) = &loaded.action {
        return vec![format!("the action: {error}")];
    }
    let command = loaded.command.as_ref().err().map(|error| format!("the command: {error}"));
    let inputs = loaded.input_root.as_ref().err().map(|error| format!("the input root: {error}"));
    command.into_iter().chain(inputs).collect()
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

impl Explanation {
    pub fn new(
        found: &explain::Explanation,
        before: Option<&kiln_cas::Digest>,
        after: &kiln_cas::Digest,
    ) -> Self {
        let mut reasons: Vec<_> = found.reasons.iter().map(|&reason| reason.to_owned()).collect();
        if let Some(Err(error)) = &found.comparison {
            reasons.push(format!("They cannot be compared: {error}"));
        }
        let comparison = found.comparison.as_ref().and_then(|comparison| comparison.as_ref().ok());
        Self {
            reasons,
            before: before.map(Digest::from),
            after: after.into(),
            before_execution: found.earlier.as_ref().map(Execution::from),
            differences: found.differences().iter().map(Difference::from).collect(),
            is_cut: comparison.is_some_and(|comparison| comparison.is_cut),
        }
    }
}

impl From<&compare::Difference> for Difference {
    fn from(difference: &compare::Difference) -> Self {
        Self {
            kind: difference.kind.into(),
            change: difference.change().into(),
            name: difference.name.clone(),
            before: difference.before.clone(),
            after: difference.after.clone(),
            text: difference.text.clone(),
        }
    }
}
