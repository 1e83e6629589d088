//! A check takes as long as the dearest of what it tests. So a change that costs much more than what waits beside it is
//! passed over by a few batches of these, which are quick. After that the next batch takes it, and all that waits along.

use super::change::{Change, ChangeId, Standing};
use super::lane::Lane;
use super::names::Commit;

/// A change is dear where it costs more than so many times the median of what waits.
const DEAR: u64 = 4;
/// Batches that begin without a dear change while cheaper ones wait.
pub const MAX_PASSED_OVER: u32 = 8;

impl Change {
    /// Why batches begin without the change, in words; nothing where none did.
    pub fn why_passed_over(&self) -> Option<String> {
        if self.passed_over == 0 || self.standing != Standing::Waiting {
            return None;
        }
        let why = "it costs much more than what waits beside it";
        Some(match MAX_PASSED_OVER.saturating_sub(self.passed_over) {
            0 => format!("{why}: it is in the next batch"),
            left => format!(
                "{why}: it is tested when nothing cheaper waits, or after at most {left} more of their batches"
            ),
        })
    }
}

impl Lane {
    /// Notes what a change costs, unless it has another head by now or is gone.
    pub(super) fn note_cost(&mut self, id: ChangeId, head: &Commit, cost: u64) {
        if let Some(it) = self.changes.get_mut(&id).filter(|it| it.head == *head) {
            it.cost = Some(cost);
        }
    }

    /// The most that a change costs which is not dear beside these; nothing where no cost is known. Those whose cost is
    /// not known count as the median of the others, which stays what it is by that.
    pub(super) fn dear_beyond(&self, waiting: &[ChangeId]) -> Option<u64> {
        let known = waiting.iter().filter_map(|id| self.changes.get(id)?.cost);
        let mut costs: Vec<u64> = known.collect();
        costs.sort_unstable();
        // Of two, the lower one: beside a small change a large one is dear.
        let median = costs.get(costs.len().checked_sub(1)? / 2).copied()?;
        Some(median.max(1).saturating_mul(DEAR))
    }

    /// What is tested next of what waits, at most `size` in this order, and who is passed over by that. `dear`: what a
    /// change costs at most that is not dear; nothing: none is.
    pub(super) fn affordable(
        &self,
        waiting: &[ChangeId],
        size: usize,
        dear: Option<u64>,
    ) -> (Vec<ChangeId>, Vec<ChangeId>) {
        let change = |id: &ChangeId| self.changes.get(id);
        let is_dear = |id: &ChangeId| {
            let cost = change(id).and_then(|it| it.cost);
            dear.is_some_and(|most| cost.is_some_and(|it| it > most))
        };
        let next = waiting.iter().take(size).copied();
        let (large, mut small): (Vec<ChangeId>, Vec<ChangeId>) = next.partition(is_dear);
        let is_due = |id: &ChangeId| change(id).is_some_and(|it| it.passed_over >= MAX_PASSED_OVER);
        let highest = large.iter().filter_map(change).map(|it| it.priority).max();
        // What has a lower priority comes along, and is no reason to pass anybody over.
        let is_reason = |id: &ChangeId| change(id).is_some_and(|it| Some(it.priority) >= highest);
        let cheaper = waiting.iter().filter(|id| !is_dear(id)).take(size);
        let cheaper: Vec<ChangeId> = cheaper.copied().collect();
        if !large.is_empty() && !large.iter().any(is_due) && cheaper.iter().any(is_reason) {
            return (cheaper, large);
        }
        // Whoever looks for a culprit tests prefixes: most of them are quick where the large ones come last.
        small.extend(large);
        (small, Vec::new())
    }

    /// Notes that a batch begins without these.
    pub(super) fn pass_over(&mut self, ids: &[ChangeId]) {
        for id in ids {
            if let Some(it) = self.changes.get_mut(id) {
                it.passed_over = it.passed_over.saturating_add(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Time;
    use crate::queue::{Add, Branch, Event, Mode, Options, Outcome};

    fn commit(number: u64) -> Commit {
        Commit::new(&format!("{number:040x}")).expect("a commit")
    }

    fn take(lane: &mut Lane, event: Event) {
        lane.apply(event, Time(0)).expect("it is taken");
    }

    fn add(lane: &mut Lane, number: u64, priority: u8, cost: Option<u64>) -> ChangeId {
        let branch = Branch::new(&format!("change-{number}")).expect("a name");
        let head = commit(number);
        take(lane, Event::Add(Add { branch, head: head.clone(), priority, impact: None }));
        let id = lane.changes.values().map(|it| it.id).max().expect("it waits");
        if let Some(cost) = cost {
            take(lane, Event::Cost { id, head, cost });
        }
        id
    }

    /// A lane whose only worker is busy.
    fn busy() -> Lane {
        let mut lane = Lane::new(Branch::new("main").expect("a name"), Options::default());
        take(&mut lane, Event::Target(commit(0)));
        add(&mut lane, 1, 5, None);
        assert_eq!(lane.runs.len(), 1);
        lane
    }

    /// What runs passes and lands. Answers what is tested next.
    fn land(lane: &mut Lane) -> Vec<ChangeId> {
        let run = *lane.runs.keys().next().expect("one runs");
        let commit = commit(1_000_000 + run.0);
        take(lane, Event::Built { run, commit, left_out: Vec::new() });
        take(lane, Event::Finished { run, outcome: Outcome::Passed });
        take(lane, Event::Landed(run));
        lane.runs.values().flat_map(|it| &it.members).map(|it| it.id).collect()
    }

    #[test]
    fn what_costs_much_more_is_passed_over_but_not_for_ever() {
        let mut lane = busy();
        let large = add(&mut lane, 2, 5, Some(50));
        assert_eq!(lane.changes[&large].why_passed_over(), None);
        for round in 0..MAX_PASSED_OVER {
            let small = add(&mut lane, u64::from(100 + round), 5, Some(10));
            assert_eq!(land(&mut lane), [small], "{round}");
            let why = lane.changes[&large].why_passed_over().expect("it was passed over");
            assert!(why.contains("costs much more"), "{why}");
            // Another process reads the lane back, and decides the same.
            let kept = serde_json::to_vec(&lane).expect("it is written");
            lane = serde_json::from_slice(&kept).expect("it is read");
        }
        let small = add(&mut lane, 200, 5, Some(10));
        assert_eq!(land(&mut lane), [small, large]);
    }

    #[test]
    fn nobody_is_told_of_having_been_passed_over_in_the_other_mode() {
        let mut lane = busy();
        let large = add(&mut lane, 2, 5, Some(50));
        add(&mut lane, 3, 5, Some(10));
        land(&mut lane);
        take(&mut lane, Event::Mode(Mode::Throughput));
        assert_eq!(lane.changes[&large].passed_over, 1, "it is the same mode");
        take(&mut lane, Event::Mode(Mode::Latency));
        assert_eq!(lane.changes[&large].passed_over, 0);
    }

    #[test]
    fn it_is_tested_at_once_where_nothing_cheaper_of_its_priority_waits() {
        for (others, tested) in [
            (vec![], vec![0]),
            // Beside as much of the kind it is not dear.
            (vec![(5, 100), (5, 10)], vec![0, 1, 2]),
            (vec![(5, 13)], vec![0, 1]),
            (vec![(4, 10)], vec![1, 0]),
            (vec![(5, 10)], vec![1]),
            // With one that passes it over the others come along.
            (vec![(4, 10), (6, 10)], vec![2, 1]),
        ] {
            let mut lane = busy();
            let mut ids = vec![add(&mut lane, 2, 5, Some(50))];
            for (number, (priority, cost)) in (3..).zip(&others) {
                ids.push(add(&mut lane, number, *priority, Some(*cost)));
            }
            let tested: Vec<ChangeId> = tested.iter().map(|at: &usize| ids[*at]).collect();
            assert_eq!(land(&mut lane), tested, "{others:?}");
        }
    }

    #[test]
    fn a_second_worker_has_it_while_the_first_one_has_what_is_cheaper() {
        let mut lane = busy();
        let large = add(&mut lane, 2, 5, Some(50));
        let small = add(&mut lane, 3, 5, Some(10));
        lane.options.workers = 2;
        assert_eq!(land(&mut lane), [small, large]);
        assert_eq!(lane.runs.len(), 2);
    }

    #[test]
    fn what_is_not_known_costs_as_much_as_the_others() {
        let mut lane = busy();
        let ids = [2, 3, 4].map(|number| add(&mut lane, number, 5, None));
        assert_eq!(land(&mut lane), ids, "of nothing is anything known");
        let mut lane = busy();
        let unknown = add(&mut lane, 2, 5, None);
        let known = add(&mut lane, 3, 5, Some(10));
        let large = add(&mut lane, 4, 5, Some(50));
        assert_eq!(land(&mut lane), [unknown, known]);
        assert_eq!(land(&mut lane), [large]);
    }

    #[test]
    fn what_is_said_of_another_head_does_not_count() {
        let mut lane = busy();
        let id = add(&mut lane, 2, 5, Some(10));
        assert_eq!(lane.changes[&id].cost, Some(10));
        take(&mut lane, Event::Pushed { id, head: commit(3) });
        assert_eq!(lane.changes[&id].cost, None);
        take(&mut lane, Event::Cost { id, head: commit(2), cost: 10 });
        assert_eq!(lane.changes[&id].cost, None, "it comes late");
        take(&mut lane, Event::Cost { id: ChangeId(99), head: commit(3), cost: 10 });
        take(&mut lane, Event::Cost { id, head: commit(3), cost: u64::MAX });
        assert_eq!(lane.changes[&id].cost, Some(u64::MAX));
    }

    #[test]
    fn a_lane_that_was_written_before_there_were_costs_is_read() {
        let mut lane = busy();
        add(&mut lane, 2, 5, None);
        let mut kept = serde_json::to_value(&lane).expect("it is written");
        let changes = kept["changes"].as_object_mut().expect("they are by their numbers");
        for it in changes.values_mut().filter_map(serde_json::Value::as_object_mut) {
            assert!(it.remove("cost").is_some() && it.remove("passed_over").is_some());
        }
        assert_eq!(serde_json::from_value::<Lane>(kept).expect("it is read"), lane);
    }
}
