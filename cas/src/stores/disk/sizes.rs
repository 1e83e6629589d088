//! What goes where: sizes of blobs and of the log's files.

use std::ops::RangeInclusive;

/// Blobs of up to this many bytes live in the log.
pub const SMALL_BLOB: u64 = 256 * 1024;
/// The log's segments are a 64th of the limit, within these bounds; a 1024th of a very large one,
/// so that the number of open files stays bounded.
const SEGMENT_SIZES: RangeInclusive<u64> = 64 * 1024..=64 << 20;
const MAX_SEGMENTS: u64 = 1024;
const LARGEST_SEGMENT: u64 = 1 << 30;

/// Bytes after which a log that may grow to `max_size` begins its next file.
pub fn segment_size(max_size: u64) -> u64 {
    let usual = (max_size / 64).clamp(*SEGMENT_SIZES.start(), *SEGMENT_SIZES.end());
    usual.max((max_size / MAX_SEGMENTS).min(LARGEST_SEGMENT))
}
