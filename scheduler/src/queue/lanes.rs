//! Lanes are tasks grouped by what they require; classes are workers grouped by what they offer.
//!
//! Which classes serve which lanes is computed when either appears, so that neither dispatch
//! direction looks at work or workers that do not fit.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::limits::Millis;
use super::platform::{Offer, Requirement, explain};
use super::ready::LaneId;
use super::types::{TaskId, WorkerId};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ClassId(u32);

pub(super) struct Class {
    pub offer: Offer,
    pub lanes: BTreeSet<LaneId>,
    /// The lanes among `lanes` in which tasks wait.
    pub ready: BTreeSet<LaneId>,
    /// Workers with free slots, most free first.
    pub free: BTreeSet<(Reverse<u32>, WorkerId)>,
    pub members: usize,
    /// The number of members that neither drain nor have paused.
    pub takers: usize,
}

pub(super) struct Lane {
    pub requirement: Requirement,
    pub classes: BTreeSet<ClassId>,
    /// The lane's waiting tasks, by the time since when they wait.
    pub waiting: BTreeSet<(Millis, TaskId)>,
    pub running: usize,
    /// When the last worker for the lane left; its tasks wait in vain since then.
    pub unserved_since: Millis,
    /// When to look whether the lane's tasks wait in vain; `None`: no such timer is set.
    pub unsatisfiable_at: Option<Millis>,
    pub references: usize,
}

/// All lanes and classes.
#[derive(Default)]
pub(super) struct Lanes {
    pub all: BTreeMap<LaneId, Lane>,
    pub classes: BTreeMap<ClassId, Class>,
    by_offer: HashMap<Offer, ClassId>,
    by_requirement: HashMap<Requirement, LaneId>,
    /// The latest id of a lane or class.
    next: u32,
    idle: usize,
}

impl Lanes {
    fn next(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// Refers to the lane of this requirement; each reference is given back by `unrefer_lane`.
    pub fn refer_lane(&mut self, requirement: &Requirement, now: Millis) -> LaneId {
        let id = match self.by_requirement.get(requirement) {
            Some(id) => *id,
            None => self.add_lane(requirement, now),
        };
        self.refer_lane_again(id);
        id
    }

    pub fn refer_lane_again(&mut self, id: LaneId) {
        if let Some(lane) = self.all.get_mut(&id) {
            self.idle -= usize::from(lane.references == 0);
            lane.references += 1;
        }
    }

    pub fn unrefer_lane(&mut self, id: LaneId, max_idle: usize) {
        let Some(lane) = self.all.get_mut(&id) else { return };
        lane.references -= 1;
        if lane.references > 0 {
            return;
        }
        self.idle += 1;
        if self.idle <= max_idle {
            return;
        }
        let idle = self.all.iter().filter(|(_, lane)| lane.references == 0);
        let idle: Vec<LaneId> = idle.map(|(id, _)| *id).collect();
        for id in idle {
            self.remove_lane(id);
        }
        self.idle = 0;
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
        self.all.insert(id, lane);
        self.idle += 1;
        id
    }

    fn remove_lane(&mut self, id: LaneId) {
        let Some(lane) = self.all.remove(&id) else { return };
        self.by_requirement.remove(&lane.requirement);
        for class in &lane.classes {
            if let Some(class) = self.classes.get_mut(class) {
                class.lanes.remove(&id);
            }
        }
    }

    /// The class of workers with this offer.
    pub fn class_of(&mut self, offer: Offer) -> ClassId {
        match self.by_offer.get(&offer) {
            Some(class) => *class,
            None => self.add_class(offer),
        }
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
        for (lane_id, lane) in &mut self.all {
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

    pub fn remove_class(&mut self, id: ClassId) {
        let Some(class) = self.classes.remove(&id) else { return };
        self.by_offer.remove(&class.offer);
        for lane in &class.lanes {
            if let Some(lane) = self.all.get_mut(lane) {
                lane.classes.remove(&id);
            }
        }
    }

    /// A task begins or ends to wait in the lane.
    pub fn set_waiting(&mut self, id: LaneId, since: Millis, task: TaskId, waits: bool) {
        let Some(lane) = self.all.get_mut(&id) else { return };
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

    pub fn is_served(&self, lane: LaneId) -> bool {
        let classes = self.all.get(&lane).into_iter().flat_map(|lane| &lane.classes);
        classes.filter_map(|class| self.classes.get(class)).any(|class| class.takers > 0)
    }

    /// Why no worker serves the lane.
    pub fn explain(&self, lane: LaneId) -> String {
        let offers: Vec<&Offer> = self
            .classes
            .values()
            .filter(|class| class.takers > 0)
            .map(|class| &class.offer)
            .collect();
        match self.all.get(&lane) {
            Some(lane) => explain(&lane.requirement, &offers),
            None => String::new(),
        }
    }

    /// For tests: what is indexed twice agrees.
    pub fn check(&self) {
        for (id, class) in &self.classes {
            for (lane_id, lane) in &self.all {
                let fits = class.offer.satisfies(&lane.requirement);
                assert_eq!(fits, class.lanes.contains(lane_id));
                assert_eq!(fits, lane.classes.contains(id));
                assert_eq!(fits && !lane.waiting.is_empty(), class.ready.contains(lane_id));
            }
        }
        let idle = self.all.values().filter(|lane| lane.references == 0).count();
        assert_eq!(idle, self.idle);
    }
}
