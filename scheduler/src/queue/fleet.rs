//! Workers, grouped by what they offer, and lanes: tasks grouped by what they require.
//!
//! Workers with equal offers form a class; which classes serve which lanes is computed when
//! either appears, so that neither dispatch direction looks at work or workers that do not fit.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::platform::{Offer, Requirement, explain};
use super::quotas::Owner;
use super::ready::{LaneId, Ready};
use super::types::{Joined, LeaseId, Millis, TaskId, WorkerId};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ClassId(u32);

pub(super) struct Worker {
    pub name: Arc<str>,
    pub slots: u32,
    pub leases: BTreeSet<LeaseId>,
    /// What it holds though it should not, and when it must have given that back: it takes up
    /// slots until then.
    pub strays: BTreeMap<LeaseId, Millis>,
    pub draining: bool,
    /// Why it takes nothing for now.
    pub paused: Option<Arc<str>>,
    pub last_seen: Millis,
    /// When the silence timer that is set fires.
    pub silence_timer: Millis,
    class: ClassId,
}

impl Worker {
    /// Slots that it says are taken.
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

struct Class {
    offer: Offer,
    lanes: BTreeSet<LaneId>,
    /// Those of `lanes` in which tasks wait.
    ready: BTreeSet<LaneId>,
    /// Workers with free slots, most free first.
    free: BTreeSet<(Reverse<u32>, WorkerId)>,
    members: usize,
    /// Members that neither drain nor have paused.
    takers: usize,
}

pub(super) struct Lane {
    pub requirement: Requirement,
    classes: BTreeSet<ClassId>,
    /// Its waiting tasks by the time since when.
    pub waiting: BTreeSet<(Millis, TaskId)>,
    pub running: usize,
    /// When its last worker left; its tasks wait in vain since then.
    pub unserved_since: Millis,
    /// When it is looked at whether its tasks wait in vain.
    pub unsatisfiable_at: Option<Millis>,
    references: usize,
}

/// Tasks of a lane that are looked at for one that may go to a free worker.
pub(super) const MAX_LOOKED_AT: usize = 32;
/// Workers whose reason is named where all have paused.
const MAX_PAUSED_NAMED: usize = 3;

/// `name: reason; …`.
pub(crate) fn paused_in_words(reasons: &[(String, String)]) -> String {
    let each = reasons.iter().map(|(name, reason)| format!("{name}: {reason}"));
    each.collect::<Vec<_>>().join("; ")
}

#[derive(Default)]
pub(super) struct Fleet {
    pub workers: BTreeMap<WorkerId, Worker>,
    pub lanes: BTreeMap<LaneId, Lane>,
    by_name: HashMap<Arc<str>, WorkerId>,
    classes: BTreeMap<ClassId, Class>,
    by_offer: HashMap<Offer, ClassId>,
    by_requirement: HashMap<Requirement, LaneId>,
    next: u32,
    idle_lanes: usize,
}

impl Fleet {
    fn next(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// Refers to the lane of this requirement; each reference is given back by `unrefer`.
    pub fn refer(&mut self, requirement: &Requirement, now: Millis) -> LaneId {
        let id = match self.by_requirement.get(requirement) {
            Some(id) => *id,
            None => self.add_lane(requirement, now),
        };
        if let Some(lane) = self.lanes.get_mut(&id) {
            self.idle_lanes -= usize::from(lane.references == 0);
            lane.references += 1;
        }
        id
    }

    fn add_lane(&mut self, requirement: &Requirement, now: Millis) -> LaneId {
        let id = LaneId(self.next());
        let mut classes = BTreeSet::new();
        for (class_id, class) in &mut self.classes {
            if class.offer.satisfies(requirement) {
                classes.insert(*class_id);
                class.lanes.insert(id);
            }
        }
        let requirement = requirement.clone();
        self.by_requirement.insert(requirement.clone(), id);
        let lane = Lane {
            requirement,
            classes,
            waiting: BTreeSet::new(),
            running: 0,
            unserved_since: now,
            unsatisfiable_at: None,
            references: 0,
        };
        self.lanes.insert(id, lane);
        self.idle_lanes += 1;
        id
    }

    pub fn unrefer(&mut self, id: LaneId, max_idle: usize) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.references -= 1;
        if lane.references > 0 {
            return;
        }
        self.idle_lanes += 1;
        if self.idle_lanes <= max_idle {
            return;
        }
        let idle = self.lanes.iter().filter(|(_, lane)| lane.references == 0);
        let idle: Vec<LaneId> = idle.map(|(id, _)| *id).collect();
        for id in idle {
            self.remove_lane(id);
        }
        self.idle_lanes = 0;
    }

    fn remove_lane(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.remove(&id) else { return };
        self.by_requirement.remove(&lane.requirement);
        for class in &lane.classes {
            if let Some(class) = self.classes.get_mut(class) {
                class.lanes.remove(&id);
            }
        }
    }

    pub fn named(&self, name: &Arc<str>) -> Option<WorkerId> {
        self.by_name.get(name).copied()
    }

    /// Adds a worker whose name is not taken.
    pub fn join(&mut self, joined: Joined, now: Millis, silence_timer: Millis) {
        let class = match self.by_offer.get(&joined.offer) {
            Some(class) => *class,
            None => self.add_class(joined.offer),
        };
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
        if let Some(class) = self.classes.get_mut(&class) {
            class.members += 1;
            if worker.takes() {
                class.takers += 1;
                class.free.insert((Reverse(worker.free()), joined.worker));
            }
        }
        self.workers.insert(joined.worker, worker);
    }

    fn add_class(&mut self, offer: Offer) -> ClassId {
        let id = ClassId(self.next());
        let mut class = Class {
            offer: offer.clone(),
            lanes: BTreeSet::new(),
            ready: BTreeSet::new(),
            free: BTreeSet::new(),
            members: 0,
            takers: 0,
        };
        for (lane_id, lane) in &mut self.lanes {
            if offer.satisfies(&lane.requirement) {
                lane.classes.insert(id);
                class.lanes.insert(*lane_id);
                if !lane.waiting.is_empty() {
                    class.ready.insert(*lane_id);
                }
            }
        }
        self.classes.insert(id, class);
        self.by_offer.insert(offer, id);
        id
    }

    /// Removes a worker. Returns it with the lanes that nobody serves any more.
    pub fn leave(&mut self, id: WorkerId, now: Millis) -> Option<(Worker, Vec<LaneId>)> {
        let unserved = self.drain(id, now);
        let worker = self.workers.remove(&id)?;
        if self.by_name.get(&worker.name) == Some(&id) {
            self.by_name.remove(&worker.name);
        }
        if let Some(class) = self.classes.get_mut(&worker.class) {
            class.members -= 1;
            if class.members == 0 {
                self.remove_class(worker.class);
            }
        }
        Some((worker, unserved))
    }

    fn remove_class(&mut self, id: ClassId) {
        let Some(class) = self.classes.remove(&id) else { return };
        self.by_offer.remove(&class.offer);
        for lane in &class.lanes {
            if let Some(lane) = self.lanes.get_mut(lane) {
                lane.classes.remove(&id);
            }
        }
    }

    /// The worker takes nothing more. Returns the lanes that nobody serves any more.
    pub fn drain(&mut self, id: WorkerId, now: Millis) -> Vec<LaneId> {
        self.change_taking(id, now, |worker| worker.draining = true)
    }

    /// The worker takes nothing for now or, without a reason, takes tasks again. Returns the
    /// lanes that nobody serves any more.
    pub fn pause(&mut self, id: WorkerId, reason: Option<Arc<str>>, now: Millis) -> Vec<LaneId> {
        self.change_taking(id, now, |worker| worker.paused = reason)
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
        let Some(class) = self.classes.get_mut(&worker.class) else { return Vec::new() };
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
            lanes.into_iter().filter(|lane| !self.is_served(*lane)).collect();
        for lane in &unserved {
            if let Some(lane) = self.lanes.get_mut(lane) {
                lane.unserved_since = now;
            }
        }
        unserved
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

    /// When the worker had to have given it back; `None`: it was no stray.
    pub fn remove_stray(&mut self, id: WorkerId, lease: LeaseId) -> Option<Millis> {
        let deadline = *self.workers.get(&id)?.strays.get(&lease)?;
        self.change_slots(id, |worker| {
            worker.strays.remove(&lease);
        });
        Some(deadline)
    }

    fn change_slots(&mut self, id: WorkerId, change: impl FnOnce(&mut Worker)) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let before = worker.free();
        change(worker);
        let after = worker.free();
        let Some(class) = self.classes.get_mut(&worker.class) else { return };
        class.free.remove(&(Reverse(before), id));
        if after > 0 {
            class.free.insert((Reverse(after), id));
        }
    }

    /// A task begins or ends to wait in the lane.
    pub fn set_waiting(&mut self, id: LaneId, since: Millis, task: TaskId, waits: bool) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let was_empty = lane.waiting.is_empty();
        if waits {
            lane.waiting.insert((since, task));
        } else {
            lane.waiting.remove(&(since, task));
        }
        if was_empty == lane.waiting.is_empty() {
            return;
        }
        for class in &lane.classes {
            let Some(class) = self.classes.get_mut(class) else { continue };
            if waits {
                class.ready.insert(id);
            } else {
                class.ready.remove(&id);
            }
        }
    }

    /// A lease of the lane begins; it refers to the lane until `unrefer`.
    pub fn count_running(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            self.idle_lanes -= usize::from(lane.references == 0);
            lane.references += 1;
            lane.running += 1;
        }
    }

    pub fn is_served(&self, lane: LaneId) -> bool {
        let classes = self.lanes.get(&lane).into_iter().flat_map(|lane| &lane.classes);
        classes.filter_map(|class| self.classes.get(class)).any(|class| class.takers > 0)
    }

    /// Whether a worker but this one takes tasks of the lane.
    pub fn has_other_taker(&self, lane: LaneId, id: WorkerId) -> bool {
        let Some(lane) = self.lanes.get(&lane) else { return false };
        let own = self.workers.get(&id).filter(|worker| worker.takes());
        let own = own.filter(|worker| lane.classes.contains(&worker.class));
        let classes = lane.classes.iter().filter_map(|class| self.classes.get(class));
        classes.map(|class| class.takers).sum::<usize>() > usize::from(own.is_some())
    }

    /// Names and reasons of paused workers that offer what the lane requires, in words.
    pub fn paused(&self, lane: LaneId) -> Option<String> {
        let lane = self.lanes.get(&lane)?;
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
        let classes = &self.lanes.get(&lane)?.classes;
        let classes = || classes.iter().filter_map(|class| self.classes.get(class));
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
        let lanes = &self.classes.get(&worker.class)?.ready;
        let first = |lane: &LaneId| {
            ready.in_turn(*lane, may_run).take(MAX_LOOKED_AT).find(|(_, task)| may(*task))
        };
        lanes.iter().filter_map(first).min().map(|(_, task)| task)
    }

    pub fn offer(&self, worker: &Worker) -> Option<&Offer> {
        self.classes.get(&worker.class).map(|class| &class.offer)
    }

    /// Why no worker serves the lane.
    pub fn explain(&self, lane: LaneId) -> String {
        let offers: Vec<&Offer> = self
            .classes
            .values()
            .filter(|class| class.takers > 0)
            .map(|class| &class.offer)
            .collect();
        match self.lanes.get(&lane) {
            Some(lane) => explain(&lane.requirement, &offers),
            None => String::new(),
        }
    }

    /// For tests: what is indexed twice agrees.
    pub fn check(&self) {
        for (id, worker) in &self.workers {
            let class = &self.classes[&worker.class];
            assert!(worker.leases.len() <= worker.slots as usize, "{id:?} has too many leases");
            let listed = class.free.contains(&(Reverse(worker.free()), *id));
            assert_eq!(listed, worker.free() > 0, "{id:?} and its class disagree on free slots");
        }
        for (id, class) in &self.classes {
            let members = || self.workers.values().filter(|worker| worker.class == *id);
            assert_eq!(class.members, members().count());
            assert_eq!(class.takers, members().filter(|worker| worker.takes()).count());
            for (lane_id, lane) in &self.lanes {
                let fits = class.offer.satisfies(&lane.requirement);
                assert_eq!(fits, class.lanes.contains(lane_id));
                assert_eq!(fits, lane.classes.contains(id));
                assert_eq!(fits && !lane.waiting.is_empty(), class.ready.contains(lane_id));
            }
        }
        let idle = self.lanes.values().filter(|lane| lane.references == 0).count();
        assert_eq!(idle, self.idle_lanes);
    }
}
