//! Workers, their slots, and which of them gets what.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::lanes::{Class, ClassId, Lanes};
use super::limits::Millis;
use super::platform::Offer;
use super::quotas::Owner;
use super::ready::{LaneId, Ready};
use super::types::{Joined, LeaseId, TaskId, WorkerId};

pub(super) struct Worker {
    pub name: Arc<str>,
    pub slots: u32,
    pub leases: BTreeSet<LeaseId>,
    /// Leases that the worker holds though it should not, and when it must have given each back:
    /// they take up slots until then.
    pub strays: BTreeMap<LeaseId, Millis>,
    pub draining: bool,
    /// Why the worker takes no leases for now; `None`: it takes some.
    pub paused: Option<Arc<str>>,
    pub last_seen: Millis,
    /// When the silence timer that is set fires.
    pub silence_timer: Millis,
    class: ClassId,
}

impl Worker {
    /// The number of slots that the worker's leases and strays take up.
    pub fn occupied(&self) -> u32 {
        (self.leases.len() + self.strays.len()) as u32
    }

    fn takes(&self) -> bool {
        !self.draining && self.paused.is_none()
    }

    fn free(&self) -> u32 {
        if self.takes() { self.slots.saturating_sub(self.occupied()) } else { 0 }
    }
}

/// Tasks of a lane that are looked at for one that may go to a free worker.
pub(super) const MAX_LOOKED_AT: usize = 32;
/// Workers whose reason is named where all have paused.
const MAX_PAUSED_NAMED: usize = 3;

/// The paused workers as one text: `name: reason; …`.
pub(crate) fn paused_in_words(reasons: &[(String, String)]) -> String {
    let each = reasons.iter().map(|(name, reason)| format!("{name}: {reason}"));
    each.collect::<Vec<_>>().join("; ")
}

#[derive(Default)]
pub(super) struct Fleet {
    pub workers: BTreeMap<WorkerId, Worker>,
    pub lanes: Lanes,
    by_name: HashMap<Arc<str>, WorkerId>,
}

impl Fleet {
    pub fn named(&self, name: &Arc<str>) -> Option<WorkerId> {
        self.by_name.get(name).copied()
    }

    fn change_slots(&mut self, id: WorkerId, change: impl FnOnce(&mut Worker)) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let before = worker.free();
        change(worker);
        let after = worker.free();
        let Some(class) = self.lanes.classes.get_mut(&worker.class) else { return };
        class.free.remove(&(Reverse(before), id));
        if after > 0 {
            class.free.insert((Reverse(after), id));
        }
    }

    /// Adds a worker whose name is not taken.
    pub fn worker_joins(&mut self, joined: Joined, now: Millis, silence_timer: Millis) {
        let class = self.lanes.class_of(joined.offer);
        self.by_name.insert(joined.name.clone(), joined.worker);
        let worker = Worker {
            name: joined.name,
            slots: joined.slots,
            leases: BTreeSet::new(),
            strays: BTreeMap::new(),
            draining: false,
            paused: joined.paused,
            last_seen: now,
            silence_timer,
            class,
        };
        if let Some(class) = self.lanes.classes.get_mut(&class) {
            class.members += 1;
            if worker.takes() {
                class.takers += 1;
                class.free.insert((Reverse(worker.free()), joined.worker));
            }
        }
        self.workers.insert(joined.worker, worker);
    }

    /// Removes a worker. Returns it with the lanes that nobody serves any more.
    pub fn worker_leaves(&mut self, id: WorkerId, now: Millis) -> Option<(Worker, Vec<LaneId>)> {
        let unserved = self.worker_drains(id, now);
        let worker = self.workers.remove(&id)?;
        if self.by_name.get(&worker.name) == Some(&id) {
            self.by_name.remove(&worker.name);
        }
        if let Some(class) = self.lanes.classes.get_mut(&worker.class) {
            class.members -= 1;
            if class.members == 0 {
                self.lanes.remove_class(worker.class);
            }
        }
        Some((worker, unserved))
    }

    fn change_taking(
        &mut self,
        id: WorkerId,
        now: Millis,
        change: impl FnOnce(&mut Worker),
    ) -> Vec<LaneId> {
        let Some(took) = self.workers.get(&id).map(Worker::takes) else { return Vec::new() };
        self.change_slots(id, change);
        let Some(worker) = self.workers.get(&id) else { return Vec::new() };
        let takes = worker.takes();
        let Some(class) = self.lanes.classes.get_mut(&worker.class) else { return Vec::new() };
        if takes && !took {
            class.takers += 1;
        }
        if takes || !took {
            return Vec::new();
        }
        class.takers -= 1;
        if class.takers > 0 {
            return Vec::new();
        }
        let lanes: Vec<LaneId> = class.lanes.iter().copied().collect();
        let unserved: Vec<LaneId> =
            lanes.into_iter().filter(|lane| !self.lanes.is_served(*lane)).collect();
        for lane in &unserved {
            if let Some(lane) = self.lanes.all.get_mut(lane) {
                lane.unserved_since = now;
            }
        }
        unserved
    }

    /// The worker takes nothing more. Returns the lanes that nobody serves any more.
    pub fn worker_drains(&mut self, id: WorkerId, now: Millis) -> Vec<LaneId> {
        self.change_taking(id, now, |worker| worker.draining = true)
    }

    /// The worker takes nothing for now or, without a reason, takes tasks again. Returns the
    /// lanes that nobody serves any more.
    pub fn worker_pauses(
        &mut self,
        id: WorkerId,
        reason: Option<Arc<str>>,
        now: Millis,
    ) -> Vec<LaneId> {
        self.change_taking(id, now, |worker| worker.paused = reason)
    }

    pub fn occupy(&mut self, id: WorkerId, lease: LeaseId) {
        self.change_slots(id, |worker| {
            worker.leases.insert(lease);
        });
    }

    pub fn vacate(&mut self, id: WorkerId, lease: LeaseId) {
        self.change_slots(id, |worker| {
            worker.leases.remove(&lease);
        });
    }

    /// `false`: that was known, or there is no such worker.
    pub fn add_stray(&mut self, id: WorkerId, lease: LeaseId, deadline: Millis) -> bool {
        if self.workers.get(&id).is_none_or(|worker| worker.strays.contains_key(&lease)) {
            return false;
        }
        self.change_slots(id, |worker| {
            worker.strays.insert(lease, deadline);
        });
        true
    }

    /// Takes a stray away from its worker. Returns when it had to have been given back; `None`: it
    /// was no stray.
    pub fn remove_stray(&mut self, id: WorkerId, lease: LeaseId) -> Option<Millis> {
        let deadline = *self.workers.get(&id)?.strays.get(&lease)?;
        self.change_slots(id, |worker| {
            worker.strays.remove(&lease);
        });
        Some(deadline)
    }

    /// Whether a worker but this one takes tasks of the lane.
    pub fn has_other_taker(&self, lane: LaneId, id: WorkerId) -> bool {
        let Some(lane) = self.lanes.all.get(&lane) else { return false };
        let own = self.workers.get(&id).filter(|worker| worker.takes());
        let own = own.filter(|worker| lane.classes.contains(&worker.class));
        let classes = lane.classes.iter().filter_map(|class| self.lanes.classes.get(class));
        classes.map(|class| class.takers).sum::<usize>() > usize::from(own.is_some())
    }

    /// Names and reasons of paused workers that offer what the lane requires, in words.
    pub fn paused(&self, lane: LaneId) -> Option<String> {
        let lane = self.lanes.all.get(&lane)?;
        let fitting = self.workers.values().filter(|worker| {
            !worker.draining && lane.classes.contains(&worker.class) && worker.paused.is_some()
        });
        let why =
            |worker: &Worker| Some((worker.name.to_string(), worker.paused.as_ref()?.to_string()));
        let reasons: Vec<_> = fitting.filter_map(why).take(MAX_PAUSED_NAMED).collect();
        (!reasons.is_empty()).then(|| paused_in_words(&reasons))
    }

    /// A worker with a free slot for the lane: the one with the most, if possible not `avoid`;
    /// where `elsewhere`, never that.
    pub fn free_worker(
        &self,
        lane: LaneId,
        avoid: Option<WorkerId>,
        elsewhere: bool,
    ) -> Option<WorkerId> {
        let classes = &self.lanes.all.get(&lane)?.classes;
        let classes = || classes.iter().filter_map(|class| self.lanes.classes.get(class));
        let other =
            |class: &Class| class.free.iter().find(|(_, worker)| Some(*worker) != avoid).copied();
        let preferred = classes().filter_map(other).min();
        let any = || classes().filter_map(|class| class.free.first().copied()).min();
        preferred.or_else(|| any().filter(|_| !elsewhere)).map(|(_, worker)| worker)
    }

    /// The task that a free slot of this worker should run next, of those that `may` go to it.
    pub fn next_task(
        &self,
        id: WorkerId,
        ready: &Ready,
        may_run: &dyn Fn(&Owner) -> bool,
        may: impl Fn(TaskId) -> bool,
    ) -> Option<TaskId> {
        let worker = self.workers.get(&id).filter(|worker| worker.free() > 0)?;
        let lanes = &self.lanes.classes.get(&worker.class)?.ready;
        let first = |lane: &LaneId| {
            ready.in_turn(*lane, may_run).take(MAX_LOOKED_AT).find(|(_, task)| may(*task))
        };
        lanes.iter().filter_map(first).min().map(|(_, task)| task)
    }

    pub fn offer(&self, worker: &Worker) -> Option<&Offer> {
        self.lanes.classes.get(&worker.class).map(|class| &class.offer)
    }

    /// Checks, for tests, that all indexes over the workers agree.
    pub fn check(&self) {
        for (id, worker) in &self.workers {
            let class = &self.lanes.classes[&worker.class];
            assert!(worker.leases.len() <= worker.slots as usize, "{id:?} has too many leases");
            let listed = class.free.contains(&(Reverse(worker.free()), *id));
            assert_eq!(listed, worker.free() > 0, "{id:?} and its class disagree on free slots");
        }
        for (id, class) in &self.lanes.classes {
            let members = || self.workers.values().filter(|worker| worker.class == *id);
            assert_eq!(class.members, members().count());
            assert_eq!(class.takers, members().filter(|worker| worker.takes()).count());
        }
        self.lanes.check();
    }
}
