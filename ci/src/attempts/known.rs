//! Who knows of an attempt.

use std::ops::{BitOr, BitOrAssign};

use serde::{Deserialize, Serialize};

/// The ways by which an attempt became known, as a set.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Known(u8);

impl Known {
    /// Kiln executed the attempt.
    pub const EXECUTED: Self = Self(1);
    /// The client told of it by build events.
    pub const REPORTED: Self = Self(2);
    /// The attempt was brought in from a report.
    pub const IMPORTED: Self = Self(4);
    /// Its request was answered by the execution of another one, so that nothing ran. It counts for nothing,
    /// but what the client says of it is known by it to be no run of its own.
    pub const MERGED: Self = Self(8);
    /// Kiln ran it again by itself, in the shadow: it is no attempt of any client, and in no figures.
    pub const SHADOW: Self = Self(16);

    /// One of the parts in which Kiln ran a test over several workers. What was put together of them is the attempt
    /// that a client asked for, and counts.
    pub const PART: Self = Self(32);

    const ALL: u8 = 63;

    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the attempt is one of somebody's own, and counts in figures.
    pub fn counts(self) -> bool {
        !self.has(Self::MERGED) && !self.has(Self::SHADOW) && !self.has(Self::PART)
    }

    pub fn bits(self) -> u8 {
        self.0
    }

    /// What these bits stand for; `None` for bits that mean nothing.
    pub fn from_bits(bits: u8) -> Option<Self> {
        (bits != 0 && bits & !Self::ALL == 0).then_some(Self(bits))
    }
}

impl BitOr for Known {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Known {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
