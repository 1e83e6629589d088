//! Each change as soon as can be: several outcomes are speculated on at the same time.
//!
//! A world says which of the next changes are bad; the likeliest are looked at, with how likely they are after
//! what failed. A run is worth what it would land in the worlds in which it passes, beyond what other runs land
//! there. Runs are begun by that worth, as many as there are workers.

use super::change::ChangeId;
use super::cut::batch;
use super::evidence::Failure;
use super::judging::Next;
use super::lane::{Lane, Phase};
use crate::model::Time;

/// Units that are looked at: a change each, or as many as are needed to look at all.
const MAX_UNITS: usize = 12;
/// Changes that are looked at.
const MAX_LOOKED_AT: usize = 128;
const MIN_LOOKED_AT: usize = 6;
/// A run that would land fewer than this, in the mean, is not begun.
const MIN_GAIN: f64 = 0.005;
/// The least probability that a failure has a cause beyond the suspects that are looked at: more may be bad than worlds
/// are.
const UNEXPLAINED: f64 = 1e-6;
/// Suspects of one failure that are looked at one by one.
const MAX_HOT: usize = 6;

struct World {
    bad: u32,
    weight: f64,
    /// What lands in it by the runs so far.
    lands: f64,
}

struct Candidate {
    mask: u32,
    value: f64,
}

impl Lane {
    pub(super) fn plan_latency(&mut self, now: Time) {
        self.groups.clear();
        let stale = |run: &super::lane::Run| run.phase == Phase::Checking && !self.on_base(run);
        let stale: Vec<_> = self.runs.values().filter(|it| stale(it)).map(|it| it.id).collect();
        stale.iter().for_each(|id| drop(self.runs.remove(id)));
        self.judge_alone(now);
        if self.base.as_ref().is_some_and(|it| it.red) {
            return self.one_by_one(now);
        }
        let order = self.sequence(now);
        if !order.is_empty() && self.room() > 0 {
            self.speculate(&order, now);
        }
    }

    /// Decides about changes that alone are left to explain a failure.
    fn judge_alone(&mut self, now: Time) {
        let mut alone: Vec<ChangeId> =
            self.failures.iter().filter_map(|it| only(&it.suspects)).collect();
        alone.sort_unstable();
        alone.dedup();
        for id in alone {
            match self.judge(id, now) {
                Next::Done => {}
                Next::Base => self.begin_base(now),
                Next::Again => self.begin_alone(id, now),
            }
        }
    }

    fn begin_alone(&mut self, id: ChangeId, now: Time) {
        let own = |run: &super::lane::Run| matches!(run.members.as_slice(), [it] if it.id == id && self.holds(it));
        if !self.runs.values().any(own) && self.room() > 0 {
            self.begin(&[id], None, now);
        }
    }

    /// Tests changes one by one on a base that fails: whoever passes mends it, and the others are held.
    fn one_by_one(&mut self, now: Time) {
        for id in self.order(now) {
            self.begin_alone(id, now);
        }
    }

    /// The order in which changes are put together: as in the longest run, so that runs begin alike, then the rest.
    fn sequence(&self, now: Time) -> Vec<ChangeId> {
        let longest = self.runs.values().max_by_key(|it| it.members.len());
        let order = self.apart(self.order(now));
        let first = longest.into_iter().flat_map(|it| &it.members).map(|it| it.id);
        let mut sequence: Vec<_> = first.filter(|it| order.contains(it)).collect();
        let rest: Vec<_> = order.into_iter().filter(|it| !sequence.contains(it)).collect();
        sequence.extend(rest);
        if let Some(alone) =
            sequence.iter().find(|id| self.changes.get(id).is_some_and(|it| it.alone))
        {
            return vec![*alone];
        }
        // So many that it is not unlikely that all are good: of more, hardly any world would be looked at.
        // The more failures nobody has explained, the fewer, so that in the end one alone is decided.
        let scope = (2 * batch(self.rates.bad())).clamp(MIN_LOOKED_AT, MAX_LOOKED_AT);
        let halved = self.failures.len() / (self.options.workers + 2);
        sequence.truncate((scope >> halved.min(usize::BITS as usize - 1)).max(1));
        sequence
    }

    fn speculate(&mut self, order: &[ChangeId], now: Time) {
        let units = self.units(order);
        let mut worlds = self.worlds(&units);
        for run in self.runs.values() {
            let within = |ids: &&&[ChangeId]| run.members.iter().any(|it| ids.contains(&it.id));
            let places = units.iter().enumerate().filter(|(_, ids)| within(ids));
            let mask = places.fold(0, |mask, (at, _)| mask | 1 << at);
            let value = run.members.len() as f64;
            run_in(&mut worlds, &Candidate { mask, value });
        }
        let candidates = candidates(&units, &worlds);
        while self.room() > 0 {
            let gain = |it: &Candidate| gain(&worlds, it);
            let best = candidates.iter().map(|it| (gain(it), it));
            let Some((gain, best)) = best.max_by(|one, other| one.0.total_cmp(&other.0)) else {
                return;
            };
            if gain < MIN_GAIN {
                if let ([first, ..], true) = (order, self.runs.is_empty()) {
                    self.begin_alone(*first, now);
                }
                return;
            }
            run_in(&mut worlds, best);
            let chosen = units.iter().enumerate().filter(|(at, _)| best.mask >> at & 1 == 1);
            let ids: Vec<_> = chosen.flat_map(|(_, ids)| ids.iter().copied()).collect();
            self.begin(&ids, None, now);
        }
    }

    /// Changes that are taken together where there are many; suspects of the narrowest failure are not.
    fn units<'a>(&self, order: &'a [ChangeId]) -> Vec<&'a [ChangeId]> {
        let several = self.failures.iter().map(|it| &it.suspects).filter(|it| it.len() > 1);
        let narrowest = several.min_by_key(|it| it.len());
        let hot: Vec<_> = narrowest.into_iter().flatten().take(MAX_HOT).collect();
        let size = order.len().div_ceil(MAX_UNITS).max(1);
        let mut units = Vec::new();
        let mut from = 0;
        for at in 0..order.len() {
            let next_is_hot = order.get(at + 1).is_some_and(|it| hot.contains(&it));
            if at + 1 - from == size || next_is_hot || hot.contains(&&order[at]) {
                units.push(&order[from..=at]);
                from = at + 1;
            }
        }
        if from < order.len() {
            units.push(&order[from..]);
        }
        units
    }

    /// The likeliest worlds: nobody is bad, one unit is, two are.
    fn worlds(&self, units: &[&[ChangeId]]) -> Vec<World> {
        let good: Vec<f64> =
            units.iter().map(|ids| ids.iter().map(|id| 1.0 - self.bad(*id)).product()).collect();
        let all: f64 = good.iter().product();
        let odds = |at: usize| (1.0 - good[at]) / good[at];
        let n = units.len();
        let mut worlds = vec![(0_u32, all)];
        for one in 0..n {
            worlds.push((1 << one, all * odds(one)));
            worlds.extend(
                (0..one).map(|other| (1 << one | 1 << other, all * odds(one) * odds(other))),
            );
        }
        let facts: Vec<_> = self.failures.iter().map(|it| self.fact(it, units)).collect();
        let after = |(bad, weight): (u32, f64)| {
            let unexplained = facts.iter().filter(|(mask, _)| mask & bad == 0);
            let weight = unexplained.fold(weight, |weight, (_, flaky)| weight * flaky);
            World { bad, weight, lands: 0.0 }
        };
        let mut worlds: Vec<_> = worlds.into_iter().map(after).collect();
        let sum: f64 = worlds.iter().map(|it| it.weight).sum();
        worlds.iter_mut().for_each(|it| it.weight /= sum.max(f64::MIN_POSITIVE));
        worlds
    }

    /// The units of which one may explain a failure, and the probability of it if none does.
    fn fact(&self, it: &Failure, units: &[&[ChangeId]]) -> (u32, f64) {
        let place = |id: &ChangeId| units.iter().position(|ids| ids.contains(id));
        let mask = it.suspects.iter().filter_map(place).fold(0, |mask, at| mask | 1 << at);
        let elsewhere = it.suspects.iter().filter(|id| place(id).is_none());
        let good: f64 = elsewhere.map(|id| 1.0 - self.bad(*id)).product();
        let flaky = if it.proven { 0.0 } else { self.flaky() };
        (mask, (flaky + 1.0 - good).clamp(UNEXPLAINED, 1.0))
    }
}

fn only(suspects: &[ChangeId]) -> Option<ChangeId> {
    match suspects {
        [one] => Some(*one),
        _ => None,
    }
}

fn gain(worlds: &[World], it: &Candidate) -> f64 {
    let passing = worlds.iter().filter(|world| world.bad & it.mask == 0);
    passing.map(|world| world.weight * (it.value - world.lands).max(0.0)).sum()
}

fn run_in(worlds: &mut [World], it: &Candidate) {
    for world in worlds.iter_mut().filter(|world| world.bad & it.mask == 0) {
        world.lands = world.lands.max(it.value);
    }
}

/// What is good in each world, and prefixes of what is good where at most one unit is bad.
fn candidates(units: &[&[ChangeId]], worlds: &[World]) -> Vec<Candidate> {
    let all: u32 = (1_u32 << units.len()) - 1;
    let mut masks = Vec::new();
    for world in worlds {
        let good = all & !world.bad;
        masks.push(good);
        if world.bad.count_ones() <= 1 {
            masks.extend((1..units.len()).map(|length| good & ((1 << length) - 1)));
        }
    }
    masks.sort_unstable();
    masks.dedup();
    let value = |mask: u32| {
        let chosen = units.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1);
        chosen.map(|(_, ids)| ids.len() as f64).sum()
    };
    masks
        .into_iter()
        .filter(|it| *it != 0)
        .map(|mask| Candidate { mask, value: value(mask) })
        .collect()
}
