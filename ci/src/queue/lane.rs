//! The queue of one branch: what is known, and small questions about it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::change::{Change, ChangeId, End, Ended, Held, Standing};
use super::event::{Effect, Member, RunId};
use super::evidence::Failure;
use super::names::{Branch, Commit};
use super::options::Options;
use super::rates::{MEETING, Rates};
use crate::model::Time;

/// Most changes that wait: all of a lane is one record.
pub const MAX_CHANGES: usize = 2_000;
/// Most failures that are kept unexplained; the oldest go.
const MAX_FAILURES: usize = 200;
/// Waiting for so long counts as one step of priority: nothing waits for ever.
const AGING: Duration = Duration::from_secs(30 * 60);

/// What changes land on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    pub commit: Commit,
    /// Whether the commit has passed: it was landed here, or checked by itself.
    pub green: bool,
    /// How often in a row the commit failed by itself.
    pub failures: u32,
    /// Whether the commit fails, so that nobody is rejected for failing on it.
    pub red: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Checking,
    /// The run has passed, and waits for whatever lands at the moment or for the end of a pause.
    Passed,
    /// The run has passed on what the target was; it is looked whether that counts on what it is.
    Proving,
    /// The run would land, and is compared with one that is not to be overtaken by what shares a target with it.
    Comparing,
    Landing,
}

/// What is known of a run that passed, and one that is not to be overtaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    pub with: RunId,
    /// Whether the two affect nothing in common: what the other one says counts also when this one has landed.
    pub clear: bool,
}

/// A tree that is tested.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub id: RunId,
    pub base: Commit,
    /// Changes in this order on top of the base; none: the base itself.
    pub members: Vec<Member>,
    /// What was built of them, once that is known.
    pub commit: Option<Commit>,
    pub phase: Phase,
    pub began: Time,
    /// The number of the batch that the run is for.
    pub group: Option<u64>,
    /// The target of which it is being proven that what passed counts there.
    #[serde(default)]
    pub onto: Option<Commit>,
    /// Proofs that were begun.
    #[serde(default)]
    pub proofs: u32,
    #[serde(default)]
    pub compared: Option<Comparison>,
}

/// A batch of throughput mode. It is suspect while a failure is left that its members alone explain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    pub id: u64,
    pub members: Vec<ChangeId>,
    /// What passes of it lands; of other groups it is screened. Where changes land independently all of them do, and
    /// nothing that shares a target with this one lands before it.
    pub lands: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lane {
    pub target: Branch,
    pub options: Options,
    pub base: Option<Base>,
    /// Why nothing is begun and nothing lands; `None`: the lane goes on.
    pub paused: Option<String>,
    pub changes: BTreeMap<ChangeId, Change>,
    pub runs: BTreeMap<RunId, Run>,
    pub failures: Vec<Failure>,
    pub rates: Rates,
    pub(super) groups: Vec<Group>,
    /// The last number that was given.
    pub(super) number: u64,
    /// Checks in a row that could not be run.
    pub(super) unable: u32,
    /// Pushes in a row that were refused.
    pub(super) refused: u32,
    /// By what all of this passed or failed: a name of the check. Nothing in lanes that were written before it was noted.
    #[serde(default)]
    pub(super) measure: Option<String>,
    /// What is to be told of the event at hand.
    #[serde(skip)]
    pub(super) told: Vec<Ended>,
}

impl Lane {
    pub fn new(target: Branch, options: Options) -> Self {
        Self {
            target,
            base: None,
            paused: None,
            changes: BTreeMap::new(),
            runs: BTreeMap::new(),
            failures: Vec::new(),
            rates: Rates::default(),
            groups: Vec::new(),
            number: 0,
            unable: 0,
            refused: 0,
            measure: None,
            told: Vec::new(),
            options,
        }
    }

    /// Checks that the lane is within the bounds that it keeps by itself, since it may come from elsewhere. Errors:
    /// what there are too many of, in words.
    pub fn check(&self) -> Result<(), String> {
        let checks = [
            (self.changes.len() <= MAX_CHANGES, "changes"),
            (self.failures.len() <= MAX_FAILURES, "failures"),
            (self.runs.len() <= MAX_CHANGES, "runs"),
            (self.groups.len() <= MAX_CHANGES, "batches"),
        ];
        match checks.iter().find(|(holds, _)| !holds) {
            Some((_, what)) => Err(format!("a lane has too many {what}")),
            None => Ok(()),
        }
    }

    /// Batches, each with whether what passes of it lands.
    pub fn batches(&self) -> &[Group] {
        &self.groups
    }

    pub(super) fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// What is to be done at this moment. Carrying it out again does the same again.
    pub fn outstanding(&self) -> BTreeMap<RunId, Effect> {
        let effect = |run: &Run| {
            let (id, base) = (run.id, run.base.clone());
            match (run.phase, &run.commit) {
                (Phase::Checking, _) => {
                    Some(Effect::Check { run: id, base, members: run.members.clone() })
                }
                (Phase::Proving, Some(tested)) => run.onto.clone().map(|onto| Effect::Prove {
                    run: id,
                    base: onto,
                    tested: tested.clone(),
                    members: run.members.clone(),
                }),
                (Phase::Comparing, Some(commit)) => self.comparison(run, commit),
                (Phase::Landing, Some(commit)) => {
                    Some(Effect::Land { run: id, base, commit: commit.clone() })
                }
                _ => None,
            }
        };
        self.runs.values().filter_map(|run| Some((run.id, effect(run)?))).collect()
    }

    /// Whether a member is still what it was when its run began.
    pub(super) fn holds(&self, member: &Member) -> bool {
        self.changes.get(&member.id).is_some_and(|it| it.head == member.head)
    }

    pub(super) fn on_base(&self, run: &Run) -> bool {
        self.base.as_ref().is_some_and(|it| it.commit == run.base)
    }

    pub(super) fn is_landing(&self, id: ChangeId) -> bool {
        let landing = self.runs.values().filter(|it| it.phase == Phase::Landing);
        landing.flat_map(|it| &it.members).any(|it| it.id == id && self.holds(it))
    }

    pub(super) fn room(&self) -> usize {
        let busy = self.runs.values().filter(|it| it.phase == Phase::Checking).count();
        self.options.workers.max(1).saturating_sub(busy)
    }

    /// The probability that a change is bad, before any failure is weighed.
    pub(super) fn bad(&self, id: ChangeId) -> f64 {
        match self.changes.get(&id).map(|it| &it.standing) {
            Some(Standing::Screened) => MEETING,
            _ => self.rates.bad(),
        }
    }

    /// What may be tested, in the order in which it is: by priority, which grows with time.
    pub fn order(&self, now: Time) -> Vec<ChangeId> {
        let held = |it: &&Change| !matches!(it.standing, Standing::Held(_));
        let mut open: Vec<_> = self.changes.values().filter(held).collect();
        let rank = |it: &Change| {
            let steps = now.since(it.added).as_millis() / AGING.as_millis();
            u128::from(it.priority).saturating_add(steps)
        };
        open.sort_by(|one, other| {
            (rank(other), one.added, one.id).cmp(&(rank(one), other.added, other.id))
        });
        open.into_iter().map(|it| it.id).collect()
    }

    /// Leaves out changes that clash with others on this base. Where only such are there the first one stays.
    pub(super) fn apart(&self, order: Vec<ChangeId>) -> Vec<ChangeId> {
        let base = self.base.as_ref().map(|it| &it.commit);
        let clashes = |id: &ChangeId| {
            let clashed = self.changes.get(id).and_then(|it| it.clashed.as_ref());
            clashed.is_some() && clashed == base
        };
        match order.iter().all(clashes) {
            true => order.into_iter().take(1).collect(),
            false => order.into_iter().filter(|id| !clashes(id)).collect(),
        }
    }

    pub(super) fn grouped(&self) -> BTreeSet<ChangeId> {
        self.groups.iter().flat_map(|it| &it.members).copied().collect()
    }

    pub(super) fn begin(&mut self, ids: &[ChangeId], group: Option<u64>, now: Time) {
        let Some(base) = self.base.as_ref().map(|it| it.commit.clone()) else { return };
        let heads = ids.iter().filter_map(|id| self.changes.get(id));
        let members = heads.map(|it| Member { id: it.id, head: it.head.clone() }).collect();
        let id = RunId(self.next());
        let (commit, phase, began, onto, proofs) = (None, Phase::Checking, now, None, 0);
        let compared = None;
        let run = Run { id, base, members, commit, phase, began, group, onto, proofs, compared };
        self.runs.insert(id, run);
    }

    /// Checks the base itself, unless that is being done.
    pub(super) fn begin_base(&mut self, now: Time) {
        let known = self.runs.values().any(|it| it.members.is_empty() && self.on_base(it));
        if !known && self.room() > 0 {
            self.begin(&[], None, now);
        }
    }

    pub(super) fn end(&mut self, id: ChangeId, end: End, now: Time) {
        let Some(it) = self.changes.remove(&id) else { return };
        let Change { id, branch, head, added, .. } = it;
        self.told.push(Ended { id, branch, head: Some(head), added, at: now, end });
        for group in &mut self.groups {
            group.members.retain(|it| *it != id);
        }
        // A run of nothing but what has gone decides nothing; others screen who is left.
        self.runs.retain(|_, run| {
            run.members.is_empty()
                || run.phase == Phase::Landing
                || run.members.iter().any(|it| self.changes.contains_key(&it.id))
        });
    }

    pub(super) fn hold(&mut self, id: ChangeId, why: Held) {
        if let Some(it) = self.changes.get_mut(&id) {
            it.standing = Standing::Held(why);
        }
        for group in &mut self.groups {
            group.members.retain(|it| *it != id);
        }
        self.failures.retain(|it| !it.suspects.contains(&id));
    }

    pub(super) fn note(&mut self, failure: Failure) {
        if self.failures.len() >= MAX_FAILURES {
            self.failures.remove(0);
        }
        self.failures.push(failure);
    }

    /// Notes that nobody suspects the change any more. A failure that nobody is left to explain was a flake.
    pub(super) fn acquit(&mut self, id: ChangeId) {
        let mut flakes = 0;
        self.failures.retain_mut(|failure| {
            let before = failure.suspects.len();
            failure.suspects.retain(|it| *it != id);
            let explained = failure.suspects.is_empty() && before > 0;
            flakes += u32::from(explained);
            !explained
        });
        (0..flakes).for_each(|_| self.rates.flaked());
    }

    /// Forgets what was tested on a commit of which was never known whether it fails by itself: failures on it say
    /// nothing, and nothing more is tested on it.
    pub(super) fn distrust(&mut self, base: &Commit) {
        self.failures.retain(|it| it.base != *base);
        self.runs.retain(|_, it| it.base != *base || it.phase != Phase::Checking);
    }

    /// What is known of a change holds no more: it is another one, or gone.
    pub(super) fn forget(&mut self, id: ChangeId) {
        self.failures.retain(|it| !it.suspects.contains(&id));
    }
}
