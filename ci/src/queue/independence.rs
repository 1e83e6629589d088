//! What passed on a target that has moved since counts where that is proven: each target of the tree that would land is
//! as it is in the base, which is green, or as it was tested. What cannot be proven is tested again, in a batch that
//! nothing overtakes which shares a target with it: so nothing is overtaken for ever.

use super::event::{Effect, RunId};
use super::lane::{Comparison, Lane, Phase, Run};
use super::names::Commit;
use super::options::Mode;

/// Proofs of one run: the target may move again during each. Then it is tested again.
const MAX_PROOFS: u32 = 8;

impl Lane {
    /// Whether what passes lands by itself. Latency mode speculates on what lands before: its runs share changes.
    pub(super) fn independent(&self) -> bool {
        self.options.independent && self.options.mode == Mode::Throughput
    }

    /// Whether a run may count on the base as it is, which is not the one that it began on.
    pub(super) fn is_provable(&self, run: &Run) -> bool {
        let green = self.base.as_ref().is_some_and(|it| it.green);
        self.independent() && green && !run.members.is_empty() && run.proofs < MAX_PROOFS
    }

    /// The order in which runs that have passed are looked at: first what may land at once, then what was proven least
    /// often.
    pub(super) fn rank(&self, run: &Run) -> (bool, bool, u32) {
        let is_stale = self.independent() && !self.on_base(run);
        (!self.is_kept(run), is_stale, run.proofs)
    }

    /// Has it proven, when nothing else is. What shares a target with the batch that is not overtaken waits for that.
    pub(super) fn prove(&mut self, run: &Run) {
        let kept = self.kept();
        let shares = run.compared.is_some_and(|it| Some(it.with) == kept && !it.clear);
        if shares || self.is_busy() {
            return;
        }
        let onto = self.base.as_ref().map(|it| it.commit.clone());
        if let Some(run) = self.runs.get_mut(&run.id) {
            run.phase = Phase::Proving;
            run.onto = onto;
            run.proofs += 1;
        }
    }

    /// Whether something is proven, compared or landed now, or the queue is paused. One run at a time: each is proven
    /// on what the one before it lands.
    fn is_busy(&self) -> bool {
        let looks =
            |it: &Run| matches!(it.phase, Phase::Proving | Phase::Comparing | Phase::Landing);
        self.paused.is_some() || self.runs.values().any(looks)
    }

    pub(super) fn proven(&mut self, id: RunId, base: &Commit, commit: Option<Commit>) {
        let asked = |it: &&Run| it.phase == Phase::Proving && it.onto.as_ref() == Some(base);
        let Some(run) = self.runs.get(&id).filter(asked).cloned() else { return };
        let Some(commit) = commit else { return self.screen(&run) };
        let is_base = self.base.as_ref().is_some_and(|it| it.commit == *base);
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.phase = Phase::Passed;
        run.onto = None;
        // On a target that has moved again it is proven again, from what was tested.
        if is_base {
            run.base = base.clone();
            run.commit = Some(commit);
        }
    }

    /// Whether a run waits for the batch that is not overtaken: they share a target, or it is not known yet whether.
    pub(super) fn yields(&mut self, run: &Run) -> bool {
        if self.is_kept(run) {
            return false;
        }
        let Some(kept) = self.kept() else { return false };
        match run.compared {
            Some(it) if it.with == kept => !it.clear,
            _ => {
                self.compare(run.id, kept);
                true
            }
        }
    }

    fn compare(&mut self, id: RunId, with: RunId) {
        let is_built = self.runs.get(&with).is_some_and(|it| it.commit.is_some());
        if self.is_busy() || !is_built {
            return;
        }
        if let Some(run) = self.runs.get_mut(&id) {
            run.phase = Phase::Comparing;
            run.compared = Some(Comparison { with, clear: false });
        }
    }

    /// What a run that is compared wants done.
    pub(super) fn comparison(&self, run: &Run, commit: &Commit) -> Option<Effect> {
        let kept = self.runs.get(&run.compared?.with)?;
        let (base, other) = (commit.clone(), kept.commit.clone()?);
        let members = kept.members.clone();
        Some(Effect::Compare { run: run.id, with: kept.id, base, other, members })
    }

    pub(super) fn compared(&mut self, id: RunId, with: RunId, clear: bool) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let asked = run.compared.is_some_and(|it| it.with == with);
        if run.phase == Phase::Comparing && asked {
            run.phase = Phase::Passed;
            run.compared = Some(Comparison { with, clear });
        }
    }

    /// With a run that is gone there is nothing to compare.
    pub(super) fn end_comparisons(&mut self) {
        let compares = |it: &&Run| it.phase == Phase::Comparing;
        let all: Vec<Run> = self.runs.values().filter(compares).cloned().collect();
        let is_over = |it: &Run| it.compared.is_none_or(|it| !self.runs.contains_key(&it.with));
        let over: Vec<RunId> = all.iter().filter(|it| is_over(it)).map(|it| it.id).collect();
        for id in over {
            if let Some(run) = self.runs.get_mut(&id) {
                run.phase = Phase::Passed;
                run.compared = None;
            }
        }
    }

    /// The run that goes on of the batch that is not overtaken.
    fn kept(&self) -> Option<RunId> {
        let whole = |it: &Run| it.members.iter().all(|it| self.holds(it));
        let goes_on = |it: &&Run| it.phase != Phase::Landing && self.is_kept(it) && whole(it);
        self.runs.values().find(goes_on).map(|it| it.id)
    }

    /// Whether the run is for the batch that is not overtaken.
    pub(super) fn is_kept(&self, run: &Run) -> bool {
        let lands = |id: u64| self.groups.iter().any(|it| it.id == id && it.lands);
        self.independent() && run.group.is_some_and(lands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Time;
    use crate::queue::{Add, Branch, Event, Options, Outcome, Standing};

    fn commit(digit: &str) -> Commit {
        Commit::new(&digit.repeat(40)).expect("a commit")
    }

    /// Two changes, of which the first was overtaken, and as yet no target.
    fn overtaken() -> Lane {
        let options = Options { workers: 2, independent: true, ..Options::default() };
        let mut lane = Lane::new(Branch::new("main").expect("a name"), options);
        for (name, head) in [("one", "b"), ("two", "c")] {
            let (branch, head) = (Branch::new(name).expect("a name"), commit(head));
            let add = Event::Add(Add { branch, head, priority: 5, impact: None });
            lane.apply(add, Time(0)).expect("it is taken");
        }
        let one = lane.changes.values_mut().next().expect("it waits");
        one.standing = Standing::Screened;
        lane
    }

    /// Runs with how many members they have, and whether they are not overtaken.
    fn runs(lane: &Lane) -> Vec<(usize, bool)> {
        lane.runs.values().map(|it| (it.members.len(), lane.is_kept(it))).collect()
    }

    #[test]
    fn what_is_tried_by_itself_is_not_overtaken_for_ever_either() {
        let mut lane = overtaken();
        lane.changes.values_mut().for_each(|it| it.alone = true);
        lane.apply(Event::Target(commit("a")), Time(0)).expect("it is taken");
        assert_eq!(runs(&lane), [(1, true), (1, false)], "the other one waits for nobody");
    }

    /// A push is asked for again after a crash, and what it is compared with has gone by then.
    #[test]
    fn what_lands_as_nothing_is_left_to_compare_it_with_is_pushed_once() {
        let mut lane = overtaken();
        let take = |lane: &mut Lane, event| lane.apply(event, Time(0)).expect("it is taken");
        take(&mut lane, Event::Target(commit("a")));
        assert_eq!(runs(&lane), [(1, true), (1, false)]);
        let ids: Vec<RunId> = lane.runs.keys().copied().collect();
        for (run, built) in ids.iter().zip(["d", "e"]) {
            let event = Event::Built { run: *run, commit: commit(built), left_out: Vec::new() };
            take(&mut lane, event);
        }
        take(&mut lane, Event::Finished { run: ids[1], outcome: Outcome::Passed });
        assert_eq!(lane.runs[&ids[1]].phase, Phase::Comparing);
        let before = lane.outstanding();
        assert_eq!(lane.still_outstanding(&before).len(), 2);
        let id = *lane.changes.keys().next().expect("it is tested");
        let effects = take(&mut lane, Event::Pushed { id, head: commit("f") });
        let (base, commit) = (commit("a"), commit("e"));
        assert_eq!(effects, [Effect::Cancel(ids[0]), Effect::Land { run: ids[1], base, commit }]);
        assert!(lane.still_outstanding(&before).is_empty(), "it is asked for once");
    }
}
