//! What a rollout deals with, misbehaving: targets that are away, claim to have done what they have
//! not, or fall back; messages that are late or lost; a log; a lock; a lease.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::judge::Verdict;
use crate::rollouts::machine::{
    Desired, Effect, EffectId, Event, Generation, Input, Locks, Logged, Millis, Outcome, Running,
    Shift, Spec, TargetId, Version,
};

pub const LOCK_TIME: Millis = 3_600_000;
pub const LEASE_TIME: Millis = 30_000;
/// The time after which everything behaves.
pub const CALM: Millis = 40 * 60_000;

pub struct Fake {
    pub version: Version,
    pub told: Generation,
    pub away_until: Millis,
    /// How many orders the target will still confirm without obeying them.
    pub lies: u32,
    /// When the target falls back to what it ran before.
    pub falls_back: Option<Millis>,
    before: Version,
    seen: HashSet<EffectId>,
}

/// An effect or an answer on its way.
pub struct Message {
    pub due: Millis,
    pub to: To,
}

pub enum To {
    Carry { id: EffectId, effect: Effect, sender: usize },
    Answer { to: usize, input: Input },
}

pub struct World {
    pub now: Millis,
    pub spec: Arc<Spec>,
    pub random: fastrand::Rng,
    pub targets: HashMap<TargetId, Fake>,
    pub log: Vec<Logged>,
    pub locks: Locks,
    lock_answers: HashMap<EffectId, Outcome>,
    pub lease: Option<(usize, Millis)>,
    /// Until when nobody gets at log, lock, lease and releases.
    store_away_until: Millis,
    pub messages: Vec<Message>,
    /// The release is bad: the judge finds it worse.
    pub is_bad: bool,
    pub is_signed: bool,
    /// How often each effect changed something.
    pub carried: HashMap<EffectId, u32>,
    pub verified: bool,
    pub quarantined: u32,
    pub paged: u32,
    /// The split that the balancer was told last.
    pub split: Option<(Generation, Shift)>,
    /// The targets that did not answer when the wave of this number began.
    pub away_at: HashMap<usize, Vec<TargetId>>,
    pub violations: Vec<String>,
}

impl World {
    pub fn new(seed: u64, spec: Arc<Spec>) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut targets = HashMap::new();
        let old = spec.old.clone().unwrap();
        for id in spec.steps.iter().flat_map(|step| &step.targets) {
            let trouble = random.u32(0..10);
            let moment = |random: &mut fastrand::Rng| random.u64(0..20 * 60_000);
            let fake = Fake {
                version: old.clone(),
                told: Generation::default(),
                away_until: if trouble == 0 { moment(&mut random) } else { 0 },
                lies: if trouble == 1 { random.u32(1..6) } else { 0 },
                falls_back: (trouble == 2).then(|| moment(&mut random)),
                before: old.clone(),
                seen: HashSet::new(),
            };
            targets.insert(*id, fake);
        }
        Self {
            now: 0,
            is_bad: random.u32(0..3) == 0,
            is_signed: random.u32(0..20) != 0,
            spec,
            random,
            targets,
            log: Vec::new(),
            locks: Locks::default(),
            lock_answers: HashMap::new(),
            lease: None,
            store_away_until: 0,
            messages: Vec::new(),
            carried: HashMap::new(),
            verified: false,
            quarantined: 0,
            paged: 0,
            split: None,
            away_at: HashMap::new(),
            violations: Vec::new(),
        }
    }

    /// Whether somebody gets at what is stored. Until everything behaves, the store is away now and then, for two minutes at
    /// most.
    fn has_store(&mut self) -> bool {
        if self.now < CALM && self.now >= self.store_away_until && self.random.u32(0..400) == 0 {
            self.store_away_until = self.now + self.random.u64(5_000..120_000);
        }
        self.now >= self.store_away_until
    }

    /// Appends events if nobody appended others since, and if the lease is the writer's. Where the store goes away in the
    /// middle, the events may be written all the same, and the writer does not know.
    pub fn append(&mut self, length: u64, events: &[Event], writer: usize) -> bool {
        let answers = self.has_store();
        if !answers && self.random.bool() {
            return false;
        }
        let leads = self.lease.is_some_and(|(holder, until)| holder == writer && self.now < until);
        if !leads || length != self.log.len() as u64 {
            return false;
        }
        for event in events {
            if matches!(event, Event::WaveBegan(_)) {
                let away = self.away();
                self.away_at.insert(self.log.len(), away);
            }
            self.log.push(Logged { at: self.now, event: event.clone() });
        }
        answers
    }

    /// Targets that do not answer now.
    pub fn away(&self) -> Vec<TargetId> {
        let away = self.targets.iter().filter(|(_, fake)| self.now < fake.away_until);
        away.map(|(id, _)| *id).collect()
    }

    pub fn lead(&mut self, who: usize) -> bool {
        if !self.has_store() {
            return false;
        }
        match self.lease {
            Some((holder, until)) if holder != who && self.now < until => false,
            _ => {
                self.lease = Some((who, self.now + LEASE_TIME));
                true
            }
        }
    }

    pub fn send(&mut self, to: To) {
        // Lost one time in twenty: whoever waits for an answer sends again.
        if self.now < CALM && self.random.u32(0..20) == 0 {
            return;
        }
        let slow = if self.random.u32(0..50) == 0 { 120_000 } else { 8_000 };
        self.messages.push(Message { due: self.now + self.random.u64(0..slow), to });
    }

    /// Carries out what arrives by now. Returns answers.
    pub fn deliver(&mut self) -> Vec<(usize, Input)> {
        let (due, later) =
            std::mem::take(&mut self.messages).into_iter().partition(|it| it.due <= self.now);
        self.messages = later;
        let due: Vec<Message> = due;
        let mut answers = Vec::new();
        for message in due {
            match message.to {
                To::Answer { to, input } => answers.push((to, input)),
                To::Carry { id, effect, sender } => {
                    if let Some(outcome) = self.carry_out(id, effect) {
                        self.send(To::Answer { to: sender, input: Input::Result(id, outcome) });
                    }
                }
            }
        }
        answers
    }

    fn count(&mut self, id: EffectId) {
        let count = self.carried.entry(id).or_default();
        *count += 1;
        if *count > 1 {
            self.violations.push(format!("{id:?} was carried out {count} times"));
        }
    }

    fn carry_out(&mut self, id: EffectId, effect: Effect) -> Option<Outcome> {
        let stored = matches!(effect, Effect::Verify(_) | Effect::Lock | Effect::Unlock(_));
        if stored && !self.has_store() {
            return None;
        }
        match effect {
            Effect::Verify(_) => {
                self.verified |= self.is_signed;
                let refused = Outcome::Refused("no signature".to_owned());
                Some(if self.is_signed { Outcome::Done } else { refused })
            }
            // Asked again, it is the same answer: an order that is late must not take it anew.
            Effect::Lock if self.lock_answers.contains_key(&id) => {
                self.lock_answers.get(&id).cloned()
            }
            Effect::Lock => {
                let acquired = self.locks.acquire("rollout", "1.4", self.now, LOCK_TIME);
                let answer = acquired.map_or(Outcome::LockHeld, Outcome::Locked);
                self.lock_answers.insert(id, answer.clone());
                Some(answer)
            }
            Effect::Unlock(token) => {
                self.locks.release(token);
                Some(Outcome::Done)
            }
            Effect::Judge => {
                let changed = self.targets.values().any(|target| target.version == self.spec.new);
                let verdict = match self.random.u32(0..20) {
                    0 => Verdict::Hold,
                    // There is no canary that could be compared.
                    _ if !changed => Verdict::Hold,
                    _ if self.is_bad => Verdict::Rollback,
                    _ => Verdict::Promote,
                };
                Some(Outcome::Judged { verdict, breach: false, why: "worse".to_owned() })
            }
            Effect::Quarantine(_) => {
                self.quarantined = 1;
                Some(Outcome::Done)
            }
            Effect::Shift(shift, generation) => {
                let newer = self.split.map(|(set, _)| set).filter(|set| *set > generation);
                if let Some(newer) = newer {
                    return Some(Outcome::Stale(newer));
                }
                self.split = Some((generation, shift));
                Some(Outcome::Done)
            }
            Effect::Page(_) => {
                self.paged = 1;
                Some(Outcome::Done)
            }
            Effect::Apply(target, desired) => self.tell(id, target, desired),
        }
    }

    /// A target obeys what is not older than what it was told before, and does each order once.
    fn tell(&mut self, id: EffectId, target: TargetId, desired: Desired) -> Option<Outcome> {
        if desired.version == self.spec.new && !self.verified {
            self.violations.push("a release that is not verified came to a target".to_owned());
        }
        let now = self.now;
        let fake = self.targets.get_mut(&target)?;
        if now < fake.away_until {
            return None;
        }
        if desired.generation < fake.told {
            return Some(Outcome::Stale(fake.told));
        }
        if !fake.seen.insert(id) {
            return Some(Outcome::Done);
        }
        fake.told = desired.generation;
        if fake.lies > 0 {
            fake.lies -= 1;
            return Some(Outcome::Done);
        }
        fake.before = std::mem::replace(&mut fake.version, desired.version);
        self.count(id);
        Some(Outcome::Done)
    }

    /// What a probe finds out, which is the truth.
    pub fn probe(&mut self, target: TargetId) -> Running {
        let now = self.now;
        let Some(fake) = self.targets.get_mut(&target) else { return Running::Silent };
        if now < fake.away_until {
            return Running::Silent;
        }
        if fake.falls_back.take_if(|at| now >= *at).is_some() {
            fake.version = fake.before.clone();
        }
        Running::Version(fake.version.clone(), fake.told)
    }
}
