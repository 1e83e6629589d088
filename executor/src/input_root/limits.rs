//! The limits of one input root, and of the cache that holds them.

/// Directories and small files fetched at the same time for one input root.
pub const FETCH_CONCURRENCY: usize = 64;

/// The limits of one input root; an action with a larger one is refused.
#[derive(Debug, Clone)]
pub struct InputLimits {
    /// Most files, directories and symlinks together.
    pub entries: usize,
    /// Most bytes of all files together.
    pub bytes: u64,
    /// Most bytes of all paths and of the targets of all links: a directory that occurs often is
    /// small in the store.
    pub text: u64,
}

impl Default for InputLimits {
    fn default() -> Self {
        Self { entries: 250_000, bytes: 64 << 30, text: 256 << 20 }
    }
}

/// The limits of the local cache of input roots; trees in use are kept beyond them.
#[derive(Debug, Clone)]
pub struct CacheLimits {
    pub bytes: u64,
    /// Most bytes that belong to the cache alone: without files that are hard links to blobs of the
    /// store.
    pub own_bytes: u64,
    /// Most entries of all trees together.
    pub entries: usize,
    /// How many entries make a directory a layer of its own.
    pub layer_entries: usize,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { bytes: 16 << 30, own_bytes: u64::MAX, entries: 4_000_000, layer_entries: 64 }
    }
}
