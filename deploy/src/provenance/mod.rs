//! The origin of content: records of executions, the closure of an output over them, and what is said of it in SLSA
//! provenance and in bills of materials. All of it is derived from what ran; what did not run here is named as such.

mod archive;
mod beside;
mod bom;
mod closure;
mod diff;
mod level;
mod list;
mod listings;
mod met;
mod packages;
mod record;
mod revision;
mod slsa;
#[cfg(test)]
mod tests;

pub use archive::{Archive, Listing};
pub use bom::{BomError, Describes, cyclonedx, spdx};
pub use closure::{Closure, ClosureError, Found, Limits, Root, walk};
pub use diff::{Change, ChangeKind, Changes, Difference, Side};
pub use level::{Isolation, Level, SignedBy, level};
pub use list::{
    CLOSURE_INDEX_TYPE, CLOSURE_PART_TYPE, ClosureEntry, ClosureIndex, Executed, ListError,
    ListWriter, Part, PartSink, read_index, read_part,
};
pub use packages::{Package, PackageKind, Packages};
pub use record::{
    ActionRecord, Mechanism, Origin, Output, RootFileSystem, Run, Sandbox, Written, digest_set,
};
pub use revision::{Claimed, Revision, RevisionError, SaidBy, Source, ToldRevision};
pub use slsa::{
    BuildRequest, MAX_PREDICATE_BYTES, Provenance, ProvenanceError, SLSA_PREDICATE, provenance,
};
