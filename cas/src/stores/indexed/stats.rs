//! The figures of an indexed store.

/// Counters of one moment; `*_total` count from the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexedStats {
    /// Small blobs that this process is still to write to the object store.
    pub pending_blobs: u64,
    pub pending_bytes: u64,
    /// Bytes of all blobs of the fleet, as last counted; 0 without a limit.
    pub used_bytes: u64,
    pub max_bytes: u64,
    pub evicted_blobs_total: u64,
    pub evicted_bytes_total: u64,
    /// Of the evicted blobs, those whose promise was cut short.
    pub cut_short_blobs_total: u64,
    pub cut_short_bytes_total: u64,
    /// Objects deleted because no blob is in them.
    pub orphans_total: u64,
    /// Blobs that the index did not know, and that a reader found in the object store.
    pub repaired_blobs_total: u64,
    /// Small blobs taken over from processes that are gone.
    pub adopted_blobs_total: u64,
    pub refused_writes_total: u64,
    /// The index was lost and not rebuilt: blobs are there that it does not know.
    pub index_incomplete: bool,
}
