//! What a walk through a closure reads.

use std::sync::Arc;

use kiln_cas::Digest;

use super::record::ActionRecord;

/// Records and directories. Storage behind it may be asked for many things at once, and by several threads.
pub trait Archive: Sync {
    type Error: std::error::Error + Send + Sync + 'static;

    /// For each content the records that have it among their outputs, a few of them where there are many:
    /// those that the invocation used first, then the latest.
    fn producers(&self, contents: &[Digest]) -> Result<Vec<Vec<Arc<ActionRecord>>>, Self::Error>;

    /// Whether the invocation ran this action, or was answered with its result.
    fn is_used(&self, record: &ActionRecord) -> bool;

    /// Executions of about that time that are known to be recorded nowhere: what they left looks like sources.
    fn unrecorded(&self) -> u64 {
        0
    }

    /// The files and directories in each directory, in the order of `directories`; `None`: it is not there any more.
    fn directories(&self, directories: &[Digest]) -> Result<Vec<Option<Listing>>, Self::Error>;
}

/// A directory: names with digests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    pub files: Vec<(String, Digest)>,
    pub directories: Vec<(String, Digest)>,
}
