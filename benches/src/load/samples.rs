//! The blobs that calls carry.

use std::sync::OnceLock;

use crate::sample::{LARGE, Pattern, SMALL};

/// Bytes of a blob that only fills the store.
const FILLER: usize = 128;

/// The blobs of all works; made once.
pub struct Samples {
    pub small: Pattern,
    pub filler: Pattern,
    large: OnceLock<Pattern>,
    /// Tells this run's writes from those of other runs.
    pub run: u64,
}

impl Samples {
    pub fn new(run: u64) -> Self {
        Self {
            small: Pattern::new(SMALL),
            filler: Pattern::new(FILLER),
            large: OnceLock::new(),
            run,
        }
    }

    /// The pattern of large blobs, of 64 MiB: made when it is first asked for.
    pub fn large(&self) -> &Pattern {
        self.large.get_or_init(|| Pattern::new(LARGE))
    }
}
