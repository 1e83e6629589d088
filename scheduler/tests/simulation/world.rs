//! Hosts, clients and their misfortunes, all from one seed.

mod fronts;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;

use kiln_cas::{ActionKey, Digest, DigestFunction};
use kiln_scheduler::queue::platform::{Offer, Requirement};
use kiln_scheduler::queue::{
    Effect, Ending, Event, Joined, LeaseId, Limits, Millis, OperationId, Phase, Quota, Submit,
    TaskId, WorkerId,
};

use crate::model::Model;
use crate::rng::Rng;
use crate::subject::Subject;
use fronts::{Front, Life};

const HEARTBEAT: Millis = 1_000;
const INVOCATIONS: u64 = 24;
/// One task of so many outlasts every worker: each drains before it is done.
const OUTLASTS: u64 = 3_000;
/// Steps between two looks at the whole state.
const CHECK_EVERY: u64 = 4_096;

const REQUIREMENTS: [&[(&str, &str)]; 6] = [
    &[],
    &[("os", "linux")],
    &[("os", "linux"), ("cpu", "arm")],
    &[("os", "mac")],
    &[("gpu", "1")],
    &[("os", "windows")],
];
const OFFERS: [&[(&str, &str)]; 5] = [
    &[("os", "linux"), ("cpu", "x86")],
    &[("os", "linux"), ("cpu", "arm")],
    &[("os", "mac"), ("os", "darwin")],
    &[("os", "linux"), ("cpu", "x86"), ("gpu", "*")],
    &[("*", "*")],
];

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
    /// Its client does not want the answer any more.
    ClientGivesUp(OperationId),
    ClientReturns(OperationId),
    ClientCancels(OperationId),
}

struct Host {
    slots: u32,
    offer: usize,
    session: Option<WorkerId>,
    paused_until: Millis,
    /// Its session is there.
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
    /// The one that told the latest event.
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

impl<S: Subject> World<S> {
    pub fn new(machine: S, seed: u64, hosts: usize, total: u64) -> Self {
        let mut rng = Rng::new(seed);
        let model = Model::new(limits());
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

    /// Until every action has ended.
    pub fn run(&mut self) {
        let deadline = 600_000 + self.total * 20;
        while self.submitted < self.total || !self.model.tasks.is_empty() {
            assert!(self.now < deadline, "{} tasks do not end", self.model.tasks.len());
            self.step();
        }
        self.machine.check();
        assert_eq!(self.machine.unfinished(), 0);
    }

    /// Every host leaves, and what is kept for a while is forgotten.
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
            Deed::ClientReturns(id) => {
                if let Some(task) = self.model.tasks.get_mut(&id.task) {
                    task.waiters += 1;
                    let front = self.some_front();
                    self.client_comes(id, front);
                    self.feed(front, Event::Attach(id), None);
                }
            }
            Deed::ClientCancels(id) => {
                let front = self.some_front();
                self.feed(front, Event::Cancel(id), None);
            }
        }
    }

    fn client_leaves(&mut self, id: OperationId) {
        let Some(front) = self.client_at(id) else { return };
        if let Some(away) = self.front_is_away(front) {
            return self.plan(away, Deed::ClientLeaves(id));
        }
        self.client_goes(id);
        if let Some(task) = self.model.tasks.get_mut(&id.task) {
            task.waiters -= 1;
            self.feed(front, Event::Detach(id), None);
            if self.rng.permille(300) {
                self.plan(1_000, Deed::ClientReturns(id));
            }
        }
    }

    fn client_gives_up(&mut self, id: OperationId) {
        let Some(front) = self.client_at(id) else { return };
        if let Some(away) = self.front_is_away(front) {
            return self.plan(away, Deed::ClientGivesUp(id));
        }
        self.client_goes(id);
        if let Some(task) = self.model.tasks.get_mut(&id.task) {
            task.waiters -= 1;
            // Of clients of a frontend that was lost the queue hears only later.
            let alone = self.fronts.is_empty() && task.waiters == 0 && !task.is_publishing();
            self.feed(front, Event::GaveUp(id), None);
            assert!(
                !alone || !self.model.tasks.contains_key(&id.task),
                "{id:?} goes on for nobody"
            );
        }
    }

    fn submit_some(&mut self) {
        for _ in 0..self.rng.between(1, 60) {
            if self.submitted < self.total {
                self.submitted += 1;
                self.submit();
            }
        }
        if self.submitted < self.total {
            // Bursts and lulls.
            let pause = if self.rng.permille(4) { 1_500 } else { self.rng.between(1, 25) };
            self.plan(pause, Deed::SubmitSome);
        }
    }

    fn submit(&mut self) {
        let repeat = !self.recent.is_empty() && self.rng.permille(100);
        let key = if repeat {
            self.recent[self.rng.below(self.recent.len() as u64) as usize].clone()
        } else {
            let data = self.submitted.to_le_bytes();
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&data);
            let action = Digest { hash, size: 8, function: DigestFunction::Sha256 };
            ActionKey { instance: "main".into(), action }
        };
        // Same action, same facts.
        let mut facts = Rng::new(u64::from_le_bytes(key.action.hash[..8].try_into().unwrap()));
        let requirement = if facts.permille(3) { 5 } else { facts.below(5) as usize };
        let do_not_cache = facts.permille(50);
        if self.recent.len() >= 64 {
            self.recent.remove(0);
        }
        self.recent.push(key.clone());
        let priority = [0, 0, 0, -1, 1][self.rng.below(5) as usize];
        let invocation = self.rng.below(INVOCATIONS);
        let submit = Submit {
            key,
            requirement: Requirement::new(pairs(REQUIREMENTS[requirement])),
            priority,
            invocation: Arc::from(format!("build-{invocation}")),
            // A few callers run into their quota, the others are nobody in particular.
            caller: invocation
                .is_multiple_of(6)
                .then(|| Arc::from(format!("user-{}", invocation / 12))),
            expected_ms: self.rng.permille(800).then(|| self.rng.below(3_000)),
            timeout_ms: 3_000,
            do_not_cache,
            skip_cache_lookup: self.rng.permille(100),
            avoid: self
                .rng
                .permille(100)
                .then(|| Arc::from(format!("host-{}", self.rng.below(self.hosts.len() as u64)))),
        };
        let front = self.some_front();
        self.feed(front, Event::Submit(Box::new(submit.clone())), Some(submit));
    }

    fn join(&mut self, host: usize) {
        if self.hosts[host].session.is_some_and(|session| self.model.is_open(session)) {
            return;
        }
        self.begin_session(host, Vec::new());
    }

    /// The host's connection is cut, and it is back at once with what it still runs.
    fn reconnect(&mut self, host: usize) {
        let Some(old) = self.hosts[host].session else { return };
        self.tick_first();
        let mut leases = self.model.leases_of(old);
        if self.rng.permille(100) {
            leases.pop();
        }
        if self.rng.permille(100) {
            leases.push(LeaseId(9_000_000_000 + self.steps));
        }
        self.begin_session(host, leases);
    }

    fn begin_session(&mut self, host: usize, leases: Vec<LeaseId>) {
        self.next_worker += 1;
        let worker = WorkerId(self.next_worker);
        let Host { slots, offer, .. } = self.hosts[host];
        let offer = Offer::new(pairs(OFFERS[offer]));
        let front = self.some_front();
        (self.hosts[host].session, self.hosts[host].front) = (Some(worker), front);
        self.model.joined(worker, slots, offer.clone(), &leases);
        let name = Arc::from(format!("host-{host}"));
        let joined = Joined { worker, name, slots, offer, leases, paused: None };
        self.feed(front, Event::WorkerJoined(joined), None);
        self.plan(HEARTBEAT, Deed::Heartbeat(host, worker));
    }

    fn heartbeat(&mut self, host: usize, session: WorkerId) {
        let paused_until = self.hosts[host].paused_until;
        if paused_until > self.now {
            return self.plan(paused_until - self.now + 1, Deed::Heartbeat(host, session));
        }
        if self.hosts[host].session != Some(session) {
            return;
        }
        if !self.model.is_open(session) {
            // The host sees that its session is over and begins a new one.
            return self.plan(5, Deed::Join(host));
        }
        if !self.rng.permille(30) {
            let mut leases = self.model.leases_of(session);
            if self.rng.permille(10) {
                leases.pop();
            }
            let front = self.hosts[host].front;
            if let Some(away) = self.front_is_away(front) {
                return self.plan(away, Deed::Heartbeat(host, session));
            }
            if self.rng.permille(10) {
                leases.push(LeaseId(8_000_000_000 + self.steps));
            }
            self.tick_first();
            self.model.listed(session, &leases);
            self.feed(front, Event::Heartbeat { worker: session, leases }, None);
        }
        self.plan(HEARTBEAT, Deed::Heartbeat(host, session));
    }

    fn answer(&mut self, host: usize, session: WorkerId, lease: LeaseId, good: bool) {
        let paused_until = self.hosts[host].paused_until;
        if paused_until > self.now {
            // It comes late, perhaps under a session that is over.
            let after = paused_until - self.now;
            return self.plan(after, Deed::Answer(host, session, lease, good));
        }
        if self.rng.permille(20) {
            let after = self.rng.between(1, 8_000);
            self.plan(after, Deed::Answer(host, session, lease, good));
        }
        if let Some(away) = self.front_is_away(self.hosts[host].front) {
            return self.plan(away, Deed::Answer(host, session, lease, good));
        }
        self.tick_first();
        // It says so in the session that it has now.
        let session = match self.hosts[host].session {
            Some(now) if self.model.holds(now, lease) => now,
            _ => session,
        };
        self.model.gave_back(session, lease);
        let front = self.hosts[host].front;
        let event = if good {
            Event::Completed { worker: session, lease }
        } else {
            Event::Failed { worker: session, lease, message: "it broke".to_owned() }
        };
        self.feed(front, event, None);
    }

    fn give_back(&mut self, host: usize, session: WorkerId, lease: LeaseId) {
        let front = self.hosts[host].front;
        if let Some(away) = self.front_is_away(front) {
            return self.plan(away, Deed::Return(host, session, lease));
        }
        self.tick_first();
        self.model.returned(session, lease);
        let message = "it drains".to_owned();
        self.feed(front, Event::Returned { worker: session, lease, message }, None);
    }

    fn refuse(&mut self, host: usize, session: WorkerId, lease: LeaseId) {
        let front = self.hosts[host].front;
        if let Some(away) = self.front_is_away(front) {
            return self.plan(away, Deed::Refuse(host, session, lease));
        }
        self.tick_first();
        self.model.refused(session, lease);
        let mut holds = self.model.leases_of(session);
        holds.extend(self.rng.permille(500).then_some(LeaseId(7_000_000_000 + self.steps)));
        self.model.listed(session, &holds);
        let message = "it has no room".to_owned();
        self.feed(front, Event::Refused { worker: session, lease, message, holds }, None);
    }

    fn pause(&mut self, host: usize, worker: WorkerId, paused: bool) {
        self.tick_first();
        self.model.paused(worker, paused);
        let front = self.there_or_some(host);
        let reason = paused.then(|| "it is sick".into());
        self.feed(front, Event::WorkerPaused { worker, reason }, None);
        if paused {
            // Long enough for some tasks to give up.
            let after = self.rng.between(100, 6_000);
            self.plan(after, Deed::Pause(host, worker, false));
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

    fn drain(&mut self, host: usize) {
        let Some(session) = self.hosts[host].session else { return };
        self.tick_first();
        self.model.draining(session);
        let front = self.there_or_some(host);
        self.feed(front, Event::WorkerDraining { worker: session }, None);
        for lease in self.model.leases_of(session) {
            // It has no time for all of them.
            if self.rng.permille(700) {
                let after = self.rng.between(1, 800);
                self.plan(after, Deed::Return(host, session, lease));
            }
        }
        // When it is done it goes, and comes back.
        self.plan(4_000, Deed::Heartbeat(host, session));
        let leave = self.rng.between(3_000, 6_000);
        self.pause_until(host, self.now + leave);
    }

    fn pause_until(&mut self, host: usize, until: Millis) {
        let host = &mut self.hosts[host];
        host.paused_until = host.paused_until.max(until);
    }

    fn crash(&mut self, host: usize) {
        let Some(session) = self.hosts[host].session.take() else { return };
        self.tick_first();
        let back = self.rng.between(10, 5_000);
        self.plan(back, Deed::Join(host));
        let front = self.there_or_some(host);
        self.feed(front, Event::WorkerLeft { worker: session }, None);
    }

    /// The frontend of the host's session or, where that is away, whoever hears of it first.
    fn there_or_some(&mut self, host: usize) -> usize {
        let front = self.hosts[host].front;
        if self.front_is_away(front).is_some() { self.some_front() } else { front }
    }

    /// Timers that are due fire now, so that the next event's effects are its own.
    fn tick_first(&mut self) {
        self.tick();
    }

    fn tick(&mut self) {
        let front = self.some_front();
        self.feed(front, Event::Tick, None);
    }

    fn feed(&mut self, front: usize, event: Event, submit: Option<Submit>) {
        self.speak(front);
        self.speaker = front;
        let left = match &event {
            Event::WorkerLeft { worker } => Some(*worker),
            _ => None,
        };
        let exact = !matches!(
            event,
            Event::WorkerLeft { .. }
                | Event::WorkerJoined(_)
                | Event::Heartbeat { .. }
                | Event::WorkerPaused { .. }
                | Event::Refused { .. }
                | Event::Tick
        );
        if exact {
            // Nothing is due before `now` any more after this.
            self.handle(Event::Tick, None, None, false);
        }
        self.handle(event, submit, left, exact);
    }

    fn handle(
        &mut self,
        event: Event,
        mut submit: Option<Submit>,
        left: Option<WorkerId>,
        fairly: bool,
    ) {
        let mut effects = std::mem::take(&mut self.effects);
        self.machine.handle(self.now, event, &mut effects);
        if let Some(worker) = left {
            self.model.gone(worker);
        }
        self.follow_all(&effects, &mut submit, fairly && left.is_none());
        effects.clear();
        self.effects = effects;
    }

    /// Effects of what is no event of the state machine.
    fn take_in(&mut self, effects: &[Effect]) {
        self.follow_all(effects, &mut None, false);
    }

    fn follow_all(&mut self, effects: &[Effect], submit: &mut Option<Submit>, fairly: bool) {
        let mut lost = !fairly;
        for effect in effects {
            if let Effect::Adopted { worker, lease, .. } = effect {
                self.model.moved(*lease, *worker);
            }
        }
        for effect in effects {
            match effect {
                Effect::CloseWorker { worker, .. } => {
                    lost = true;
                    self.model.gone(*worker);
                }
                Effect::Requeued { task, at_once: true } => self.model.requeued_at_once(*task),
                Effect::Accepted { id, merged } => {
                    let submit = submit.take().expect("only a submission is accepted");
                    self.model.accepted(self.now, submit, id.task, id.request, *merged);
                    self.client_comes(*id, self.speaker);
                    self.plan_client(*id);
                }
                _ => {}
            }
            self.model.effect(self.now, effect, !lost);
            self.follow(effect);
        }
    }

    fn plan_client(&mut self, id: OperationId) {
        if self.rng.permille(40) {
            let after = self.rng.between(1, 3_000);
            self.plan(after, Deed::ClientLeaves(id));
        } else if self.rng.permille(30) {
            let after = self.rng.between(1, 3_000);
            self.plan(after, Deed::ClientGivesUp(id));
        }
        if self.rng.permille(10) {
            let after = self.rng.between(1, 1_000);
            self.plan(after, Deed::ClientCancels(id));
        }
        if id.request == 0 && self.rng.below(2_000) == 0 {
            self.poisonous.insert(id.task, true);
        }
    }

    fn follow(&mut self, effect: &Effect) {
        match effect {
            Effect::Assign { worker, lease, task, .. } => self.run_lease(*worker, *lease, *task),
            Effect::CancelLease { worker, lease, .. } => {
                // Nine in ten hosts obey.
                if let Some(host) = self.host_of(*worker)
                    && self.rng.permille(900)
                {
                    let after = self.rng.between(1, 200);
                    self.plan(after, Deed::Answer(host, *worker, *lease, false));
                }
            }
            Effect::Publish { task, lease, .. } => {
                let longest = if self.fronts.is_empty() { 30 } else { 300 };
                let after = self.rng.between(0, longest);
                let life = self.begins_to_publish(self.speaker, *task, *lease);
                self.plan(after, Deed::Published(*task, *lease, life));
            }
            Effect::Finished { task, ending } => {
                self.clients.remove(task);
                let poisonous = self.poisonous.remove(task).is_some();
                assert!(!(poisonous && *ending == Ending::Published), "poison gave an answer");
            }
            _ => {}
        }
    }

    fn host_of(&self, worker: WorkerId) -> Option<usize> {
        self.hosts.iter().position(|host| host.session == Some(worker))
    }

    fn run_lease(&mut self, worker: WorkerId, lease: LeaseId, task: TaskId) {
        let Some(host) = self.host_of(worker) else { return };
        if self.poisonous.contains_key(&task) {
            // The session breaks soon: silence until the heartbeat timeout, then a new one.
            self.hosts[host].session = None;
            let back = self.rng.between(3_500, 6_000);
            return self.plan(back, Deed::Join(host));
        }
        if task.0.is_multiple_of(OUTLASTS) {
            self.plan(1, Deed::Drain(host));
            return self.plan(5, Deed::Return(host, worker, lease));
        }
        let good = !self.rng.permille(15);
        if self.rng.permille(5) {
            // It hangs: the lease runs out.
            return self.plan(100, Deed::Progress(worker, lease));
        }
        let after = self.rng.between(5, 1_500);
        if self.rng.permille(10) {
            return self.plan(after, Deed::Refuse(host, worker, lease));
        }
        if self.rng.permille(3) {
            // It says that it drains, but the queue was not told before.
            return self.plan(after, Deed::Return(host, worker, lease));
        }
        self.plan(after, Deed::Answer(host, worker, lease, good));
    }
}
