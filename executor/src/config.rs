//! What a worker is told at its start.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kiln_cas::stores::Premises;

use crate::images::ImagesConfig;
use crate::input_root::{CacheLimits, InputLimits};
use crate::outputs::OutputLimits;
use crate::persistent::PersistentConfig;
use crate::sandbox::{Limits, RootFs, UpperDir};
use crate::status::Observer;

/// The default for how long running actions go on without a scheduler: longer than a restart of a
/// server takes, and than a balancer needs to notice one.
pub const DEFAULT_ABSENCE: Duration = Duration::from_secs(60);

/// How much of the sandbox must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SandboxMode {
    /// Refuses to start when the machine cannot enforce something.
    Required,
    /// Uses what the machine has, and says at start-up what is not enforced.
    #[default]
    BestEffort,
}

#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Unique for a worker process; named in every result.
    pub worker_id: String,
    pub host_name: String,
    /// Actions that run at the same time, at least 1.
    pub slots: u32,
    /// Platform properties that this worker offers.
    pub properties: Vec<(String, String)>,
    /// The directory for input roots and temporary files; on the same file system as the store's
    /// blobs where hard links are to work. Only one worker process may use it.
    pub work_dir: PathBuf,
    pub sandbox: SandboxMode,
    /// Directories and files of this machine that no action may see, besides `work_dir`.
    pub hidden: Vec<PathBuf>,
    /// The root of actions where neither they nor this worker's `properties` name a `kiln-root`.
    pub root_fs: RootFs,
    /// Whether `kiln-network: true` is granted.
    pub allow_network: bool,
    /// Limits of each action; `kiln-memory` may lower the memory limit.
    pub limits: Limits,
    pub input: InputLimits,
    pub outputs: OutputLimits,
    /// Limits of the local cache of input roots.
    pub cache: CacheLimits,
    /// The store under whose limit that cache is; `None`: it has a limit of its own only.
    pub premises: Option<Premises>,
    /// Which images actions may name as their root, and where they come from.
    pub images: ImagesConfig,
    /// Tools that stay between actions.
    pub persistent: PersistentConfig,
    /// Whether what an action writes is kept in memory or on disk.
    pub upper: UpperDir,
    /// How long running actions may go on after the shutdown was asked for.
    pub drain_timeout: Duration,
    /// How long running actions may go on after the scheduler has asked the worker to drain;
    /// `None`: for `drain_timeout`.
    pub asked_drain_timeout: Option<Duration>,
    /// How long running actions, and transfers of blobs, go on while no server is heard.
    pub absence: Duration,
    /// Program and arguments that end in `sandbox::zygote_main`; empty: this program with the
    /// sandbox's own argument.
    pub zygote_command: Vec<OsString>,
    pub observer: Option<Arc<dyn Observer>>,
}

impl WorkerConfig {
    /// A configuration with defaults for all but the name, the place and the number of actions at a time.
    pub fn new(worker_id: impl Into<String>, work_dir: impl Into<PathBuf>, slots: u32) -> Self {
        Self {
            worker_id: worker_id.into(),
            host_name: host_name(),
            slots: slots.max(1),
            properties: Vec::new(),
            work_dir: work_dir.into(),
            sandbox: SandboxMode::default(),
            hidden: Vec::new(),
            root_fs: RootFs::Host,
            allow_network: true,
            limits: default_limits(machine_memory(), slots.max(1)),
            input: InputLimits::default(),
            outputs: OutputLimits::default(),
            cache: CacheLimits::default(),
            premises: None,
            images: ImagesConfig::default(),
            persistent: PersistentConfig::of_slots(slots.max(1)),
            upper: UpperDir::default(),
            drain_timeout: Duration::from_secs(30),
            asked_drain_timeout: None,
            absence: DEFAULT_ABSENCE,
            zygote_command: Vec::new(),
            observer: None,
        }
    }
}

/// The limits of an action where none are configured. `machine`: bytes of memory; `None`: unknown,
/// and so no memory limit. One action cannot take the machine down: it gets its share of four
/// fifths of the memory, but not less than 4 GiB where half the machine is more. Files that it
/// writes count as well.
fn default_limits(machine: Option<u64>, slots: u32) -> Limits {
    let memory = machine.map(|machine| {
        let share = machine / 5 * 4 / u64::from(slots);
        share.max((4 << 30).min(machine / 2))
    });
    Limits {
        memory_bytes: memory,
        processes: Some(4_096),
        disk_bytes: Some(memory.unwrap_or(4 << 30)),
        output_bytes: Some(128 << 20),
        cpu_millis: None,
    }
}

/// Memory of this machine in bytes; `None` where /proc does not tell.
pub fn machine_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared_between_slots_with_a_floor() {
        let of = |machine: u64, slots| default_limits(Some(machine << 30), slots).memory_bytes;
        assert_eq!(of(20, 2), Some(8 << 30));
        assert_eq!(of(20, 100), Some(4 << 30));
        assert_eq!(of(2, 2), Some(1 << 30));
        assert_eq!(default_limits(None, 2).memory_bytes, None);
        assert!(machine_memory().is_some());
    }
}
