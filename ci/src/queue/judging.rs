//! Whether a change that alone is left to explain a failure is at fault.

use std::collections::BTreeSet;

use super::change::{ChangeId, End, Held, Standing};
use super::evidence::innocent;
use super::lane::{Lane, Phase};
use crate::model::Time;

/// The share of rejected changes that may have been innocent.
const MAX_WRONG: f64 = 2e-5;
/// Targets that are named to whoever is rejected.
const MAX_NAMED: usize = 20;

/// What is to be done about a suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The suspect has left the queue or waits: nothing is to be done.
    Done,
    /// The suspect has to be tested again, alone.
    Again,
    /// The base is tested first.
    Base,
}

impl Lane {
    /// The probability that a change is good.
    pub fn innocent(&self, id: ChangeId) -> f64 {
        innocent(self.failures.iter(), id, self.flaky(), self.bad(id))
    }

    /// Not more than half: else no number of failures would ever decide. A check that rules flakes out proves its failures, but for
    /// those that it leaves undecided: these are weighed by it as well.
    pub(super) fn flaky(&self) -> f64 {
        self.rates.flaky().min(0.5)
    }

    /// Whether a failure is left for which these alone may be at fault.
    pub(super) fn suspected(&self, members: &[ChangeId]) -> bool {
        let within = |it: &Vec<ChangeId>| it.iter().all(|it| members.contains(it));
        self.failures.iter().any(|it| within(&it.suspects))
    }

    /// Rejects or holds a suspect, or says what is missing for that.
    pub(super) fn judge(&mut self, id: ChangeId, now: Time) -> Next {
        let Some(base) = &self.base else { return Next::Base };
        if base.red {
            self.hold(id, Held::RedBase(base.commit.clone()));
            return Next::Done;
        }
        if self.innocent(id) > MAX_WRONG {
            return Next::Again;
        }
        if !base.green {
            return Next::Base;
        }
        self.reject(id, now);
        Next::Done
    }

    fn reject(&mut self, id: ChangeId, now: Time) {
        let own: Vec<_> = self.failures.iter().filter(|it| it.suspects == [id]).collect();
        let targets: BTreeSet<_> = own.iter().flat_map(|it| &it.targets).cloned().collect();
        let targets = targets.into_iter().take(MAX_NAMED).collect();
        let runs = u32::try_from(own.len()).unwrap_or(u32::MAX);
        self.forget(id);
        self.rates.rejected();
        self.end(id, End::Failed { targets, runs }, now);
    }

    /// The base failed by itself. Answers whether that is sure.
    pub(super) fn base_failed(&mut self, proven: bool) {
        let flaky = self.flaky();
        let Some(base) = &mut self.base else { return };
        base.failures += 1;
        let by_chance = flaky.powi(i32::try_from(base.failures).unwrap_or(i32::MAX));
        if proven || by_chance <= MAX_WRONG {
            base.red = true;
        }
    }

    /// Changes that were held for a base that is no more.
    pub(super) fn release(&mut self) {
        let base = self.base.as_ref().map(|it| &it.commit);
        for it in self.changes.values_mut() {
            if matches!(&it.standing, Standing::Held(Held::RedBase(on)) if Some(on) != base) {
                it.standing = Standing::Waiting;
            }
        }
    }

    /// From now on changes pass or fail by this. What did so by something else says nothing any more, of the target
    /// neither, and is tested anew. What was being landed may have landed: whoever pushes it looks.
    pub fn measure_by(&mut self, measure: &str) {
        let before = self.measure.replace(measure.to_owned());
        if before.is_none_or(|it| it == measure) {
            return;
        }
        if let Some(base) = &mut self.base {
            (base.green, base.failures, base.red) = (false, 0, false);
        }
        self.failures.clear();
        self.unable = 0;
        self.runs.retain(|_, it| matches!(it.phase, Phase::Checking | Phase::Landing));
        for it in self.changes.values_mut() {
            if matches!(it.standing, Standing::Screened | Standing::Held(Held::RedBase(_))) {
                it.standing = Standing::Waiting;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Add, Branch, Commit, Event, Options, Outcome};

    /// Only the base is left to be tested where a failure is proven. Otherwise the change is tested again.
    #[test]
    fn what_a_check_that_rules_flakes_out_leaves_undecided_is_tested_again() {
        let commit = |digit: &str| Commit::new(&digit.repeat(40)).expect("a commit");
        for proven in [true, false] {
            let options = Options { exact: true, ..Options::default() };
            let mut lane = Lane::new(Branch::new("main").expect("a name"), options);
            let (branch, head) = (Branch::new("one").expect("a name"), commit("b"));
            let add = Add { branch, head, priority: 5, impact: None };
            lane.apply(Event::Add(add), Time(0)).expect("it is taken");
            lane.apply(Event::Target(commit("a")), Time(0)).expect("it is taken");
            let run = *lane.runs.keys().next().expect("it is tested");
            let outcome = Outcome::Failed { targets: BTreeSet::new(), proven, affecting: None };
            lane.apply(Event::Finished { run, outcome }, Time(1)).expect("it is taken");
            let next = lane.runs.values().next().expect("that is not all");
            assert_eq!(next.members.is_empty(), proven);
        }
    }
}
