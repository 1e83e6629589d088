//! The policy: which promises have to be kept at a moment.

use super::times::Times;

/// Seats that invocations take: each blob has one bit for each, so that a promise is attributed
/// by setting a bit. Invocations share a seat where there are more of them than seats.
pub const SEATS: usize = 32;

/// Which promises stand at a moment. Times are in seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruling {
    pub now: u32,
    /// `None`: every promise is kept to its end.
    pub cut: Option<Cut>,
}

/// How promises are cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// How long promises last from when they are made, in seconds.
    pub lease: u32,
    /// What is left of them at least.
    pub min_lease: u32,
    /// Since when the running invocations of each seat run, the earliest of them; `u32::MAX`:
    /// none runs.
    pub running: [u32; SEATS],
}

impl Ruling {
    /// Every promise is kept to its end.
    pub fn strict(now: u32) -> Self {
        Self { now, cut: None }
    }

    /// Whether a promise stands between a blob of these times and its eviction.
    ///
    /// A seat's bit stays on a blob when the invocation is over and another one takes its seat.
    /// What was promised before that one began was not promised to it, so that it needs no clearing.
    pub fn stands(&self, times: Times) -> bool {
        if times.leased_until <= self.now {
            return false;
        }
        let Some(cut) = &self.cut else { return true };
        let promised_at = times.leased_until.saturating_sub(cut.lease);
        // Also what is promised while a pass with this ruling is under way.
        if promised_at.saturating_add(cut.min_lease.max(1)) > self.now {
            return true;
        }
        let holds = |seat: &usize| times.holders >> seat & 1 == 1;
        (0..SEATS).filter(holds).any(|seat| cut.running[seat] <= promised_at)
    }
}
