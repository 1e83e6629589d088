use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Whether actions run in a user namespace of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum UserNamespace {
    /// Actions have one where the kernel allows it; without one only root can isolate at all.
    #[default]
    Auto,
    Always,
    /// Actions have none, for which the server has to be root.
    Never,
}

/// Whether what an action writes is kept in memory or on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum UpperDir {
    /// Writes stay in memory: fast, and limited by `Limits::disk_bytes`; their pages count against the action's
    /// memory.
    #[default]
    Tmpfs,
    /// Writes go to `SlotConfig::scratch_dir`, for large outputs. Only each single file is limited.
    Disk,
}

/// The settings of a slot. All paths are this machine's.
#[derive(Debug, Clone)]
pub struct SlotConfig {
    /// A name that no other slot of the server has, of letters, digits, `-` and `_`. Its cgroups have it too.
    pub name: String,
    /// A directory of this slot alone on a disk; created if missing. Used with [`UpperDir::Disk`].
    pub scratch_dir: PathBuf,
    /// The command line that starts the zygote: a program whose `main` calls
    /// [`zygote_main`](super::zygote_main) first.
    pub zygote_command: Vec<OsString>,
    pub user_namespace: UserNamespace,
    /// The user and group, outside of the sandbox, of the slot's actions when the server is
    /// root; give each slot its own. An ordinary user's actions run as that user.
    pub outer_id: u32,
    /// Directories beneath which all `CommandSpec::lower` lie, and nothing but the server's own files: an
    /// action sees them as its own. Naming them makes actions start faster than the default, the whole
    /// file system.
    pub input_dirs: Vec<PathBuf>,
    /// Directories beneath which all trees of images lie; these stay root's.
    pub image_dirs: Vec<PathBuf>,
    /// Directories and files that no action may see, wherever they lie. Of a file its directory is
    /// hidden, unless that holds programs.
    pub hidden: Vec<PathBuf>,
    pub upper: UpperDir,
    /// The time between SIGTERM and SIGKILL at a timeout or cancellation.
    pub grace: Duration,
    /// Most open files of one process of an action.
    pub open_files: u64,
}

impl Default for SlotConfig {
    fn default() -> Self {
        Self {
            name: "0".to_owned(),
            scratch_dir: std::env::temp_dir().join("kiln-scratch"),
            zygote_command: vec!["/proc/self/exe".into(), "sandbox-zygote".into()],
            user_namespace: UserNamespace::Auto,
            outer_id: 61_000,
            input_dirs: Vec::new(),
            image_dirs: Vec::new(),
            hidden: Vec::new(),
            upper: UpperDir::Tmpfs,
            grace: Duration::from_secs(1),
            open_files: 16_384,
        }
    }
}
