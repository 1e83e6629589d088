//! How an agent stands, in a word: what it said, held against what it was told and against the time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kept::{KeptAgent, KeptOrder};
use super::limits::SILENT;
use crate::agent::Health;
use crate::rollouts::machine::Millis;

/// Turns between well and unwell within this time make an agent one that flaps.
const FLAPS: usize = 4;
const FLAPS_WITHIN: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// The agent was not heard of for too long.
    Silent,
    /// The agent says that it obeys a generation that nobody told it.
    Untruthful,
    /// The agent runs something else than it was told, and says nothing of a failure.
    Drifted,
    /// The agent gave up what it was told.
    Failed,
    /// The agent has not carried out yet what it was told.
    Behind,
    /// The service turns from well to unwell and back, again and again.
    Flapping,
    Unwell,
    /// The agent was told nothing yet.
    Unassigned,
    Well,
}

impl Condition {
    pub const ALL: [(Self, &str); 9] = [
        (Self::Silent, "silent"),
        (Self::Untruthful, "untruthful"),
        (Self::Drifted, "drifted"),
        (Self::Failed, "failed"),
        (Self::Behind, "behind"),
        (Self::Flapping, "flapping"),
        (Self::Unwell, "unwell"),
        (Self::Unassigned, "unassigned"),
        (Self::Well, "well"),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(it, _)| *it == self).map_or("", |(_, name)| name)
    }

    pub fn of(agent: &KeptAgent, order: Option<&KeptOrder>, now: Millis) -> Self {
        let status = &agent.status;
        if Duration::from_millis(now.saturating_sub(agent.heard)) >= SILENT {
            return Self::Silent;
        }
        let Some(order) = order else { return Self::Unassigned };
        let told = order.generation;
        if status.accepted > told || status.settled > told {
            return Self::Untruthful;
        }
        if status.settled < told {
            return Self::Behind;
        }
        if status.failed.is_some() {
            return Self::Failed;
        }
        if status.running.as_ref().is_some_and(|it| *it != order.version) {
            return Self::Drifted;
        }
        // What it was told before may have flapped: the version that it runs now is not to blame for that.
        let recent = |at: &&Millis| {
            **at > order.at && Duration::from_millis(now.saturating_sub(**at)) < FLAPS_WITHIN
        };
        if agent.turns.iter().filter(recent).count() >= FLAPS {
            return Self::Flapping;
        }
        match (&status.running, &status.health) {
            (None, _) | (_, Health::Unwell(_)) => Self::Unwell,
            (Some(_), Health::Well | Health::Unknown) => Self::Well,
        }
    }
}
