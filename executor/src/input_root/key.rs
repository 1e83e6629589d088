//! The key by which the cache knows a file.

use kiln_cas::Digest;

/// A file's content and mode: what equal files share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileKey {
    pub digest: Digest,
    pub executable: bool,
}
