//! The cgroups that a slot has, one for each controller.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sandbox::wire::octets;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(in crate::sandbox) enum Kind {
    Memory = 0,
    Pids = 1,
    Cpu = 2,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    /// The controller's name in both versions.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::sandbox) enum Version {
    V1,
    V2,
}

/// A directory in which one controller's files are. Version 2 has them all in the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::sandbox) struct Controller {
    pub kind: Kind,
    pub version: Version,
    #[serde(with = "octets::path")]
    pub dir: PathBuf,
}

/// The cgroups of one slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::sandbox) struct CgroupSet {
    pub controllers: Vec<Controller>,
}
