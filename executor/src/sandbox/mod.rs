//! Runs one command in isolation.
//!
//! A [`Slot`] owns a zygote: a small single-threaded process that was started before the
//! server grew, and that makes namespaces, mounts and the process for each action.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`config`](SlotConfig) | what a slot is given |
//! | `slot`, `pump` | the server's side: starts the zygote, runs actions, streams their output |
//! | `wire`, `channel` | messages and file descriptors between the two |
//! | `signals` | what the server hears of them |
//! | `cgroup` | limits for memory, processes and cpu, version 1 and 2 |
//! | `slot::tool` | a process that stays for further requests, and what it says |
//! | `zygote` | everything that happens in the other process: namespaces, mounts, init, exec |

mod capabilities;
mod cgroup;
mod channel;
mod conditions;
mod config;
mod error;
mod pidfd;
mod probe;
mod pump;
mod signals;
mod slot;
mod wire;
mod zygote;

pub use capabilities::Capabilities;
pub use conditions::{Condition, Conditions, NotChanged};
pub use config::{SlotConfig, UpperDir, UserNamespace};
pub use error::SandboxError;
pub use probe::probe;
pub use signals::own_signals;
pub use slot::{LONGEST_TIMEOUT, Slot, Tool, ToolEvent};
pub use wire::Withdrawal;
pub use zygote::zygote_main;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::libc;
use serde::{Deserialize, Serialize};

/// The root file system of an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootFs {
    /// The machine's /usr, /bin, /lib* and a minimal /etc, read-only.
    Host,
    /// Nothing but the declared inputs.
    Empty,
    /// An unpacked image, read-only.
    Directory(#[serde(with = "wire::octets::path")] PathBuf),
    /// The input root is `/` itself, with /dev, /proc and /tmp mounted in it.
    Inputs,
}

/// One command and its limits. Paths are inside the sandbox unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandSpec {
    #[serde(with = "wire::octets::list")]
    pub arguments: Vec<Vec<u8>>,
    #[serde(with = "wire::octets::pairs")]
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// The working directory, relative to the input root; it exists in `lower` or among
    /// `directories`.
    pub working_directory: String,
    /// Read-only trees on this machine that make up the input root, uppermost first. Empty: no inputs.
    #[serde(with = "wire::octets::list")]
    pub lower: Vec<PathBuf>,
    /// Directories to create in the input root before the start (parents of outputs).
    pub directories: Vec<String>,
    /// Directories among the inputs, relative to the input root, in which the action may change files in
    /// place. Elsewhere it can only put others where they are.
    pub writable: Vec<String>,
    pub root: RootFs,
    /// Whether the action has the machine's network, and not one of its own with loopback only.
    pub network: bool,
    pub timeout: Duration,
    pub limits: Limits,
    /// The conditions that are to be other than usual.
    pub conditions: Conditions,
}

/// The limits of one action; `None` in a field: no limit of this kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub memory_bytes: Option<u64>,
    pub processes: Option<u32>,
    /// Bytes that the action may write in its input root and /tmp together.
    pub disk_bytes: Option<u64>,
    /// Bytes of stdout and of stderr that are kept. An action that prints [`FLOOD`] times as many in all
    /// is killed.
    pub output_bytes: Option<u64>,
    /// Processor time per second, in thousandths of a core.
    pub cpu_millis: Option<u32>,
}

/// An action that prints so many times what is kept of it is taken for one that would not end.
pub const FLOOD: u64 = 16;

/// Which of the two streams a chunk of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    Stdout,
    Stderr,
}

/// The input root's path inside the sandbox: the same for every action, so that it may appear in outputs.
/// With [`RootFs::Inputs`] it is `/`.
pub const EXEC_ROOT: &str = "/kiln/root";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    Exited(i32),
    Signalled(i32),
    TimedOut,
    Cancelled,
    /// The action failed because of a limit: `limit` says which, what it was, and what to do. The
    /// exit code is the action's own where it ended by itself.
    OverLimit {
        limit: String,
        exit_code: i32,
    },
    /// The action ended well, but its outcome cannot be used; the text says why.
    Unusable(String),
}

/// Exit code of an action that ran into its timeout, as with timeout(1).
pub const TIMED_OUT_EXIT_CODE: i32 = 124;
/// Exit code of an action that did not fail by itself, and failed all the same.
pub const UNUSABLE_EXIT_CODE: i32 = 1;
/// Added to the number of the signal that ended an action, as shells do.
const SIGNAL_EXIT_CODE: i32 = 128;

impl Ending {
    /// The ending of an action that was killed for a limit, which the text names.
    pub(crate) fn killed(limit: String) -> Self {
        Self::OverLimit { limit, exit_code: SIGNAL_EXIT_CODE + libc::SIGKILL }
    }

    /// The exit code that a shell would report for this ending.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Exited(code) | Self::OverLimit { exit_code: code, .. } => *code,
            Self::Signalled(signal) => SIGNAL_EXIT_CODE + signal,
            Self::TimedOut => TIMED_OUT_EXIT_CODE,
            Self::Cancelled => SIGNAL_EXIT_CODE + libc::SIGKILL,
            Self::Unusable(_) => UNUSABLE_EXIT_CODE,
        }
    }
}

/// How a command ended, and what it left.
#[derive(Debug)]
pub struct Finished {
    pub ending: Ending,
    pub usage: Usage,
    /// The conditions of `CommandSpec::conditions` that stayed as usual, each with the reason.
    pub not_changed: Vec<NotChanged>,
    /// The input root with the action's changes, open for path lookups on this machine (`openat2` beneath
    /// it). Valid until the slot's next run.
    pub root: OwnedFd,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub user: Duration,
    pub system: Duration,
    pub peak_memory_bytes: u64,
}
