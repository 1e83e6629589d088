//! What follows from what became of a run.

use std::collections::BTreeSet;

use super::change::{ChangeId, End, Held, Standing};
use super::event::{LeftOut, Member, Outcome, Refusal, RunId};
use super::evidence::{Failure, MAX_NAME};
use super::lane::{Base, Lane, Phase, Run};
use super::names::Commit;
use super::options::Mode;
use crate::model::Time;

/// Runs in a row that could not be carried out, or whose push was refused, after which a person has to look.
const MAX_UNABLE: u32 = 3;
const MAX_REFUSED: u32 = 2;
/// Targets that are kept of a failure.
const MAX_TARGETS: usize = 20;

impl Lane {
    pub(super) fn built(&mut self, id: RunId, commit: Commit, left_out: &[LeftOut], now: Time) {
        let Some(run) = self.runs.get_mut(&id).filter(|it| it.phase == Phase::Checking) else {
            return;
        };
        run.commit = Some(commit);
        let base = run.base.clone();
        let out: BTreeSet<_> = left_out.iter().map(|it| it.id).collect();
        let (gone, kept): (Vec<Member>, Vec<Member>) =
            run.members.drain(..).partition(|it: &Member| out.contains(&it.id));
        run.members = kept;
        let (empty, group) = (run.members.is_empty(), run.group);
        if empty && !out.is_empty() {
            self.runs.remove(&id);
        }
        for member in gone {
            self.leave(group, member.id);
            let with_base = left_out.iter().any(|it| it.id == member.id && it.with_base);
            let on_base = self.base.as_ref().is_some_and(|it| it.commit == base);
            if with_base && on_base && self.holds(&member) {
                self.forget(member.id);
                self.end(member.id, End::Conflict(base.clone()), now);
            } else if let Some(it) = self.changes.get_mut(&member.id) {
                it.clashed = Some(base.clone());
            }
        }
    }

    fn leave(&mut self, group: Option<u64>, id: ChangeId) {
        for it in self.groups.iter_mut().filter(|it| Some(it.id) == group) {
            it.members.retain(|it| *it != id);
        }
    }

    pub(super) fn finished(&mut self, id: RunId, outcome: Outcome) {
        let Some(run) = self.runs.get(&id).filter(|it| it.phase == Phase::Checking).cloned() else {
            return;
        };
        match outcome {
            Outcome::Passed => self.passed(&run),
            Outcome::Failed { targets, proven, affecting } => {
                self.failed(&run, &targets, proven, affecting.as_ref());
            }
            Outcome::Unable(why) => {
                self.runs.remove(&id);
                self.unable += 1;
                if self.unable >= MAX_UNABLE {
                    self.paused = Some(format!("checks cannot be run: {why}"));
                }
            }
        }
    }

    fn passed(&mut self, run: &Run) {
        self.unable = 0;
        self.rates.passed();
        if run.members.is_empty() {
            self.runs.remove(&run.id);
            if let Some(base) = self.base.as_mut().filter(|it| it.commit == run.base) {
                (base.green, base.red, base.failures) = (true, false, 0);
            }
            return;
        }
        if let Some(run) = self.runs.get_mut(&run.id) {
            run.phase = Phase::Passed;
        }
        let latency = self.options.mode == Mode::Latency;
        for member in run.members.iter().filter(|it| self.holds(it)).cloned().collect::<Vec<_>>() {
            self.acquit(member.id);
            if let Some(it) = self.changes.get_mut(&member.id).filter(|_| latency) {
                it.standing = Standing::Screened;
            }
        }
    }

    fn failed(
        &mut self,
        run: &Run,
        targets: &BTreeSet<String>,
        proven: bool,
        affecting: Option<&BTreeSet<ChangeId>>,
    ) {
        self.runs.remove(&run.id);
        self.unable = 0;
        if run.members.is_empty() {
            if self.on_base(run) {
                self.base_failed(proven);
            }
            return;
        }
        // Who is not there any more may have been at fault: nothing is known of the others.
        if !run.members.iter().all(|it| self.holds(it)) {
            return;
        }
        let all: Vec<ChangeId> = run.members.iter().map(|it| it.id).collect();
        let touches = |id: &ChangeId| {
            if let Some(known) = affecting {
                return known.contains(id);
            }
            let impact = self.changes.get(id).and_then(|it| it.impact.as_ref());
            targets.is_empty() || impact.is_none_or(|it| !it.is_disjoint(targets))
        };
        let mut suspects: Vec<_> = all.iter().copied().filter(touches).collect();
        if suspects.is_empty() {
            suspects.clone_from(&all);
        }
        let name = |it: &String| it.chars().take(MAX_NAME).collect();
        let targets = targets.iter().take(MAX_TARGETS).map(name).collect();
        self.note(Failure { suspects, base: run.base.clone(), targets, proven });
        // What lies behind is put back untested.
        if let Some(group) = self.groups.iter_mut().find(|it| Some(it.id) == run.group) {
            group.members = all;
        }
    }

    /// Lands what may, and screens what has passed and may not.
    pub(super) fn settle(&mut self) {
        self.end_comparisons();
        let passed = |it: &&Run| it.phase == Phase::Passed;
        let mut passed: Vec<Run> = self.runs.values().filter(passed).cloned().collect();
        passed.sort_by_key(|it| (self.rank(it), std::cmp::Reverse(it.members.len())));
        for run in passed {
            let whole = run.commit.is_some() && run.members.iter().all(|it| self.holds(it));
            if whole && !self.on_base(&run) && self.is_provable(&run) {
                self.prove(&run);
                continue;
            }
            let may = self.on_base(&run) && whole;
            let group = run.group.and_then(|id| self.groups.iter().find(|it| it.id == id));
            let lands = match self.options.mode {
                Mode::Latency => true,
                Mode::Throughput => self.independent() || group.is_some_and(|it| it.lands),
            };
            if !(may && lands) {
                self.screen(&run);
                continue;
            }
            let waits = match self.options.mode {
                Mode::Latency => self.overtakes(&run),
                Mode::Throughput => self.yields(&run),
            };
            if waits {
                continue;
            }
            let busy = self.runs.values().any(|it| it.phase == Phase::Landing);
            if !busy && self.paused.is_none() {
                let Some(run) = self.runs.get_mut(&run.id) else { continue };
                run.phase = Phase::Landing;
            }
        }
    }

    /// Whether a run that began no later, and is about to pass, would be lost if this one landed now.
    fn overtakes(&self, run: &Run) -> bool {
        let ids = |it: &Run| it.members.iter().map(|it| it.id).collect::<Vec<_>>();
        let own = ids(run);
        self.runs.values().any(|other| {
            let members = ids(other);
            let likely: f64 = members.iter().map(|it| 1.0 - self.bad(*it)).product();
            other.phase == Phase::Checking
                && other.began <= run.began
                && self.on_base(other)
                && members.iter().any(|it| !own.contains(it))
                && !members.starts_with(&own)
                && likely > 0.5
                && !self.suspected(&members)
        })
    }

    /// What has passed is believed to be good, though its tree cannot land.
    pub(super) fn screen(&mut self, run: &Run) {
        self.runs.remove(&run.id);
        for member in &run.members {
            if self.holds(member)
                && let Some(it) = self.changes.get_mut(&member.id)
            {
                it.standing = Standing::Screened;
            }
            self.leave(run.group, member.id);
        }
    }

    /// Nothing of this head can be tested: whatever was to be is left.
    pub(super) fn unfetched(&mut self, id: ChangeId, head: Commit, why: String) {
        self.pushed(id, head.clone());
        self.runs.retain(|_, run| {
            run.phase != Phase::Checking
                || !run.members.iter().any(|it| it.id == id && it.head == head)
        });
        self.hold(id, Held::Unfetched(why));
    }

    pub(super) fn landed(&mut self, id: RunId, now: Time) {
        let landing = |it: &Run| it.phase == Phase::Landing;
        if !self.runs.get(&id).is_some_and(landing) {
            return;
        }
        let Some(run) = self.runs.remove(&id) else { return };
        let Some(commit) = run.commit.clone() else { return };
        self.refused = 0;
        for member in &run.members {
            self.leave(run.group, member.id);
            // A newer head of the same branch still waits.
            if self.holds(member) {
                self.rates.landed();
                // Another run with it may have failed while it waited to land.
                self.acquit(member.id);
                self.end(member.id, End::Landed(commit.clone()), now);
            }
        }
        let was_green = self.base.as_ref().is_some_and(|it| it.green);
        self.base = Some(Base { commit: commit.clone(), green: true, failures: 0, red: false });
        self.carry_over(&run, &commit);
        if !was_green {
            self.distrust(&run.base);
        }
        self.release();
    }

    /// Runs that began with what has landed go on, on top of it.
    fn carry_over(&mut self, landed: &Run, commit: &Commit) {
        for run in self.runs.values_mut().filter(|it| it.base == landed.base) {
            if let Some(rest) = run.members.strip_prefix(landed.members.as_slice()) {
                run.members = rest.to_vec();
                run.base = commit.clone();
            }
        }
        // Without members it was the same tree, and is known.
        self.runs.retain(|_, it| it.base != *commit || !it.members.is_empty());
    }

    pub(super) fn not_landed(&mut self, id: RunId, why: Refusal) {
        let landing = |it: &&Run| it.phase == Phase::Landing;
        let Some(run) = self.runs.get(&id).filter(landing).cloned() else { return };
        self.screen(&run);
        let Refusal::Refused(words) = why else { return };
        match run.members.as_slice() {
            [only] => {
                self.hold(only.id, Held::Refused(words.clone()));
                self.refused += 1;
            }
            several => {
                for member in several {
                    if let Some(it) = self.changes.get_mut(&member.id) {
                        it.alone = true;
                    }
                }
            }
        }
        if self.refused >= MAX_REFUSED {
            self.paused = Some(format!("the repository refuses what is pushed: {words}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Add, Branch, Effect, Event, Options};

    #[test]
    fn a_head_that_cannot_be_fetched_is_held_until_somebody_mends_that() {
        let commit = |digit: &str| Commit::new(&digit.repeat(40)).expect("a commit");
        let add = |head: &str| {
            let (branch, head) = (Branch::new("one").expect("a name"), commit(head));
            Event::Add(Add { branch, head, priority: 5, impact: None })
        };
        // Either the branch was pushed again, or the clone was lost and the same head is fetched anew.
        for lost in ["c", "b"] {
            let mut lane = Lane::new(Branch::new("main").expect("a name"), Options::default());
            lane.apply(add("b"), Time(0)).expect("it is taken");
            lane.apply(Event::Target(commit("a")), Time(0)).expect("it is taken");
            let run = *lane.runs.keys().next().expect("it is tested");
            let id = *lane.changes.keys().next().expect("it waits");
            let event = Event::Unfetched { id, head: commit(lost), why: "lost".to_owned() };
            let effects = lane.apply(event, Time(1)).expect("it is taken");
            assert_eq!(effects, [Effect::Cancel(run)], "{lost}");
            let change = &lane.changes[&id];
            assert_eq!(change.head, commit(lost));
            assert_eq!(change.standing, Standing::Held(Held::Unfetched("lost".to_owned())));
            let effects = lane.apply(add(lost), Time(2)).expect("it is taken");
            assert!(matches!(effects.as_slice(), [Effect::Check { .. }]), "{effects:?}");
        }
    }

    #[test]
    fn only_those_are_suspects_who_affect_what_failed() {
        let commit = |digit: &str| Commit::new(&digit.repeat(40)).expect("a commit");
        for (affecting, suspects) in [
            (None, vec![1, 2, 3]),
            (Some(vec![2]), vec![2]),
            // If no change affects what failed, all are suspects, because one of them must be at fault.
            (Some(Vec::new()), vec![1, 2, 3]),
        ] {
            let mut lane = Lane::new(Branch::new("main").expect("a name"), Options::default());
            let mut apply = |event| lane.apply(event, Time(0)).expect("it is taken");
            for (name, head) in [("one", "b"), ("two", "c"), ("three", "d")] {
                let (branch, head) = (Branch::new(name).expect("a name"), commit(head));
                apply(Event::Add(Add { branch, head, priority: 5, impact: None }));
            }
            apply(Event::Target(commit("a")));
            let run = *lane.runs.keys().next().expect("they are tested");
            let affecting = affecting.map(|it| it.into_iter().map(ChangeId).collect());
            let targets = BTreeSet::from(["//x".to_owned()]);
            let outcome = Outcome::Failed { targets, proven: true, affecting };
            lane.apply(Event::Finished { run, outcome }, Time(1)).expect("it is taken");
            let noted: Vec<_> = lane.failures[0].suspects.iter().map(|it| it.0).collect();
            assert_eq!(noted, suspects);
        }
    }
}
