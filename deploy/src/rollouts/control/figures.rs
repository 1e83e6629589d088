//! What became of rollouts, as far as this process wrote it down.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::kept::Rollout;
use crate::deployments::{Deployments, Fours};
use crate::rollouts::machine::{End, Event, Logged, Millis, RolloutState};

/// Counts of rollouts since the process began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RolloutFigures {
    pub started: u64,
    pub succeeded: u64,
    pub rolled_back: u64,
    pub rollback_failed: u64,
    pub rejected: u64,
    pub overtaken: u64,
    /// Drills that should have begun by themselves and did not.
    pub drills_missed: u64,
    /// Milliseconds from the start until all targets had the release and its soak was over, of all that succeeded
    /// together.
    pub delivery: Millis,
    /// Milliseconds from the decision to revert until all targets ran the old version again, of all that were rolled
    /// back together.
    pub restore: Millis,
    /// What came to environments.
    pub deployments: Fours,
    /// The rollouts that run, of all frontends.
    pub census: Census,
}

/// Phases that a rollout can be in before it has ended; `paused` is the one of those that are, whatever else they do.
pub const PHASES: [&str; 8] =
    ["verifying", "waiting", "gate", "applying", "baking", "soaking", "rolling_back", PAUSED];
pub const PAUSED: &str = "paused";

/// Rollouts in one phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phased {
    pub rollouts: u64,
    /// How long the one that has been in it longest is.
    pub oldest: Millis,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// Rollouts that run, by one of [`PHASES`]; phases without a rollout are not there.
    pub running: BTreeMap<String, Phased>,
    /// Places where a drill is overdue, also if that holds up nothing.
    pub drills_overdue: u64,
}

#[derive(Debug, Default)]
pub struct Counters {
    started: AtomicU64,
    ends: [AtomicU64; 5],
    missed: AtomicU64,
    delivery: AtomicU64,
    restore: AtomicU64,
    deployments: Deployments,
}

fn place(end: End) -> usize {
    match end {
        End::Succeeded => 0,
        End::RolledBack => 1,
        End::RollbackFailed => 2,
        End::Rejected => 3,
        End::Overtaken => 4,
    }
}

impl Counters {
    pub fn start(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    pub fn miss(&self, drills: u64) {
        self.missed.fetch_add(drills, Ordering::Relaxed);
    }

    /// Takes in what was appended to a rollout that was in the state `before`, and what that has become.
    pub fn count(
        &self,
        rollout: &Rollout,
        events: &[Logged],
        (before, after): (&RolloutState, &RolloutState),
    ) {
        let (began, phase) = (rollout.at, before.since);
        for logged in events {
            let end = match logged.event {
                Event::Ended(end) => end,
                Event::Refused(_) => End::Rejected,
                _ => continue,
            };
            if let Some(count) = self.ends.get(place(end)) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            let (sum, from) = match end {
                End::Succeeded => (&self.delivery, began),
                End::RolledBack => (&self.restore, phase),
                _ => continue,
            };
            sum.fetch_add(logged.at.saturating_sub(from), Ordering::Relaxed);
        }
        let ended = events.iter().find_map(|logged| match logged.event {
            Event::Ended(end) => Some((end, logged.at)),
            _ => None,
        });
        if let Some((end, at)) = ended {
            self.deployed(rollout, after, (end, at));
        }
    }

    /// What a person took back, or a newer rollout, is neither a change that came nor one that failed.
    fn deployed(&self, rollout: &Rollout, state: &RolloutState, (end, at): (End, Millis)) {
        let environment = &rollout.place.environment;
        let since = |from: Millis| at.saturating_sub(from);
        let is_bad = state.why.as_ref().is_some_and(|why| why.blames_release());
        match end {
            End::Succeeded => self.deployments.came(environment, rollout.made.map(since)),
            End::RolledBack | End::RollbackFailed if is_bad => {
                self.deployments.came(environment, None);
                let restored = state.touched.filter(|_| end == End::RolledBack);
                self.deployments.failed(environment, restored.map(since));
            }
            _ => {}
        }
    }

    /// `census`: of those that run, as they were counted last.
    pub fn read(&self, census: Census) -> RolloutFigures {
        let of = |end: End| self.ends.get(place(end)).map_or(0, |it| it.load(Ordering::Relaxed));
        RolloutFigures {
            started: self.started.load(Ordering::Relaxed),
            succeeded: of(End::Succeeded),
            rolled_back: of(End::RolledBack),
            rollback_failed: of(End::RollbackFailed),
            rejected: of(End::Rejected),
            overtaken: of(End::Overtaken),
            drills_missed: self.missed.load(Ordering::Relaxed),
            delivery: self.delivery.load(Ordering::Relaxed),
            restore: self.restore.load(Ordering::Relaxed),
            deployments: self.deployments.read(std::iter::empty()),
            census,
        }
    }
}
