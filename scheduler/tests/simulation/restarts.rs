//! A server that is started again, and knows nothing of before, beside workers that live on.
//!
//! Hosts run what they run whatever the server thinks: it must never give one more than it has
//! room for, and every action must end well.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use kiln_scheduler::queue::platform::Offer;
use kiln_scheduler::queue::{
    CloseReason, Effect, Ending, Event, Joined, LeaseId, Limits, Machine, Millis, TaskId, WorkerId,
};

use crate::rng::Rng;
use crate::shared::Shared;
use crate::subject::{Subject, submitted};
use crate::{fresh_seed, number};

const ACTIONS: u32 = 3_000;
const IN_FLIGHT: usize = 40;
const HEARTBEAT: Millis = 1_000;

/// A lease of one life of the server.
type Held = (u64, LeaseId);

trait Restarts: Subject {
    /// Restarts the queue, which forgets everything.
    fn restart(&mut self);
}

impl Restarts for Machine {
    fn restart(&mut self) {
        *self = Machine::new(limits());
    }
}

impl Restarts for Shared {
    fn restart(&mut self) {
        self.forget_all();
    }
}

fn limits() -> Limits {
    Limits { heartbeat_timeout: 3 * HEARTBEAT, cancel_timeout: 20_000, ..Limits::default() }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    Submit,
    /// What the host ran has ended, by itself or because it was cancelled.
    Ended(usize, Held),
    Heartbeat(usize, WorkerId),
    /// The host begins a session, with what it holds.
    Connect(usize),
    Restart,
}

struct Host {
    slots: u32,
    session: Option<WorkerId>,
    running: BTreeSet<Held>,
}

struct World<S> {
    server: S,
    life: u64,
    now: Millis,
    rng: Rng,
    agenda: BinaryHeap<Reverse<(Millis, u64, Deed)>>,
    planned: u64,
    hosts: Vec<Host>,
    next_worker: u64,
    submitted: u32,
    /// Actions that are to be submitted again: the server that had them is gone.
    again: Vec<u32>,
    open: BTreeMap<TaskId, u32>,
    done: u32,
    cancelled: u64,
    restarts: u64,
}

impl<S: Restarts> World<S> {
    fn new(server: S, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let host =
            |_| Host { slots: rng.between(1, 4) as u32, session: None, running: BTreeSet::new() };
        let hosts: Vec<_> = (0..12).map(host).collect();
        let mut world = Self {
            server,
            life: 1,
            now: 0,
            rng,
            agenda: BinaryHeap::new(),
            planned: 0,
            hosts,
            next_worker: 0,
            submitted: 0,
            again: Vec::new(),
            open: BTreeMap::new(),
            done: 0,
            cancelled: 0,
            restarts: 0,
        };
        for host in 0..world.hosts.len() {
            world.plan(1, Deed::Connect(host));
        }
        world.plan(5, Deed::Submit);
        world.plan(3_000, Deed::Restart);
        world
    }

    fn plan(&mut self, after: Millis, deed: Deed) {
        self.planned += 1;
        self.agenda.push(Reverse((self.now + after, self.planned, deed)));
    }

    fn run(&mut self) {
        while self.done < ACTIONS {
            assert!(self.now < 50_000_000, "{:?} do not end", self.open);
            let due = self.agenda.peek().map_or(Millis::MAX, |Reverse((at, ..))| *at);
            if let Some(timer) = self.server.next_timer()
                && timer <= due
            {
                self.now = self.now.max(timer);
                self.feed(Event::Tick);
                continue;
            }
            let Some(Reverse((at, _, deed))) = self.agenda.pop() else { panic!("nothing is due") };
            self.now = at;
            self.perform(deed);
        }
    }

    fn perform(&mut self, deed: Deed) {
        match deed {
            Deed::Submit => self.submit(),
            Deed::Connect(host) => self.connect(host),
            Deed::Ended(host, held) => self.ended(host, held),
            Deed::Heartbeat(host, session) => {
                if self.hosts[host].session == Some(session) {
                    let leases = self.listed(host);
                    self.feed(Event::Heartbeat { worker: session, leases });
                    self.plan(HEARTBEAT, Deed::Heartbeat(host, session));
                }
            }
            Deed::Restart => self.restart(),
        }
    }

    fn submit(&mut self) {
        while self.open.len() < IN_FLIGHT
            && let Some(action) = self.again.pop().or_else(|| self.next_action())
        {
            self.feed(submitted(&action.to_be_bytes()));
            let task = self.open.iter().find(|(_, known)| **known == u32::MAX);
            let task = *task.expect("the queue has room").0;
            self.open.insert(task, action);
        }
        self.plan(50, Deed::Submit);
    }

    fn next_action(&mut self) -> Option<u32> {
        let next = (self.submitted < ACTIONS).then_some(self.submitted);
        self.submitted += u32::from(next.is_some());
        next
    }

    fn restart(&mut self) {
        self.restarts += 1;
        self.life += 1;
        self.server.restart();
        self.again.extend(std::mem::take(&mut self.open).into_values());
        for host in 0..self.hosts.len() {
            self.hosts[host].session = None;
            let after = self.rng.between(1, 2_000);
            self.plan(after, Deed::Connect(host));
        }
        let after = self.rng.between(500, 8_000);
        self.plan(after, Deed::Restart);
    }

    /// The id of a lease as the server's names give it: leases of another life have ids of their
    /// own.
    fn id(&self, (life, lease): Held) -> LeaseId {
        if life == self.life {
            lease
        } else {
            LeaseId(9_000_000_000_000_000 + life * 1_000_000 + lease.0)
        }
    }

    fn listed(&self, host: usize) -> Vec<LeaseId> {
        self.hosts[host].running.iter().map(|held| self.id(*held)).collect()
    }

    fn connect(&mut self, host: usize) {
        self.next_worker += 1;
        let worker = WorkerId(self.next_worker);
        self.hosts[host].session = Some(worker);
        let joined = Joined {
            worker,
            name: Arc::from(format!("host-{host}")),
            slots: self.hosts[host].slots,
            offer: Offer::new([]),
            leases: self.listed(host),
            paused: None,
        };
        self.feed(Event::WorkerJoined(joined));
        self.plan(HEARTBEAT, Deed::Heartbeat(host, worker));
    }

    fn ended(&mut self, host: usize, held: Held) {
        if !self.hosts[host].running.remove(&held) {
            return;
        }
        let lease = self.id(held);
        if let Some(worker) = self.hosts[host].session {
            self.feed(Event::Completed { worker, lease });
        }
    }

    fn feed(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.server.handle(self.now, event, &mut effects);
        for effect in effects {
            self.follow(effect);
        }
    }

    fn follow(&mut self, effect: Effect) {
        match effect {
            Effect::Accepted { id, merged } => {
                assert!(!merged);
                self.open.insert(id.task, u32::MAX);
            }
            Effect::Assign { worker, lease, .. } => {
                let host = self.host_of(worker);
                let held = (self.life, lease);
                let Host { slots, running, .. } = &mut self.hosts[host];
                running.insert(held);
                assert!(running.len() <= *slots as usize, "host {host} has no room for {held:?}");
                // Some of the tasks take longer than several lives of the server.
                let time = if self.rng.permille(100) { 20_000 } else { 200 };
                let time = self.rng.between(5, time);
                self.plan(time, Deed::Ended(host, held));
            }
            Effect::CancelLease { worker, lease, .. } => {
                self.cancelled += 1;
                let host = self.host_of(worker);
                let held = self.hosts[host].running.iter().copied();
                let held = held.filter(|held| self.id(*held) == lease).collect::<Vec<_>>();
                let [held] = held[..] else { panic!("host {host} never had {lease:?}") };
                let time = self.rng.between(1, 1_000);
                self.plan(time, Deed::Ended(host, held));
            }
            Effect::Publish { task, .. } => self.feed(Event::Published { task, bytes: 1 }),
            Effect::Finished { task, ending } => {
                assert_eq!(ending, Ending::Published);
                self.open.remove(&task).expect("it is open");
                self.done += 1;
            }
            // Its host has connected again.
            Effect::CloseWorker { reason: CloseReason::Replaced, .. } => {}
            Effect::CloseWorker { worker, reason } => panic!("{worker:?} is closed: {reason:?}"),
            _ => {}
        }
    }

    fn host_of(&self, worker: WorkerId) -> usize {
        let host = self.hosts.iter().position(|host| host.session == Some(worker));
        host.expect("only open sessions hear anything")
    }
}

fn restarts(server: impl Restarts) {
    let seed = number("KILN_SEED").unwrap_or_else(fresh_seed);
    println!("KILN_SEED={seed}");
    let mut world = World::new(server, seed);
    world.run();
    println!("{} restarts, {} leases cancelled", world.restarts, world.cancelled);
    assert!(world.restarts > 3 && world.cancelled > 10, "hardly anything was started again");
    let counters = world.server.counters();
    assert_eq!((counters.leases_refused, counters.retries), (0, 0));
}

#[test]
fn workers_that_outlive_a_server_are_never_given_too_much() {
    restarts(Machine::new(limits()));
}

#[test]
fn workers_that_outlive_a_redis_that_lost_everything_are_never_given_too_much() {
    let Some(server) = Shared::start(limits()) else { return };
    restarts(server);
}
