//! What an action should not depend on, and can be made another for it: the hermeticity check runs
//! an action again under such changed conditions.

use serde::{Deserialize, Serialize};

/// One condition of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Condition {
    HostName,
    /// The numbers of the action's processes.
    ProcessIds,
    /// Where the input root is.
    Directory,
    /// What `CLOCK_MONOTONIC` and `CLOCK_BOOTTIME` show; the kernel has no other wall clock for one process.
    Clock,
    /// The action has one processor only.
    Cpus,
    /// In which order directories of inputs list their entries, and inode numbers.
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
