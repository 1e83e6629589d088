//! What a stage is, once its file was read and its matrix is laid out: nothing in it is a pattern any more, but for values of
//! stages before it (`${stages.build.release}`), which are put in when it starts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest pause between two attempts, unless the first one is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// Which ends of the stages before it let a stage begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// All of them passed, or were left out by their conditions.
    #[default]
    Success,
    /// At least one of the stages before it failed.
    Failure,
    /// All of them have ended, however they did.
    Always,
}

/// What has to be so of a run for a stage to be part of it. Each list that is not empty has to have one entry that fits; `*` stands
/// for any characters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Condition {
    pub trigger: Vec<String>,
    pub branch: Vec<String>,
    /// Parameters of the run, each with the values that fit.
    pub input: BTreeMap<String, Vec<String>>,
}

/// The ends after which an attempt is followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// Another attempt follows ends that say nothing of what was run.
    #[default]
    Infrastructure,
    /// Another attempt follows failures as well.
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Attempts after the first one.
    pub again: u32,
    /// The pause before the second attempt; twice as long before each further one, up to an hour.
    #[serde(with = "millis")]
    pub backoff: Duration,
    pub on: RetryOn,
}

impl Retry {
    /// How long is waited after an attempt; the first one is 1.
    pub fn pause(&self, attempt: u32) -> Duration {
        let twice = 1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        self.backoff.saturating_mul(twice).min(LONGEST_PAUSE.max(self.backoff))
    }
}

/// One stage, or one cell of its matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// `build`; of a matrix `test (os=linux, rust=1.94)`.
    pub name: String,
    /// The name of the stage in the file.
    pub group: String,
    /// The cell of its matrix; empty where it has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub matrix: BTreeMap<String, String>,
    /// Indexes of the stages that have to end before it begins; in order, each once.
    pub needs: Vec<u32>,
    pub on: On,
    /// Why the stage is left out of this run, since its condition does not hold, in words; `None`: it is part of the
    /// run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
    pub retry: Retry,
    /// The longest time of one attempt.
    #[serde(with = "millis")]
    pub timeout: Duration,
    /// Whether its failure neither makes the run fail nor keeps what needs it from beginning.
    #[serde(default)]
    pub may_fail: bool,
    pub work: Work,
}

/// What a stage does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    Command(Command),
    /// A command whose outputs may be released.
    Build(Command),
    /// A command whose reports of tests are taken into the history.
    Test(Command),
    Release(Release),
    Promote(Promotion),
    Rollout(Rollout),
    /// People approve; nothing is run.
    Approve(Approval),
    Program(Listed),
    Preview(Preview),
    Wait(Waited),
}

/// The program that a command runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// A program with its arguments.
    Arguments(Vec<String>),
    /// Lines for `sh -eu`. No value is ever put into it: values are in its environment.
    Script(String),
}

/// A command, which runs as a sandboxed action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    pub program: Program,
    /// The directory in which the command runs, below the root of the sources; empty: the root itself.
    #[serde(default)]
    pub directory: String,
    /// A container image, as the platform property `container-image` names it.
    #[serde(default)]
    pub image: Option<String>,
    /// Platform properties: which workers may run it.
    #[serde(default)]
    pub platform: BTreeMap<String, String>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Variable -> the name of a secret that the server's configuration declares.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// Whether the command may reach the network. It does so only where the configuration allows it as well.
    #[serde(default)]
    pub network: bool,
    /// Paths that it leaves, files or directories, below `directory`.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// Names of stages before it whose outputs are laid over the sources.
    #[serde(default)]
    pub from: Vec<String>,
    /// JUnit reports among its outputs, of a test.
    #[serde(default)]
    pub reports: Vec<String>,
}

#[cfg(test)]
impl Command {
    /// A command that needs nothing and leaves nothing.
    pub fn plain(program: Program) -> Self {
        Self {
            program,
            directory: String::new(),
            image: None,
            platform: BTreeMap::new(),
            environment: BTreeMap::new(),
            secrets: BTreeMap::new(),
            network: false,
            outputs: Vec::new(),
            from: Vec::new(),
            reports: Vec::new(),
        }
    }
}

/// A release is made of what a stage left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Repository and version: `team/app:1.4.2`.
    pub name: String,
    /// The stage, a build.
    pub from: String,
    /// The outputs of the target that are released; empty: all.
    #[serde(default)]
    pub outputs: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    pub release: String,
    pub environment: String,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    pub release: String,
    pub environment: String,
    /// The text of a rollout's declaration (docs/rollouts.md).
    pub declaration: String,
    pub reason: String,
    /// What is being rolled out there is reverted first.
    #[serde(default)]
    pub supersede: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// How many people have to approve.
    pub count: u32,
    /// Accounts that may; empty: everybody who may release.
    #[serde(default)]
    pub by: Vec<String>,
    /// Whether the approval of whoever began the run counts as well.
    #[serde(default)]
    pub own: bool,
    /// What people are asked, in words.
    #[serde(default)]
    pub message: String,
}

/// A program that the server's operator lists. It runs on the server's side and gets the secrets that he says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub name: String,
    /// Arguments that follow those of the list, where the operator lets the program have some.
    #[serde(default)]
    pub arguments: Vec<String>,
}

/// An environment for one run, of a kind that the server's operator lists. Whatever happens, it does not outlive `keep`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// The kind of environment, by its name in the operator's list.
    pub environment: String,
    pub act: PreviewAct,
    /// How long the environment is kept, from when it is brought up on.
    #[serde(with = "millis")]
    pub keep: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreviewAct {
    /// Tells `preview`, its name, and `address`.
    Up,
    /// Asks whether the environment answers.
    Check,
    Down,
}

/// A build of somebody else, which is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waited {
    pub invocation: String,
    /// Whether the gate of tests has to be green as well.
    #[serde(default)]
    pub gate: bool,
}

impl Work {
    /// The kind of work, as files and pages call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Command(_) => "command",
            Self::Build(_) => "build",
            Self::Test(_) => "test",
            Self::Release(_) => "release",
            Self::Promote(_) => "promote",
            Self::Rollout(_) => "rollout",
            Self::Approve(_) => "approve",
            Self::Program(_) => "program",
            Self::Preview(_) => "preview",
            Self::Wait(_) => "wait",
        }
    }

    /// The command that the stage runs, if its work is one.
    pub fn command(&self) -> Option<&Command> {
        match self {
            Self::Command(command) | Self::Build(command) | Self::Test(command) => Some(command),
            _ => None,
        }
    }
}

/// Durations as whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}
