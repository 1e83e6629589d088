//! What is asked, and what is answered: all reasons at once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::promotion::facts::{Facts, Verdict};
use crate::promotion::pipeline::{Environment, Pipeline};
use crate::promotion::world::{Actor, World};
use crate::timestamp::Timestamp;

/// What is asked of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// Nobody has rejected the release.
    Rejected,
    /// The release was not rolled back here.
    RolledBack,
    /// The clock did not go back.
    Clock,
    /// The environments before have, or had, the same content.
    Upstream,
    Soak,
    Signature,
    Builder,
    Source,
    Branch,
    Level,
    Tests,
    Approvals,
    Freeze,
    Hold,
    Condition,
    Check,
}

/// How a gate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Met,
    /// The gate may be met later.
    Waits,
    /// The gate will not be met by waiting.
    Refused,
}

/// How one gate stands, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub gate: Gate,
    pub standing: Standing,
    pub text: String,
    /// When waiting may be over, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// All reasons, in the order of the gates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub reasons: Vec<Reason>,
}

/// What is kept for ever about a digest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    pub rejected: Option<Verdict>,
    /// Rollbacks of the release in the environment in question, and in those before it.
    pub rolled_back: BTreeMap<String, Verdict>,
}

/// How a check ended; `Err`: why it failed.
pub type Checked = Result<(), String>;

/// What a decision is about.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub pipeline: &'a Pipeline,
    pub world: &'a World,
    pub environment: &'a Environment,
    pub facts: &'a Facts,
    pub record: &'a Record,
    /// Answers of the checks, in their order in the policy; `None`: they were not asked.
    pub checked: Option<&'a [Checked]>,
    pub by: &'a Actor,
    /// A person wants it although it was rolled back here.
    pub again: bool,
    pub now: Timestamp,
}

impl Decision {
    pub fn standing(&self) -> Standing {
        let has = |standing| self.reasons.iter().any(|it| it.standing == standing);
        match (has(Standing::Refused), has(Standing::Waits)) {
            (true, _) => Standing::Refused,
            (false, true) => Standing::Waits,
            (false, false) => Standing::Met,
        }
    }

    /// Whether nothing but checks is left to ask.
    pub fn is_met_but_for_checks(&self) -> bool {
        let others = self.reasons.iter().filter(|it| it.gate != Gate::Check);
        others.map(|it| it.standing).all(|it| it == Standing::Met)
    }

    /// What stands in the way.
    pub fn obstacles(&self) -> impl Iterator<Item = &Reason> {
        self.reasons.iter().filter(|it| it.standing != Standing::Met)
    }

    pub(super) fn note(&mut self, gate: Gate, standing: Standing, text: String) {
        self.reasons.push(Reason { gate, standing, text, until: None });
    }

    pub(super) fn wait(&mut self, gate: Gate, until: Option<Timestamp>, text: String) {
        self.reasons.push(Reason { gate, standing: Standing::Waits, text, until });
    }
}
