//! Frontends between the world and a shared queue, and their misfortunes: they are killed and
//! come back under another name, and they are cut off or stand still for a while.

use std::collections::BTreeMap;

use kiln_scheduler::queue::{Effect, Event, LeaseId, Millis, OperationId, TaskId};

use super::{Deed, HEARTBEAT, World};
use crate::subject::Subject;

/// Milliseconds between two signs of life of a frontend: 3.5 of these fit into the time after which
/// it is lost.
const BEAT: Millis = 3 * HEARTBEAT * 2 / 7;
/// The longest time for which one is cut off. Longer, and what its clients wait for would be
/// stopped before it is back, which is right, but not what the model expects.
const LONGEST_CUT: Millis = 4_000;

#[derive(Default)]
pub struct Front {
    /// How often the frontend was killed.
    life: u32,
    /// The time until which the frontend is not there, after it was killed.
    dead_until: Millis,
    /// The time until which the frontend says nothing, and nobody hears it.
    cut_until: Millis,
    /// Tasks whose answers the frontend is making durable, and under which leases.
    publishing: BTreeMap<TaskId, LeaseId>,
}

/// A frontend between two kills.
pub type Life = (usize, u32);

impl<S: Subject> World<S> {
    pub fn start_frontends(&mut self) {
        self.fronts = (0..self.machine.frontends()).map(|_| Front::default()).collect();
        self.model.frontends = !self.fronts.is_empty();
        for front in 0..self.fronts.len() {
            self.beat(front, 0);
        }
    }

    pub fn front_is_away(&self, front: usize) -> Option<Millis> {
        let front = self.fronts.get(front)?;
        let until = front.dead_until.max(front.cut_until);
        (until > self.now).then(|| until - self.now)
    }

    /// Some frontend that is there; 0 where there are none at all.
    pub fn some_front(&mut self) -> usize {
        if self.fronts.is_empty() {
            return 0;
        }
        let first = self.rng.below(self.fronts.len() as u64) as usize;
        let order = (first..self.fronts.len()).chain(0..first);
        order.into_iter().find(|front| self.front_is_away(*front).is_none()).expect("one is there")
    }

    fn name(&self, front: usize) -> String {
        format!("front-{front}-{}", self.fronts[front].life)
    }

    /// Makes this frontend the one that sends the next events.
    pub fn speak(&mut self, front: usize) {
        if !self.fronts.is_empty() {
            assert_eq!(self.front_is_away(front), None, "a frontend speaks that is away");
            let name = self.name(front);
            self.machine.told_by(&name);
        }
    }

    pub fn beat(&mut self, front: usize, life: u32) {
        // A frontend that is away sends no beat here. After a cut it sends one at once.
        if self.fronts[front].life != life || self.front_is_away(front).is_some() {
            return;
        }
        self.speak(front);
        let mut effects = Vec::new();
        if self.machine.beat(self.now, &mut effects) {
            self.lapses += 1;
            self.compare(front, &mut effects);
        }
        self.take_in(&effects);
        self.plan(BEAT, Deed::Beat(front, life));
    }

    fn compare(&mut self, front: usize, effects: &mut Vec<Effect>) {
        let mut waits: BTreeMap<TaskId, usize> = BTreeMap::new();
        for (task, clients) in &self.clients {
            let count = clients.values().filter(|at| **at == front).count();
            if count > 0 {
                waits.insert(*task, count);
            }
        }
        let waits: Vec<_> = waits.into_iter().collect();
        let publishing: Vec<_> = self.fronts[front].publishing.keys().copied().collect();
        self.machine.compare(self.now, &waits, &publishing, effects);
    }

    pub fn begins_to_publish(&mut self, front: usize, task: TaskId, lease: LeaseId) -> Life {
        match self.fronts.get_mut(front) {
            Some(state) => {
                state.publishing.insert(task, lease);
                (front, state.life)
            }
            None => (0, 0),
        }
    }

    pub fn published(&mut self, task: TaskId, lease: LeaseId, (front, life): Life) {
        if let Some(state) = self.fronts.get(front) {
            if state.life != life {
                return;
            }
            if let Some(away) = self.front_is_away(front) {
                return self.plan(away, Deed::Published(task, lease, (front, life)));
            }
            if self.fronts[front].publishing.get(&task) == Some(&lease) {
                self.fronts[front].publishing.remove(&task);
            }
            self.machine.published_under(task, lease);
        }
        self.feed(front, Event::Published { task, bytes: 100 }, None);
    }

    /// The client of `id` waits at some frontend from now on.
    pub fn client_comes(&mut self, id: OperationId, front: usize) {
        self.clients.entry(id.task).or_default().insert(id.request, front);
    }

    pub fn client_at(&self, id: OperationId) -> Option<usize> {
        self.clients.get(&id.task)?.get(&id.request).copied()
    }

    pub fn client_goes(&mut self, id: OperationId) {
        if let Some(clients) = self.clients.get_mut(&id.task) {
            clients.remove(&id.request);
        }
    }

    pub fn frontend_fails(&mut self) {
        let front = self.some_front();
        let there = (0..self.fronts.len()).filter(|front| self.front_is_away(*front).is_none());
        if there.count() < 2 {
            return;
        }
        if self.rng.permille(500) { self.kill_front(front) } else { self.cut_front(front) }
    }

    /// Cuts the frontend off for a while; what its workers and clients say meanwhile it says later.
    fn cut_front(&mut self, front: usize) {
        let time = self.rng.between(500, LONGEST_CUT);
        self.fronts[front].cut_until = self.now + time;
        self.hosts_wait(front, time);
        let life = self.fronts[front].life;
        self.plan(time, Deed::Beat(front, life));
    }

    fn kill_front(&mut self, front: usize) {
        let away = self.rng.between(10, 5_000);
        let state = &mut self.fronts[front];
        state.life += 1;
        state.dead_until = self.now + away;
        state.publishing.clear();
        let life = state.life;
        self.plan(away, Deed::Beat(front, life));
        // The workers of the killed frontend go to another one with what they run.
        let time = self.rng.between(5, 4_500);
        for host in self.hosts_wait(front, time) {
            self.plan(time, Deed::Move(host));
        }
        let of = |(task, clients): (&TaskId, &BTreeMap<u32, usize>)| {
            let task = *task;
            let its = clients.iter().filter(|(_, at)| **at == front);
            its.map(|(request, _)| OperationId { task, request: *request }).collect::<Vec<_>>()
        };
        let clients: Vec<_> = self.clients.iter().flat_map(of).collect();
        for operation in clients {
            self.client_goes(operation);
            let Some(task) = self.model.tasks.get_mut(&operation.task) else { continue };
            task.waiters -= 1;
            if self.rng.permille(800) {
                let after = self.rng.between(50, 3_000);
                self.plan(after, Deed::ClientReturns(operation));
            }
        }
    }

    fn hosts_wait(&mut self, front: usize, time: Millis) -> Vec<usize> {
        let hosts = self.hosts.iter_mut().enumerate();
        let its = hosts.filter(|(_, host)| host.front == front && host.session.is_some());
        its.map(|(number, host)| {
            host.paused_until = host.paused_until.max(self.now + time);
            number
        })
        .collect()
    }
}
