//! What one input root may be, and what the cache of them may hold.

/// Directories and small files fetched at the same time for one input root.
pub const FETCH_CONCURRENCY: usize = 64;

/// What one input root may be.
#[derive(Debug, Clone)]
pub struct InputLimits {
    /// Files, directories and symlinks.
    pub entries: usize,
    /// Bytes of all files together.
    pub bytes: u64,
    /// Bytes of all paths and of the targets of all links: a directory that occurs often is small in the store.
    pub text: u64,
}

impl Default for InputLimits {
    fn default() -> Self {
        Self { entries: 250_000, bytes: 64 << 30, text: 256 << 20 }
    }
}

/// What the local cache may hold; trees in use are kept beyond it.
#[derive(Debug, Clone)]
pub struct CacheLimits {
    pub bytes: u64,
    /// The same without hard links to blobs of the store.
    pub own_bytes: u64,
    /// Entries of all trees together.
    pub entries: usize,
    /// Directories with at least so many entries are layers of their own.
    pub layer_entries: usize,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { bytes: 16 << 30, own_bytes: u64::MAX, entries: 4_000_000, layer_entries: 64 }
    }
}
