//! Conditions on which an action should not depend: the hermeticity check changes them and runs the
//! action again.

use serde::{Deserialize, Serialize};

/// A condition under which an action runs, and which can be changed for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Condition {
    HostName,
    /// The numbers of the action's processes.
    ProcessIds,
    /// The path of the input root, as the action sees it.
    Directory,
    /// The time that `CLOCK_MONOTONIC` and `CLOCK_BOOTTIME` show; the kernel has no other wall
    /// clock for one process.
    Clock,
    /// The processors on which the action may run: only one, where this is changed.
    Cpus,
    /// The order in which directories of inputs list their entries, and the inode numbers of these.
    FileOrder,
    /// The modification times of the inputs.
    ModificationTimes,
    /// The numbers of the action's user and group.
    User,
}

impl Condition {
    pub const ALL: [Self; 8] = [
        Self::HostName,
        Self::ProcessIds,
        Self::Directory,
        Self::Clock,
        Self::Cpus,
        Self::FileOrder,
        Self::ModificationTimes,
        Self::User,
    ];

    fn bit(self) -> u64 {
        1 << (self as u32)
    }
}

/// A set of conditions that are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Conditions(u64);

impl Conditions {
    pub fn has(self, condition: Condition) -> bool {
        self.0 & condition.bit() != 0
    }

    #[must_use]
    pub fn without(self, condition: Condition) -> Self {
        Self(self.0 & !condition.bit())
    }

    /// Whether the action gets copies of its inputs.
    pub fn copies_inputs(self) -> bool {
        self.has(Condition::FileOrder) || self.has(Condition::ModificationTimes)
    }
}

impl FromIterator<Condition> for Conditions {
    fn from_iter<I: IntoIterator<Item = Condition>>(conditions: I) -> Self {
        Self(conditions.into_iter().fold(0, |bits, condition| bits | condition.bit()))
    }
}

/// A condition that stayed as it was, and why.
pub type NotChanged = (Condition, String);
