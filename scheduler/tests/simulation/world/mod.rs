//! Hosts, clients and their misfortunes, all from one seed.

mod clients;
mod effects;
mod fronts;
mod hosts;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use kiln_cas::ActionKey;
use kiln_scheduler::queue::{
    Effect, Event, LeaseId, Limits, Millis, OperationId, Phase, Quota, TaskId, WorkerId,
};

use crate::model::Model;
use crate::rng::Rng;
use crate::subject::Subject;
use fronts::{Front, Life};

const HEARTBEAT: Millis = 1_000;
/// Steps between two looks at the whole state.
const CHECK_EVERY: u64 = 4_096;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    SubmitSome,
    Join(usize),
    Heartbeat(usize, WorkerId),
    /// The host has an answer to a lease; `true`: a good one.
    Answer(usize, WorkerId, LeaseId, bool),
    /// The host gives a lease back, most times because it drains.
    Return(usize, WorkerId, LeaseId),
    /// The host has no room for a lease.
    Refuse(usize, WorkerId, LeaseId),
    /// The host takes nothing, or takes tasks again.
    Pause(usize, WorkerId, bool),
    Drain(usize),
    Progress(WorkerId, LeaseId),
    Published(TaskId, LeaseId, Life),
    /// A frontend says that it is there.
    Beat(usize, u32),
    /// The host goes to another frontend.
    Move(usize),
    Misfortune,
    ClientLeaves(OperationId),
    /// The operation's client does not want the answer any more.
    ClientGivesUp(OperationId),
    ClientReturns(OperationId),
    ClientCancels(OperationId),
}

struct Host {
    slots: u32,
    offer: usize,
    session: Option<WorkerId>,
    paused_until: Millis,
    /// The frontend at which the host has its session.
    front: usize,
}

pub struct World<S> {
    pub model: Model,
    pub machine: S,
    pub submitted: u64,
    pub steps: u64,
    pub now: Millis,
    rng: Rng,
    total: u64,
    agenda: BinaryHeap<Reverse<(Millis, u64, Deed)>>,
    planned: u64,
    hosts: Vec<Host>,
    fronts: Vec<Front>,
    /// Who waits, and at which frontend.
    clients: BTreeMap<TaskId, BTreeMap<u32, usize>>,
    /// How often a frontend heard that it was taken for lost, or is new.
    pub lapses: u64,
    /// The frontend that told the latest event.
    speaker: usize,
    next_worker: u64,
    recent: Vec<ActionKey>,
    poisonous: HashMap<TaskId, bool>,
    effects: Vec<Effect>,
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub fn limits() -> Limits {
    Limits {
        max_queued: 20_000,
        caller: Quota { queued: 2_000, running: 24 },
        max_returns: 2,
        unsatisfiable_grace: 4_000,
        abandon_grace: 2_000,
        heartbeat_timeout: 3 * HEARTBEAT,
        elsewhere_wait: 1_000,
        lease_slack: 2_000,
        cancel_timeout: 1_500,
        completed_ttl: 5_000,
        max_completed: 1_000,
        max_idle_lanes: 2,
        ..Limits::default()
    }
}

/// Few workers, no room, little patience and no quotas: what seldom happens with [`limits`].
pub fn scarce() -> Limits {
    Limits {
        max_queued: 300,
        caller: Quota::NONE,
        unsatisfiable_grace: 500,
        cancel_timeout: 600,
        ..limits()
    }
}

impl<S: Subject> World<S> {
    pub fn new(machine: S, limits: Limits, seed: u64, hosts: usize, total: u64) -> Self {
        let mut rng = Rng::new(seed);
        let model = Model::new(limits);
        let host = |_| Host {
            slots: rng.between(1, 9) as u32,
            offer: if rng.permille(5) { 4 } else { rng.below(4) as usize },
            session: None,
            paused_until: 0,
            front: 0,
        };
        let hosts: Vec<Host> = (0..hosts).map(host).collect();
        let mut world = Self {
            model,
            machine,
            submitted: 0,
            steps: 0,
            now: 0,
            total,
            agenda: BinaryHeap::new(),
            planned: 0,
            next_worker: 0,
            recent: Vec::new(),
            poisonous: HashMap::new(),
            effects: Vec::new(),
            hosts,
            fronts: Vec::new(),
            clients: BTreeMap::new(),
            lapses: 0,
            speaker: 0,
            rng,
        };
        world.start_frontends();
        for host in 0..world.hosts.len() {
            let at = world.rng.below(500);
            world.plan(at, Deed::Join(host));
        }
        world.plan(10, Deed::SubmitSome);
        world.plan(100, Deed::Misfortune);
        world
    }

    fn plan(&mut self, after: Millis, deed: Deed) {
        self.planned += 1;
        self.agenda.push(Reverse((self.now + after, self.planned, deed)));
    }

    /// Runs the world until every action has ended.
    pub fn run(&mut self) {
        let deadline = 600_000 + self.total * 20;
        while self.submitted < self.total || !self.model.tasks.is_empty() {
            assert!(self.now < deadline, "{} tasks do not end", self.model.tasks.len());
            self.step();
        }
        self.machine.check();
        assert_eq!(self.machine.unfinished(), 0);
    }

    /// Has every host leave, and lets time pass until what is kept for a while is forgotten.
    pub fn rest(&mut self) {
        for host in 0..self.hosts.len() {
            if let Some(worker) = self.hosts[host].session.take() {
                self.feed(0, Event::WorkerLeft { worker }, None);
            }
        }
        while let Some(timer) = self.machine.next_timer() {
            self.now = self.now.max(timer);
            self.tick();
        }
    }

    fn step(&mut self) {
        self.steps += 1;
        let due = self.agenda.peek().map(|Reverse((at, ..))| *at);
        let timer = self.machine.next_timer();
        if let Some(timer) = timer
            && due.is_none_or(|due| timer <= due)
        {
            self.now = self.now.max(timer);
            return self.tick();
        }
        let Some(Reverse((at, _, deed))) = self.agenda.pop() else {
            panic!("nothing is planned, but actions are unfinished");
        };
        self.now = at;
        self.perform(deed);
        if self.steps.is_multiple_of(CHECK_EVERY) {
            self.machine.check();
        }
    }

    fn perform(&mut self, deed: Deed) {
        match deed {
            Deed::SubmitSome => self.submit_some(),
            Deed::Join(host) => self.join(host),
            Deed::Heartbeat(host, session) => self.heartbeat(host, session),
            Deed::Answer(host, session, lease, good) => self.answer(host, session, lease, good),
            Deed::Drain(host) => self.drain(host),
            Deed::Return(host, session, lease) => self.give_back(host, session, lease),
            Deed::Refuse(host, session, lease) => self.refuse(host, session, lease),
            Deed::Pause(host, session, paused) => self.pause(host, session, paused),
            Deed::Progress(worker, lease) => {
                let phase = Phase::Running;
                let front = self.some_front();
                self.feed(front, Event::Progress { worker, lease, phase }, None);
            }
            Deed::Published(task, lease, life) => self.published(task, lease, life),
            Deed::Beat(front, life) => self.beat(front, life),
            Deed::Move(host) => self.reconnect(host),
            Deed::Misfortune => self.misfortune(),
            Deed::ClientLeaves(id) => self.client_leaves(id),
            Deed::ClientGivesUp(id) => self.client_gives_up(id),
            Deed::ClientReturns(id) => self.client_returns(id),
            Deed::ClientCancels(id) => {
                let front = self.some_front();
                self.feed(front, Event::Cancel(id), None);
            }
        }
    }

    fn misfortune(&mut self) {
        let count = self.hosts.len() as u64;
        let host = self.rng.below(count) as usize;
        if !self.fronts.is_empty() && self.rng.permille(250) {
            self.frontend_fails();
        }
        match self.rng.below(12) {
            10.. => {
                if let Some(session) = self.hosts[host].session {
                    self.pause(host, session, true);
                }
            }
            0..3 => self.crash(host),
            3..5 => self.reconnect(host),
            5..8 => {
                let until = self.now + self.rng.between(500, 9_000);
                self.pause_until(host, until);
            }
            _ => self.drain(host),
        }
        let after = self.rng.between(20, 400);
        self.plan(after, Deed::Misfortune);
    }

    /// Timers that are due fire now, so that the next event's effects are its own.
    fn tick_first(&mut self) {
        self.tick();
    }

    fn tick(&mut self) {
        let front = self.some_front();
        self.feed(front, Event::Tick, None);
    }
}
