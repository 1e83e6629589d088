//! The audit log for those who do not trust the server that keeps it: signed checkpoints, an export in lines of JSON, and a
//! verification that names what was changed, left out, put elsewhere or cut off.
//!
//! The log itself, a chain of entries over records, is in `cas/src/stores/audit.rs`. A chain alone shows that somebody changed a
//! part of it; whoever can write all records can write a whole new chain. A checkpoint is what such a one cannot write
//! without the key: it names an entry and its hash.

mod checkpoint;
mod keep;
mod line;
#[cfg(test)]
mod tests;
mod verify;

pub use checkpoint::{CHECKPOINT_TYPE, Checkpoint, CheckpointError};
pub use keep::{Checkpoints, EVERY, KeepError, Kept};
pub use line::{EntryLine, Line, LineError, MAX_LINE};
pub use verify::{Broken, Problem, Report, Verifier};
