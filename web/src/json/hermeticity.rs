//! What hermeticity checks found, for programs.

use kiln_protos::hermeticity::{self, Condition, Verdict, difference::Kind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::digest::Digest;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Checks {
    pub checks: Vec<Checked>,
}

/// An action that was run again under changed conditions, and what differed.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Checked {
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub at: i64,
    pub instance_name: String,
    pub action: Option<Digest>,
    /// The digest function of all digests here: `sha256` or `blake3`.
    #[serde(default)]
    pub digest_function: String,
    pub target: String,
    pub mnemonic: String,
    pub invocation: String,
    pub first_worker: String,
    pub worker: String,
    /// What the check found: `same`, `not_hermetic`, `not_deterministic` or `not_checked`.
    pub verdict: String,
    /// Conditions that differed, each of which makes a difference by itself.
    pub causes: Vec<String>,
    pub changed: Vec<String>,
    pub not_changed: Vec<NotChanged>,
    pub differences: Vec<Difference>,
    pub more_differences: u32,
    pub stdout_differs: bool,
    pub stderr_differs: bool,
    pub runs: u32,
    pub message: String,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct NotChanged {
    pub condition: String,
    pub reason: String,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// `content`, `missing`, `added`, `type` or `exit_code`
    pub kind: String,
    pub path: String,
    pub first: Option<Digest>,
    pub again: Option<Digest>,
    pub offset: Option<u64>,
    pub line: Option<u64>,
    pub first_text: String,
    pub again_text: String,
    pub hints: Vec<String>,
}

impl Checked {
    pub fn differs(&self) -> bool {
        matches!(self.verdict.as_str(), "not_hermetic" | "not_deterministic")
    }

    /// The verdict for people.
    pub fn summary(&self) -> String {
        match self.verdict.as_str() {
            "same" => "the same under changed conditions".to_owned(),
            "not_deterministic" => {
                "differs under the same conditions too: time, randomness or a race".to_owned()
            }
            "not_hermetic" if self.causes.is_empty() => {
                "differs when several conditions are changed together".to_owned()
            }
            "not_hermetic" => format!("depends on {}", self.causes.join(", ")),
            _ => format!("could not be run again: {}", self.message),
        }
    }
}

impl From<&hermeticity::Checked> for Checked {
    fn from(checked: &hermeticity::Checked) -> Self {
        let verdict = match checked.verdict() {
            Verdict::Same => "same",
            Verdict::NotHermetic => "not_hermetic",
            Verdict::NotDeterministic => "not_deterministic",
            Verdict::NotChecked | Verdict::Unspecified => "not_checked",
        };
        let function = kiln_cas::DigestFunction::from_wire(checked.digest_function);
        Self {
            at: checked.at,
            instance_name: checked.instance_name.clone(),
            action: checked.action.as_ref().map(Digest::from),
            digest_function: function.map(|function| function.to_string()).unwrap_or_default(),
            target: checked.target_id.clone(),
            mnemonic: checked.mnemonic.clone(),
            invocation: checked.invocation_id.clone(),
            first_worker: checked.first_worker.clone(),
            worker: checked.worker.clone(),
            verdict: verdict.to_owned(),
            causes: checked.causes().map(name).collect(),
            changed: checked.changed().map(name).collect(),
            not_changed: checked.not_changed.iter().map(NotChanged::from).collect(),
            differences: checked.differences.iter().map(Difference::from).collect(),
            more_differences: checked.more_differences,
            stdout_differs: checked.stdout_differs,
            stderr_differs: checked.stderr_differs,
            runs: checked.runs,
            message: checked.message.clone(),
        }
    }
}

impl From<&hermeticity::NotChanged> for NotChanged {
    fn from(not_changed: &hermeticity::NotChanged) -> Self {
        Self { condition: name(not_changed.condition()), reason: not_changed.reason.clone() }
    }
}

impl From<&hermeticity::Difference> for Difference {
    fn from(difference: &hermeticity::Difference) -> Self {
        let kind = match difference.kind() {
            Kind::Missing => "missing",
            Kind::Added => "added",
            Kind::Type => "type",
            Kind::ExitCode => "exit_code",
            Kind::Content | Kind::Unspecified => "content",
        };
        Self {
            kind: kind.to_owned(),
            path: difference.path.clone(),
            first: difference.first.as_ref().map(Digest::from),
            again: difference.again.as_ref().map(Digest::from),
            offset: difference.offset,
            line: difference.line,
            first_text: difference.first_text.clone(),
            again_text: difference.again_text.clone(),
            hints: difference.hints.clone(),
        }
    }
}

fn name(condition: Condition) -> String {
    let name = match condition {
        Condition::HostName => "host name",
        Condition::ProcessIds => "process numbers",
        Condition::Directory => "directory",
        Condition::Clock => "monotonic clock",
        Condition::Cpus => "number of processors",
        Condition::FileOrder => "file order",
        Condition::ModificationTimes => "modification times",
        Condition::User => "user",
        Condition::Unspecified => "unknown",
    };
    name.to_owned()
}
