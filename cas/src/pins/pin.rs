//! One pin.

use crate::digest::Digest;

/// Who pins a blob, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    pub digest: Digest,
    /// What is pinned for one purpose, as `tests`.
    pub kind: String,
    /// Tells pins of one blob and kind apart.
    pub name: String,
    /// Whatever time the caller gave, in milliseconds since the Unix epoch.
    pub at: u64,
}

impl Pin {
    /// A name that no other pin has.
    pub fn fresh_name() -> String {
        format!("{:016x}", fastrand::u64(..))
    }
}
