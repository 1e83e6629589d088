//! What is kept of an action that ran, and of a result that somebody wrote.

use std::collections::BTreeSet;

use kiln_cas::Digest;

use crate::resource::DigestSet;

/// How a result came into the action cache. A hit is no record of its own: it leads to the one of the execution that
/// made the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionRecord {
    /// Unique among all records of a store.
    pub id: String,
    pub instance: String,
    /// The invocation that asked for it first.
    pub invocation: String,
    /// What the client says in its requests; each may be empty.
    pub target: String,
    pub mnemonic: String,
    pub configuration: String,
    pub action: Digest,
    pub outputs: Vec<Output>,
    pub origin: Origin,
    /// Nanoseconds since the Unix epoch, by the clock of the server: when it was given to a worker, or
    /// written, and when its result was there.
    pub started: i64,
    pub finished: i64,
}

/// Who made a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A worker of this server ran the action.
    Ran(Box<Run>),
    /// A client wrote the result. Nothing of what it says was seen here.
    Wrote(Written),
}

/// An execution, as far as provenance tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub command: Digest,
    pub input_root: Digest,
    pub worker: String,
    /// The container image that the action ran in, as `sha256:…`; empty without one.
    pub image: String,
    /// Platform properties, as the client asked for them.
    pub platform: Vec<(String, String)>,
    pub sandbox: Sandbox,
    pub exit_code: i32,
}

/// A result that a client wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Who it was, as far as the server knows: a name of a token, a certificate, or `anonymous`.
    pub by: String,
}

/// A file or a tree that an action left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The path relative to the input root.
    pub path: String,
    /// The digest of the file, or of the root directory of a tree.
    pub digest: Digest,
    pub is_tree: bool,
}

/// What kept an action apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    pub root: RootFileSystem,
    pub enforced: BTreeSet<Mechanism>,
}

/// What an action saw beside its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootFileSystem {
    /// The action saw nothing but its inputs.
    Inputs,
    /// A container image that is named by its digest.
    Image,
    /// The machine's own programs and libraries, which no digest names.
    Host,
}

/// Something that the sandbox enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mechanism {
    /// The action had processes of its own: it sees no others, and none outlives it.
    Processes,
    /// The action had mounts of its own, inputs read-only among them.
    Mounts,
    NoNetwork,
    /// A user of its own, without rights outside.
    User,
    /// A filter of system calls.
    SystemCalls,
    Memory,
    ProcessCount,
    Cpu,
}

impl Mechanism {
    /// The word for the mechanism in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Processes => "processes",
            Self::Mounts => "mounts",
            Self::NoNetwork => "no-network",
            Self::User => "user",
            Self::SystemCalls => "system-calls",
            Self::Memory => "memory",
            Self::ProcessCount => "process-count",
            Self::Cpu => "cpu",
        }
    }
}

impl RootFileSystem {
    /// The word for the file system in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inputs => "inputs",
            Self::Image => "image",
            Self::Host => "host",
        }
    }
}

impl Sandbox {
    /// What an action needs so that no other one that runs at the same time can change what it does.
    pub const ISOLATION: [Mechanism; 4] =
        [Mechanism::Processes, Mechanism::Mounts, Mechanism::NoNetwork, Mechanism::User];

    /// What of the isolation was not enforced.
    pub fn missing(&self) -> impl Iterator<Item = Mechanism> {
        Self::ISOLATION.into_iter().filter(|it| !self.enforced.contains(it))
    }
}

/// A digest as in-toto writes it.
pub fn digest_set(digest: &Digest) -> DigestSet {
    DigestSet::from([(digest.function.to_string(), digest.hex())])
}
