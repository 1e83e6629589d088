//! Finds out which targets a change affects.
//!
//! A [`Graph`] is what a build tool says of a commit's targets; with the content of source files it becomes
//! a [`Snapshot`]: for each target a hash of everything that it is made from. A target whose hash differs
//! between two snapshots is affected. Where that cannot be said, everything is affected, and why is said.

mod bazel;
mod buck2;
mod compare;
mod graph;
mod hash;
mod snapshot;

pub use bazel::{Framing, GraphError};
pub use buck2::{BuckError, Cells};
pub use compare::{Affected, Cause, Everything, Impact, compare};
pub use graph::{Content, Graph, Kind, Node, SourceFile};
pub use hash::{Hash, Hasher};
pub use snapshot::{Snapshot, Target};

#[cfg(test)]
mod buck2_tests;
#[cfg(test)]
mod tests;
