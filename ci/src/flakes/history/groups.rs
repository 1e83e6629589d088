//! What the runs of each identity have shown: equal inputs, and what came of them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::attempt::{Attempt, Piece};
use super::bounded::push;
use crate::flakes::{Identity, Signature};
use crate::model::Time;

/// How many identities are remembered of a subject. Those that only passed are forgotten before those with a
/// failure that waits for a pass.
pub const MAX_GROUPS: usize = 24;
/// How many failures that wait for a pass, and seeds that passed, are remembered of an identity.
const MAX_WAITING: usize = 16;
const MAX_SEEDS: usize = 16;

/// Failures in a row after a pass of the same identity that are no flip any more: something that is not among the
/// inputs has broken the test.
const STREAK: u32 = 3;

/// How strong it is that a test is flaky, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Failed at several commits between others at which it passed (tier C).
    Suspected,
    /// Failed and passed with one content hash of the target (tier B).
    SameTarget,
    /// Failed and passed with one identity, with other seeds (tier A').
    AcrossSeeds,
    /// Failed and passed with one identity and seed (tier A).
    Proven,
}

/// A failure with a pass of the same identity after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flip {
    pub identity: Identity,
    pub seed: Option<String>,
    pub commit: Option<String>,
    /// When the failure was.
    pub at: Time,
    pub tier: Tier,
    pub signature: Option<Signature>,
}

/// Runs of one identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    identity: Identity,
    target: Option<String>,
    /// Seeds with which the test passed.
    passed: VecDeque<Option<String>>,
    waiting: VecDeque<Waiting>,
    /// Failures since the last pass, also those that are not kept.
    straight: u32,
    /// What the first of these weighs, and with it those that repeat it.
    piece: Option<Piece>,
}

/// A failure that no pass of its identity has followed yet. The test may be broken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    pub seed: Option<String>,
    pub commit: Option<String>,
    pub at: Time,
    pub signature: Option<Signature>,
    pub cluster: Option<u64>,
}

impl Group {
    /// What a failure weighs: what the first one in a row weighs, which it repeats.
    pub fn weighs(&mut self, piece: Piece) -> Piece {
        *self.piece.get_or_insert(piece)
    }

    /// Remembers a failure until a pass follows.
    pub fn failed(&mut self, failure: Waiting) {
        self.straight = self.straight.saturating_add(1);
        push(&mut self.waiting, failure, MAX_WAITING);
    }

    /// Ends the failures in a row, and says which ones waited for this pass.
    pub fn passed(&mut self, seed: Option<&str>) -> VecDeque<Waiting> {
        self.straight = 0;
        self.piece = None;
        if !self.passed.iter().any(|it| it.as_deref() == seed) {
            push(&mut self.passed, seed.map(str::to_owned), MAX_SEEDS);
        }
        std::mem::take(&mut self.waiting)
    }

    /// What failed after it had passed is evidence too, but not for long.
    fn tier(&self) -> Option<Tier> {
        if self.straight >= STREAK || self.passed.is_empty() {
            return None;
        }
        let failed = |it: &Waiting| {
            if self.passed.contains(&it.seed) { Tier::Proven } else { Tier::AcrossSeeds }
        };
        self.waiting.iter().map(failed).max()
    }
}

/// The identities that are remembered of a subject, the one that ran last at the end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Groups(VecDeque<Group>);

impl Groups {
    /// The runs of an attempt's identity, which is the newest one from now on.
    pub fn of(&mut self, attempt: &Attempt<'_>) -> &mut Group {
        let found = self.0.iter().rposition(|it| it.identity == attempt.identity);
        let group = found.and_then(|at| self.0.remove(at)).unwrap_or_else(|| Group {
            identity: attempt.identity,
            target: attempt.target.map(str::to_owned),
            passed: VecDeque::new(),
            waiting: VecDeque::new(),
            straight: 0,
            piece: None,
        });
        if self.0.len() == MAX_GROUPS {
            let idle = self.0.iter().position(|it| it.waiting.is_empty()).unwrap_or(0);
            self.0.remove(idle);
        }
        self.0.push_back(group);
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    /// Drops the failures that wait for a pass, and excuses those that repeat them. Returns how many were dropped.
    pub fn excuse(&mut self) -> u32 {
        let mut excused: u32 = 0;
        for group in self.0.iter_mut().filter(|it| !it.waiting.is_empty()) {
            excused =
                excused.saturating_add(u32::try_from(group.waiting.len()).unwrap_or(u32::MAX));
            group.waiting.clear();
            group.piece = Some(Piece::Outage);
        }
        excused
    }

    /// The strongest evidence of one identity.
    pub fn tier(&self) -> Option<Tier> {
        self.0.iter().filter_map(Group::tier).max()
    }

    /// The weaker evidence of several identities.
    pub fn suspicion(&self) -> Option<Tier> {
        self.same_target().or_else(|| self.across_commits())
    }

    fn same_target(&self) -> Option<Tier> {
        let failing = self.0.iter().filter(|it| !it.waiting.is_empty() && it.target.is_some());
        let both = |failing: &Group| {
            self.0.iter().any(|it| it.target == failing.target && !it.passed.is_empty())
        };
        failing.into_iter().any(both).then_some(Tier::SameTarget)
    }

    /// Something that was broken once and mended is no suspect; one that was so twice is.
    fn across_commits(&self) -> Option<Tier> {
        let outcomes: Vec<bool> = self.0.iter().map(|it| it.waiting.is_empty()).collect();
        let changes = outcomes.windows(2).filter(|pair| pair[0] != pair[1]).count();
        (changes >= 4).then_some(Tier::Suspected)
    }

    /// The newest other identity that has passed and not failed since.
    pub fn last_good(&self, except: Identity) -> Option<Identity> {
        let good = |it: &&Group| it.identity != except && it.straight == 0 && !it.passed.is_empty();
        self.0.iter().rev().find(good).map(|it| it.identity)
    }

    /// The groups that have passed, without their failures.
    pub fn passes(&self) -> Self {
        let passed =
            |it: &Group| Group { waiting: VecDeque::new(), straight: 0, piece: None, ..it.clone() };
        Self(self.0.iter().filter(|it| !it.passed.is_empty()).map(passed).collect())
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
