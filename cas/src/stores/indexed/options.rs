//! How an indexed store is set up.

use std::time::Duration;

use crate::clock::Clock;
use crate::promises::{DEFAULT_LEASE, Invocations};

#[derive(Debug, Clone)]
pub struct IndexedOptions {
    /// How long a blob is kept after it was written or reported present.
    pub lease: Duration,
    /// Blobs up to this many bytes go through the index, larger ones straight to the objects.
    pub small: u64,
    /// Most bytes of all blobs of the fleet; 0: no limit. Counted every few seconds and beside
    /// that by each process for itself, so that several may exceed it by what they write
    /// meanwhile.
    pub max_size: u64,
    /// Blobs go this long after their lease has ended; `None`: when room is needed.
    pub keep: Option<Duration>,
    /// Pause between two looks at the index, each of which is one call. What is remembered of it
    /// is only answered when it was seen to be the same within this time.
    pub interval: Duration,
    /// Pause between two passes that collect garbage.
    pub collect_every: Duration,
    /// How long `sync` goes on after a failed write while nothing at all reaches the object store.
    pub patience: Duration,
    /// Tells the time for what this process remembers; the index has its own clock.
    pub clock: Clock,
    /// The invocations whose promises are kept when there is no room and others are cut short.
    /// `None`: no promise is cut short.
    pub invocations: Option<Invocations>,
}

impl IndexedOptions {
    /// How long the index is asked to promise blobs: longer than callers are promised them, so that
    /// a while passes before it has to be asked again. Where promises may be cut short, little
    /// longer: until then nobody knows how long ago they were made.
    pub fn asked_lease(&self) -> Duration {
        let half = self.lease / 2;
        match &self.invocations {
            Some(invocations) if self.max_size > 0 => {
                self.lease + half.min(Duration::from_secs(invocations.min_lease().into()) / 2)
            }
            _ => self.lease + half,
        }
    }
}

impl Default for IndexedOptions {
    fn default() -> Self {
        Self {
            lease: DEFAULT_LEASE,
            small: 64 << 10,
            max_size: 0,
            keep: None,
            interval: Duration::from_secs(5),
            collect_every: Duration::from_secs(600),
            patience: Duration::from_secs(60),
            clock: Clock::system(),
            invocations: None,
        }
    }
}
