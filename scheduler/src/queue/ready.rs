//! Tasks that wait, in the order in which they should run.
//!
//! Each lane (one set of required properties) is ordered by priority; at equal priority the
//! invocation with the fewest running slots comes first, the one served longest ago among
//! equals; within an invocation the task expected to take longest, then the oldest.
//! Every operation is O(log n) in the number of waiting tasks.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::quotas::Owner;
use super::types::TaskId;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct LaneId(pub u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct InvocationId(u64);

/// Milliseconds that an action is expected to run of which nothing is known.
pub const UNKNOWN_EXPECTED_MS: u64 = 1_000;

/// The place in the queue where a task waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub lane: LaneId,
    pub priority: i32,
    pub invocation: InvocationId,
    pub expected_ms: u64,
}

/// Order of a lane's head among the heads of other lanes: smallest first.
pub(super) type Turn = (i32, u32, u64);

#[derive(Default)]
pub(super) struct Ready {
    levels: HashMap<LaneId, BTreeMap<i32, Level>>,
    invocations: HashMap<InvocationId, Invocation>,
    by_name: HashMap<(Arc<str>, Owner), InvocationId>,
    next_invocation: u64,
    serves: u64,
}

/// Tasks of one lane and priority.
#[derive(Default)]
struct Level {
    turns: BTreeSet<(u32, u64, InvocationId)>,
    waiting: HashMap<InvocationId, BTreeSet<(Reverse<u64>, TaskId)>>,
}

struct Invocation {
    name: Arc<str>,
    owner: Owner,
    /// The number of tasks and leases that refer to this invocation.
    references: usize,
    running: u32,
    served: u64,
    places: BTreeSet<(LaneId, i32)>,
}

impl Ready {
    /// Refers to the owner's invocation of this name; each reference is given back by `forget_invocation`.
    pub fn refer_invocation(&mut self, name: &Arc<str>, owner: &Owner) -> InvocationId {
        let next = &mut self.next_invocation;
        let id = *self.by_name.entry((name.clone(), owner.clone())).or_insert_with(|| {
            *next += 1;
            InvocationId(*next)
        });
        let invocation = self.invocations.entry(id).or_insert_with(|| Invocation {
            name: name.clone(),
            owner: owner.clone(),
            references: 0,
            running: 0,
            served: 0,
            places: BTreeSet::new(),
        });
        invocation.references += 1;
        id
    }

    /// Adds one reference to an invocation that has some already.
    pub fn refer_invocation_again(&mut self, id: InvocationId) {
        if let Some(invocation) = self.invocations.get_mut(&id) {
            invocation.references += 1;
        }
    }

    pub fn forget_invocation(&mut self, id: InvocationId) {
        let Some(invocation) = self.invocations.get_mut(&id) else { return };
        invocation.references -= 1;
        if invocation.references == 0 {
            self.by_name.remove(&(invocation.name.clone(), invocation.owner.clone()));
            self.invocations.remove(&id);
        }
    }

    pub fn owner(&self, id: InvocationId) -> Option<&Owner> {
        self.invocations.get(&id).map(|invocation| &invocation.owner)
    }

    pub fn push(&mut self, task: TaskId, place: Place) {
        let level = self.levels.entry(place.lane).or_default().entry(place.priority).or_default();
        let waiting = level.waiting.entry(place.invocation).or_default();
        if waiting.is_empty()
            && let Some(invocation) = self.invocations.get_mut(&place.invocation)
        {
            level.turns.insert((invocation.running, invocation.served, place.invocation));
            invocation.places.insert((place.lane, place.priority));
        }
        waiting.insert((Reverse(place.expected_ms), task));
    }

    pub fn remove(&mut self, task: TaskId, place: Place) {
        let Some(levels) = self.levels.get_mut(&place.lane) else { return };
        let Some(level) = levels.get_mut(&place.priority) else { return };
        let Some(waiting) = level.waiting.get_mut(&place.invocation) else { return };
        waiting.remove(&(Reverse(place.expected_ms), task));
        if !waiting.is_empty() {
            return;
        }
        level.waiting.remove(&place.invocation);
        if let Some(invocation) = self.invocations.get_mut(&place.invocation) {
            level.turns.remove(&(invocation.running, invocation.served, place.invocation));
            invocation.places.remove(&(place.lane, place.priority));
        }
        if level.waiting.is_empty() {
            levels.remove(&place.priority);
            if levels.is_empty() {
                self.levels.remove(&place.lane);
            }
        }
    }

    /// The lane's tasks of those who `may` run more, each with its turn among those of other
    /// lanes: the next one first.
    pub fn in_turn<'a>(
        &'a self,
        lane: LaneId,
        may: &'a dyn Fn(&Owner) -> bool,
    ) -> impl Iterator<Item = (Turn, TaskId)> {
        let levels = self.levels.get(&lane).into_iter().flatten();
        levels.flat_map(move |(priority, level)| {
            let may = move |(_, _, invocation): &&(u32, u64, InvocationId)| {
                self.owner(*invocation).is_some_and(may)
            };
            level.turns.iter().filter(may).flat_map(move |(running, served, invocation)| {
                let tasks = level.waiting.get(invocation).into_iter().flatten();
                tasks.map(move |(_, task)| ((*priority, *running, *served), *task))
            })
        })
    }

    fn turn(&mut self, id: InvocationId, change: impl FnOnce(&mut Invocation)) {
        let Some(invocation) = self.invocations.get_mut(&id) else { return };
        let before = (invocation.running, invocation.served, id);
        change(invocation);
        let after = (invocation.running, invocation.served, id);
        for (lane, priority) in &invocation.places {
            let levels = self.levels.get_mut(lane);
            if let Some(level) = levels.and_then(|levels| levels.get_mut(priority)) {
                level.turns.remove(&before);
                level.turns.insert(after);
            }
        }
    }

    /// A slot of the invocation begins to run: it goes to the back of its equals.
    pub fn started(&mut self, id: InvocationId) {
        self.serves += 1;
        let serves = self.serves;
        self.turn(id, |invocation| {
            invocation.running += 1;
            invocation.served = serves;
        });
    }

    pub fn stopped(&mut self, id: InvocationId) {
        self.turn(id, |invocation| invocation.running -= 1);
    }

    /// Slots that each invocation with waiting or running tasks occupies.
    pub fn running(&self) -> impl Iterator<Item = (&Arc<str>, u32)> {
        self.invocations.values().map(|invocation| (&invocation.name, invocation.running))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: LaneId = LaneId(0);

    fn take(ready: &mut Ready, places: &HashMap<u64, Place>) -> Option<u64> {
        let (_, task) = ready.in_turn(LANE, &|_| true).next()?;
        let place = places[&task.0];
        ready.remove(task, place);
        ready.started(place.invocation);
        Some(task.0)
    }

    #[test]
    fn priority_then_fewest_running_then_longest_then_oldest() {
        let mut ready = Ready::default();
        let owner = Owner { instance: "".into(), caller: None };
        let (a, b) = (
            ready.refer_invocation(&"a".into(), &owner),
            ready.refer_invocation(&"b".into(), &owner),
        );
        let mut places = HashMap::new();
        let mut push = |ready: &mut Ready, task, invocation, priority, expected_ms| {
            let place = Place { lane: LANE, priority, invocation, expected_ms };
            ready.push(TaskId(task), place);
            places.insert(task, place);
        };
        push(&mut ready, 1, a, 0, 10);
        push(&mut ready, 2, a, 0, 30);
        push(&mut ready, 3, a, 0, 30);
        push(&mut ready, 4, b, 0, 1);
        push(&mut ready, 5, b, -1, 1);
        let order: Vec<_> = std::iter::from_fn(|| take(&mut ready, &places)).collect();
        // 5 by priority; then b runs one, so a: 2; then equal, b served longest ago: 4;
        // then a alone, in order of expectation and age.
        assert_eq!(order, [5, 2, 4, 3, 1]);
        assert!(ready.levels.is_empty());
        for _ in 0..3 {
            ready.stopped(a);
        }
        assert_eq!(ready.running().map(|(_, n)| n).sum::<u32>(), 2);
        ready.forget_invocation(a);
        ready.forget_invocation(b);
        assert!(ready.invocations.is_empty() && ready.by_name.is_empty());
    }
}
