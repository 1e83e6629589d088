//! As few runs as can be. Batches of the best size are tested at the same time, each by itself on the base. One of
//! them may land what passes; it takes along what passed elsewhere and is only believed to be good, so that
//! landing costs no run of its own. A batch that fails is cut, and what lies behind a failing prefix put back. What
//! costs much more than the others lets these go first, a few times.

use super::change::{ChangeId, Standing};
use super::cut::{MAX_BATCH, batch, first_cut};
use super::judging::Next;
use super::lane::{Group, Lane, Phase};
use crate::model::Time;

/// Most screened changes that a batch takes along.
const MAX_TAKEN: usize = 4 * MAX_BATCH;

impl Lane {
    pub(super) fn plan_throughput(&mut self, now: Time) {
        self.groups.retain(|it| !it.members.is_empty());
        // What would begin now would begin on a base that is about to be another one.
        if self.runs.values().any(|it| it.phase == Phase::Landing) {
            return;
        }
        let groups: Vec<u64> = self.groups.iter().map(|it| it.id).collect();
        for group in groups {
            if self.room() == 0 {
                return;
            }
            let busy = self.runs.values().any(|it| it.group == Some(group));
            if !busy {
                self.advance(group, now);
            }
        }
        while self.room() > 0 && (self.form_overtaken(now) || self.form(now)) {}
    }

    fn place(&self, group: u64) -> Option<usize> {
        self.groups.iter().position(|it| it.id == group)
    }

    /// Begins the next run of a batch.
    fn advance(&mut self, group: u64, now: Time) {
        let Some(at) = self.place(group) else { return };
        let members = self.groups[at].members.clone();
        match members.as_slice() {
            [] => {
                self.groups.remove(at);
            }
            [only] if self.suspected(&members) => match self.judge(*only, now) {
                Next::Done => {
                    self.groups.remove(at);
                }
                Next::Base => self.begin_base(now),
                Next::Again => {
                    if !self.independent() {
                        let others = self.others_land(group) || !self.screened().is_empty();
                        self.groups[at].lands = !others;
                    }
                    self.begin(&members, Some(group), now);
                }
            },
            _ => self.test(at, now),
        }
    }

    fn others_land(&self, group: u64) -> bool {
        self.groups.iter().any(|it| it.lands && it.id != group)
    }

    /// What passed elsewhere and is in no batch.
    fn screened(&self) -> Vec<ChangeId> {
        let grouped = self.grouped();
        let screened = self.changes.values().filter(|it| it.standing == Standing::Screened);
        let free = screened.filter(|it| !grouped.contains(&it.id) && !it.alone);
        free.map(|it| it.id).take(MAX_TAKEN).collect()
    }

    /// Tests a batch, or the best part of one that failed.
    fn test(&mut self, at: usize, now: Time) {
        let id = self.groups[at].id;
        if !self.independent() && !self.others_land(id) {
            self.groups[at].lands = true;
            let alone = self.groups[at].members.iter().any(|it| self.is_alone(*it));
            if !alone {
                let taken = self.screened();
                self.groups[at].members.splice(0..0, taken);
            }
        }
        let members = self.groups[at].members.clone();
        let length = match self.suspected(&members) {
            true => self.cut(&members),
            false => members.len(),
        };
        self.begin(&members[..length], Some(id), now);
    }

    /// How much of a batch that failed is tested next.
    fn cut(&self, members: &[ChangeId]) -> usize {
        let within = |it: &Vec<ChangeId>| it.iter().all(|it| members.contains(it));
        let own: Vec<_> = self.failures.iter().filter(|it| within(&it.suspects)).collect();
        let suspect = |id: &ChangeId| own.iter().all(|it| it.suspects.contains(id));
        let any = members.iter().any(suspect);
        let mut good = 1.0;
        let weights: Vec<f64> = members
            .iter()
            .map(|id| {
                let bad = if any && !suspect(id) { 1e-6 } else { self.bad(*id) };
                let weight = good * bad;
                good *= 1.0 - bad;
                weight
            })
            .collect();
        let flaky = |it: &&super::evidence::Failure| if it.proven { 0.0 } else { self.flaky() };
        let none = good * own.iter().map(flaky).product::<f64>();
        first_cut(&weights, none).min(members.len())
    }

    fn is_alone(&self, id: ChangeId) -> bool {
        self.changes.get(&id).is_some_and(|it| it.alone)
    }

    /// Makes a batch of what waits, and begins its first run. Answers whether there was one to make.
    fn form(&mut self, now: Time) -> bool {
        let grouped = self.grouped();
        let waits = |id: &ChangeId| {
            let it = self.changes.get(id);
            it.is_some_and(|it| it.standing == Standing::Waiting || it.alone)
                && !grouped.contains(id)
        };
        let fresh = self.apart(self.order(now).into_iter().filter(waits).collect());
        let size = match self.base.as_ref().is_some_and(|it| it.red) {
            true => 1,
            false => self.size(fresh.len()),
        };
        let alone = fresh.iter().position(|it| self.is_alone(*it));
        let nobody_lands = !self.groups.iter().any(|it| it.lands);
        let size = match alone {
            Some(0) if !self.independent() && !nobody_lands => 0,
            Some(0) => 1,
            Some(before) => size.min(before),
            None => size,
        };
        // Where changes land independently, none of them waits for a dear one.
        let dear = match alone.is_some() || self.independent() {
            true => None,
            false => self.dear_beyond(&fresh),
        };
        let (mut members, mut passed_over) = self.affordable(&fresh, size, dear);
        if alone.is_none() && members.len() < size && !self.may_begin(&members, now) {
            (members, passed_over) = (Vec::new(), Vec::new());
        }
        let takes_along = !self.independent() && nobody_lands && !self.screened().is_empty();
        if members.is_empty() && !takes_along {
            return false;
        }
        self.pass_over(&passed_over);
        let id = self.next();
        self.groups.push(Group { id, members, lands: false });
        let at = self.groups.len() - 1;
        self.test(at, now);
        true
    }

    /// How many of so many that wait are tested at once. Where changes land independently, none of them waits for
    /// another one while there are workers.
    fn size(&self, fresh: usize) -> usize {
        let best = batch(self.rates.bad());
        match self.independent() {
            true => best.min(fresh.div_ceil(self.room().max(1))),
            false => best,
        }
    }

    /// What was overtaken by something that it shares a target with is tested together, and not overtaken again.
    fn form_overtaken(&mut self, now: Time) -> bool {
        if !self.independent() || self.groups.iter().any(|it| it.lands) {
            return false;
        }
        let members = self.overtaken();
        if members.is_empty() {
            return false;
        }
        let id = self.next();
        self.groups.push(Group { id, members, lands: true });
        let at = self.groups.len() - 1;
        self.test(at, now);
        true
    }

    /// Changes that were overtaken and are tested next: one that is tried by itself, or all that may be tested
    /// together.
    fn overtaken(&self) -> Vec<ChangeId> {
        let grouped = self.grouped();
        let alone = self
            .changes
            .values()
            .find(|it| it.alone && it.standing == Standing::Screened && !grouped.contains(&it.id));
        alone.map_or_else(|| self.screened(), |it| vec![it.id])
    }

    /// Whether a batch that is not full begins all the same.
    fn may_begin(&self, members: &[ChangeId], now: Time) -> bool {
        let patience = u128::from(self.options.patience_ms);
        let waited = |id: &ChangeId| {
            self.changes.get(id).is_some_and(|it| now.since(it.added).as_millis() >= patience)
        };
        members.iter().any(waited)
    }
}
