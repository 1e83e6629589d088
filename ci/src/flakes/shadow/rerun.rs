//! What shadow runs are for: what is asked, what may be spent on it, and what is to be run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::flakes::{Identity, Mixture};
use crate::model::{Subject, Time};

/// What may be spent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Idle slots that are left alone, for what may come.
    pub reserve: usize,
    /// Shadow runs at once.
    pub at_once: usize,
    /// Runs for one failure.
    pub per_failure: u32,
    /// Worker time in a day.
    pub per_day: Duration,
    /// Failures that are remembered; the oldest make room.
    pub open: usize,
    /// How long an outage is waited for before it is looked at again.
    pub pause: Duration,
    /// Between runs of one failure from the third on, of what was seen to fail by chance: what has a common cause
    /// fails together within minutes.
    pub spacing: Duration,
    /// The pause between such runs where the subject was never seen to fail by chance.
    pub quick: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            reserve: 1,
            at_once: 16,
            per_failure: 64,
            per_day: Duration::from_secs(8 * 3600),
            open: 10_000,
            pause: Duration::from_secs(300),
            spacing: Duration::from_secs(120),
            quick: Duration::from_secs(4),
        }
    }
}

/// A failure that nobody has explained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fresh {
    pub subject: Subject,
    pub identity: Identity,
    pub at: Time,
    /// What is believed of the rate at which the subject fails: see [`crate::flakes::History::failing`].
    pub rate: Mixture,
    pub expected: Duration,
    /// The worker where the test failed: it is run again on another one if that can be.
    pub worker: Option<String>,
    /// Other inputs with which the test passed: see [`crate::flakes::History::last_good`].
    pub good: Option<Identity>,
    /// Whether the subject was seen to fail by chance.
    #[serde(default)]
    pub flaky: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The run is to tell flaky from broken.
    Decide,
    /// The run is to see whether what passed before still does. Where it fails, the surroundings are at fault, and
    /// [`crate::flakes::History::control_failed`] is told instead of an attempt.
    Control,
    /// The run is to see whether a quarantined test has become reliable.
    Probe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RerunId(pub u64);

/// Run this action again as it was, and write its result nowhere but into the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rerun {
    pub id: RerunId,
    pub subject: Subject,
    pub identity: Identity,
    pub purpose: Purpose,
    /// A worker that is to be avoided if there are others.
    pub avoid: Option<String>,
}
