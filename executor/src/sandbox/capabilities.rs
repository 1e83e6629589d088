//! Which of the sandbox's bounds a slot enforces on this machine.

use super::cgroup::Kind;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub user_namespace: bool,
    pub(super) not_enforced: Vec<String>,
    /// Limits for which there is no cgroup here.
    pub(super) lacking: Vec<Kind>,
}

impl Capabilities {
    pub fn limits_memory(&self) -> bool {
        !self.lacking.contains(&Kind::Memory)
    }

    pub fn limits_processes(&self) -> bool {
        !self.lacking.contains(&Kind::Pids)
    }

    pub fn limits_cpu(&self) -> bool {
        !self.lacking.contains(&Kind::Cpu)
    }

    /// One sentence for each thing that is not enforced, with the reason; empty: everything is
    /// enforced.
    pub fn not_enforced(&self) -> &[String] {
        &self.not_enforced
    }
}
