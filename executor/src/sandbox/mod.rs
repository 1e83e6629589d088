//! Runs one command in isolation.
//!
//! A [`Slot`] owns a zygote: a small single-threaded process that was started before the
//! server grew, and that makes namespaces, mounts and the process for each action.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

/// What the root file system of an action is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootFs {
    /// The machine's /usr, /bin, /lib* and a minimal /etc, read-only.
    Host,
    /// Nothing but the declared inputs.
    Empty,
    /// An unpacked image, read-only.
    Directory(PathBuf),
}

/// One command and its limits. Paths are inside the sandbox unless said otherwise.
#[derive(Debug, Clone)]
pub struct CommandSpec {
    pub arguments: Vec<Vec<u8>>,
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// Relative to the input root; it exists in `lower` or among `directories`.
    pub working_directory: String,
    /// On this machine: read-only trees that make up the input root, uppermost first. Empty: no inputs.
    pub lower: Vec<PathBuf>,
    /// Directories to create in the input root before the start (parents of outputs).
    pub directories: Vec<String>,
    pub root: RootFs,
    /// A network of its own with loopback only, or the machine's.
    pub network: bool,
    pub timeout: Duration,
    pub limits: Limits,
}

/// `None`: no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    pub memory_bytes: Option<u64>,
    pub processes: Option<u32>,
    /// Bytes that the action may write in its input root and /tmp together.
    pub disk_bytes: Option<u64>,
    /// Bytes of stdout and stderr together, beyond which the action is killed.
    pub output_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    Exited(i32),
    Signalled(i32),
    TimedOut,
    Cancelled,
    /// Killed for a limit; the text says which, and what it was.
    OverLimit(String),
}

/// How a command ended, and what it left.
#[derive(Debug)]
pub struct Finished {
    pub ending: Ending,
    pub usage: Usage,
    /// On this machine, open for path lookups (`openat2` beneath it): the input root with the
    /// action's changes. Valid until the slot's next run.
    pub root: OwnedFd,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub user: Duration,
    pub system: Duration,
    pub peak_memory_bytes: u64,
}
