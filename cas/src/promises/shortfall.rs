//! How many more bytes a store would have needed to keep the promises that it cut short.

use std::collections::BTreeMap;

/// Seconds of one grain: leases that end within the same grain are counted together.
const GRAIN: u32 = 256;

/// Promises that were cut short.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CutShort {
    pub count: u64,
    pub bytes: u64,
}

/// Bytes whose promise was cut short, until that would have ended.
#[derive(Debug, Default)]
pub struct Shortfall {
    /// Bytes by the end of their lease, in grains: a lease of 13 hours has less than 200 of them.
    lacking: BTreeMap<u32, u64>,
    total: CutShort,
    /// The most that was lacking at a time.
    peak: u64,
}

impl Shortfall {
    /// Notes a promise of so many bytes that was to last until then.
    pub fn add(&mut self, leased_until: u32, bytes: u64) {
        *self.lacking.entry(leased_until.div_ceil(GRAIN)).or_default() += bytes;
        self.total.count += 1;
        self.total.bytes += bytes;
    }

    /// Takes over what another one noted just now.
    pub fn absorb(&mut self, other: Self, now: u32) {
        for (end, bytes) in other.lacking {
            *self.lacking.entry(end).or_default() += bytes;
        }
        self.total.count += other.total.count;
        self.total.bytes += other.total.bytes;
        self.lacking.retain(|end, _| end.saturating_mul(GRAIN) > now);
        self.peak = self.peak.max(self.lacking.values().sum());
    }

    /// All promises that were cut short since the start.
    pub fn total(&self) -> CutShort {
        self.total
    }

    /// The most bytes that were lacking at a time: what was promised and not there any more. A
    /// blob that was stored again meanwhile counts twice.
    pub fn peak(&self) -> u64 {
        self.peak
    }
}
