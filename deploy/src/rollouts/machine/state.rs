//! The state of a rollout: the fold over its log.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::event::{Effect, EffectId, End, Event, Logged, Shift, Why};
use super::spec::{Desired, Generation, Millis, Running, Spec, TargetId, Version};
use super::target::Target;
use crate::judge::{Looks, Verdict};

/// The phase that a rollout is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Verifying,
    /// The rollout waits for the deploy lock.
    Waiting,
    /// The rollout waits for a person, before this step.
    Gate(usize),
    Applying(usize),
    Baking(usize),
    Soaking,
    RollingBack,
    Ended(End),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutState {
    pub spec: Arc<Spec>,
    pub phase: Phase,
    /// When the phase began, without the time that it was paused.
    pub since: Millis,
    pub paused: Option<Millis>,
    /// Whether a freeze has paused it, and not a person.
    pub frozen: bool,
    /// When that began which is watched and judged: the bake of the last step, or the soak.
    pub watched: Millis,
    /// When the first target was told.
    pub touched: Option<Millis>,
    /// How requests were split last, as far as they are split at all.
    pub split: Option<Shift>,
    pub deadline: Millis,
    /// The token of the deploy lock.
    pub lock: Option<u64>,
    pub lock_asked: Millis,
    pub generation: Generation,
    /// Targets that were told anything, with what is known of each.
    pub targets: BTreeMap<TargetId, Target>,
    /// How many targets are down while the next wave waits for that; `None`: it does not.
    pub crowded: Option<usize>,
    pub extensions: u32,
    pub looks: Looks,
    pub why: Option<Why>,
    /// Length of the log.
    pub length: u64,
    /// Effects that nobody has said to be carried out.
    pub pending: BTreeMap<EffectId, Effect>,
}

impl RolloutState {
    /// The state before anything happened.
    pub fn new(spec: Arc<Spec>) -> Self {
        Self {
            spec,
            phase: Phase::Verifying,
            since: 0,
            paused: None,
            frozen: false,
            watched: 0,
            touched: None,
            split: None,
            deadline: Millis::MAX,
            lock: None,
            lock_asked: 0,
            generation: Generation::default(),
            targets: BTreeMap::new(),
            crowded: None,
            extensions: 0,
            looks: Looks::default(),
            why: None,
            length: 0,
            pending: BTreeMap::new(),
        }
    }

    /// The state after all that a log says.
    pub fn replay(spec: Arc<Spec>, log: &[Logged]) -> Self {
        let mut state = Self::new(spec);
        log.iter().for_each(|logged| state.apply(logged));
        state
    }

    /// Whether anything is still to be decided about the release.
    pub fn is_forward(&self) -> bool {
        !matches!(self.phase, Phase::RollingBack | Phase::Ended(_))
    }

    /// Whether every target that was touched runs what it was told, or is lost. A baseline that does not start anew is
    /// waited for by nobody.
    pub fn is_settled(&self) -> bool {
        let given_up = |it: &Target| self.is_forward() && !it.was_new && it.given_up;
        self.targets.values().all(|it| it.is_settled() || it.is_lost() || given_up(it))
    }

    /// Whether every target that was told to run the new version runs the old one again, or is lost.
    pub fn is_restored(&self) -> bool {
        let back = |it: &Target| !self.is_owed(it) && (it.is_settled() || it.is_lost());
        self.targets.values().all(|it| back(it) || !it.was_new)
    }

    /// How many targets were told to run the new version, also if they returned since.
    pub fn changed(&self) -> usize {
        self.targets.values().filter(|target| target.was_new).count()
    }

    /// What is to be done about the release when it ended badly: targets that are not restored.
    pub fn unsettled(&self) -> Vec<TargetId> {
        let unsettled = self.targets.iter().filter(|(_, target)| !target.is_settled());
        unsettled.map(|(id, _)| *id).collect()
    }

    /// Takes in one event. Effects that follow are pending from then on.
    pub fn apply(&mut self, logged: &Logged) {
        let (now, number) = (logged.at, self.length);
        let effects = self.change(&logged.event, now);
        self.length += 1;
        let numbered = (0..).zip(effects).map(|(at, effect)| (EffectId(number, at), effect));
        self.pending.extend(numbered);
    }

    fn enter(&mut self, phase: Phase, now: Millis) {
        (self.phase, self.since) = (phase, now);
    }

    fn change(&mut self, event: &Event, now: Millis) -> Vec<Effect> {
        match event {
            Event::Started => {
                self.enter(Phase::Verifying, now);
                self.deadline = now.saturating_add(self.spec.deadline);
                return vec![Effect::Verify(self.spec.new.clone())];
            }
            Event::Verified => {
                self.enter(Phase::Waiting, now);
                self.lock_asked = now;
                return vec![Effect::Lock];
            }
            Event::LockAsked => {
                self.lock_asked = now;
                return vec![Effect::Lock];
            }
            Event::Locked(token) => {
                self.lock = Some(*token);
                self.generation = Generation { fence: *token, change: 0 };
            }
            Event::GateBegan(step) => self.enter(Phase::Gate(*step), now),
            Event::StepBegan(step) => return self.begin_step(*step, now),
            Event::WaveBegan(targets) => {
                self.crowded = None;
                return self.tell_each(targets, now);
            }
            Event::Crowded(down) => self.crowded = Some(*down),
            Event::Asked(target) => return self.ask(*target, now),
            Event::Heard(id, running) => self.hear(*id, running),
            Event::GivenUp(id) => {
                if let Some(target) = self.targets.get_mut(id) {
                    target.given_up = true;
                }
            }
            Event::BakeBegan => self.bake(now),
            Event::JudgeAsked => return vec![Effect::Judge],
            Event::Looked(verdict) => {
                self.looks.look(*verdict, false);
            }
            Event::Unwanted(token) => return vec![Effect::Unlock(*token)],
            Event::Extended => {
                self.extensions += 1;
                // The time of a pause is added when it ends.
                self.since = self.paused.unwrap_or(now);
            }
            Event::SoakBegan => self.soak(now),
            Event::Paused(_) => self.pause(now, false),
            Event::Frozen(_) => self.pause(now, true),
            Event::ShiftAsked => return self.split(),
            Event::Shifted => self.split = self.shift(),
            Event::Resumed => self.resume(now),
            Event::RollbackBegan(why) => return self.roll_back(why, now),
            Event::Refused(_) => self.enter(Phase::Ended(End::Rejected), now),
            Event::Ended(end) => return self.end(*end, now),
            Event::Done(effect) => drop(self.pending.remove(effect)),
        }
        Vec::new()
    }

    fn bake(&mut self, now: Millis) {
        if let Phase::Applying(step) = self.phase {
            self.enter(Phase::Baking(step), now);
        }
        self.watched = now;
        (self.extensions, self.looks) = (0, Looks::default());
    }

    fn soak(&mut self, now: Millis) {
        self.enter(Phase::Soaking, now);
        self.watched = now;
        (self.extensions, self.looks) = (0, Looks::default());
    }

    fn hear(&mut self, id: TargetId, running: &Running) {
        let Some(target) = self.targets.get_mut(&id) else { return };
        let was_settled = target.is_settled();
        target.running = Some(running.clone());
        // Who has settled may need to be told again one day.
        if target.is_settled() || was_settled {
            (target.tries, target.given_up) = (0, false);
        }
    }

    fn pause(&mut self, now: Millis, frozen: bool) {
        self.paused.get_or_insert(now);
        self.frozen = frozen;
    }

    /// How the requests have to be split before the phase can end; `None`: they are.
    pub fn shift(&self) -> Option<Shift> {
        let step = |step: usize| {
            let shifts = self.spec.steps.get(step)?.traffic.is_some();
            shifts.then_some(Shift::Step(step)).filter(|shift| self.split != Some(*shift))
        };
        match self.phase {
            Phase::Applying(at) => step(at),
            Phase::RollingBack => match self.split {
                None | Some(Shift::Restored) => None,
                Some(Shift::Step(_)) => Some(Shift::Back),
                // Those that serve are all that are asked, before and after.
                Some(Shift::Back) if self.spec.beside => None,
                Some(Shift::Back) => Some(Shift::Restored),
            },
            _ => None,
        }
    }

    /// Whether no request goes to the new version any more, where that is said to a balancer.
    pub fn is_back(&self) -> bool {
        self.shift() != Some(Shift::Back)
    }

    fn split(&mut self) -> Vec<Effect> {
        let Some(shift) = self.shift() else { return Vec::new() };
        self.generation.change += 1;
        vec![Effect::Shift(shift, self.generation)]
    }

    fn resume(&mut self, now: Millis) {
        let Some(since) = self.paused.take() else { return };
        self.frozen = false;
        let paused = now.saturating_sub(since);
        self.deadline = self.deadline.saturating_add(paused);
        self.since = self.since.saturating_add(paused);
        self.extensions = 0;
    }

    fn begin_step(&mut self, step: usize, now: Millis) -> Vec<Effect> {
        self.enter(Phase::Applying(step), now);
        self.touched.get_or_insert(now);
        self.generation.change += 1;
        // In waves it is told when it is known who is down.
        if self.spec.unavailable.is_some() { Vec::new() } else { self.tell_all(now) }
    }

    pub(super) fn desire(&mut self, id: TargetId, version: Version, now: Millis) -> Effect {
        let is_new = version == self.spec.new;
        let desired = Desired { version, generation: self.generation };
        let before = self.targets.remove(&id);
        let was_new = is_new || before.as_ref().is_some_and(|it| it.was_new);
        let running = before.and_then(|it| it.running);
        let (asked, tries, given_up) = (now, 1, false);
        let target = Target { desired: desired.clone(), running, asked, tries, given_up, was_new };
        self.targets.insert(id, target);
        Effect::Apply(id, desired)
    }

    fn ask(&mut self, id: TargetId, now: Millis) -> Vec<Effect> {
        // What was said before is said again by this.
        self.pending.retain(|_, effect| !matches!(effect, Effect::Apply(of, _) if *of == id));
        let Some(target) = self.targets.get_mut(&id) else { return Vec::new() };
        target.asked = now;
        target.tries = target.tries.saturating_add(1);
        vec![Effect::Apply(id, target.desired.clone())]
    }

    fn roll_back(&mut self, why: &Why, now: Millis) -> Vec<Effect> {
        self.enter(Phase::RollingBack, now);
        (self.why, self.paused, self.frozen) = (Some(why.clone()), None, false);
        self.crowded = None;
        // A step's split that was asked for may have been done, or be done yet.
        let asked = self.pending.values().find_map(|effect| match effect {
            Effect::Shift(shift, _) => Some(*shift),
            _ => None,
        });
        self.split = asked.or(self.split);
        // Nothing else matters any more.
        self.pending.retain(|_, effect| matches!(effect, Effect::Lock | Effect::Unlock(_)));
        self.generation.change += 1;
        // Requests first: that takes a moment, where targets take longer.
        let mut effects: Vec<Effect> =
            self.shift().map(|shift| Effect::Shift(shift, self.generation)).into_iter().collect();
        if !self.is_gradual() {
            effects.extend(self.tell_all(now));
        }
        if why.blames_release() {
            effects.push(Effect::Quarantine(self.spec.new.clone()));
        }
        effects
    }

    fn end(&mut self, end: End, now: Millis) -> Vec<Effect> {
        self.enter(Phase::Ended(end), now);
        if end == End::Overtaken {
            self.pending.clear();
        }
        let page = (end == End::RollbackFailed).then(|| {
            Effect::Page(match self.spec.old {
                Some(_) => format!("targets that are not restored: {:?}", self.unsettled()),
                None => "there is no release to return to".to_owned(),
            })
        });
        page.into_iter().chain(self.lock.take().map(Effect::Unlock)).collect()
    }

    /// What one more look of the judge comes to, with those before it.
    pub fn look(&self, verdict: Verdict, breach: bool) -> Verdict {
        self.looks.clone().look(verdict, breach)
    }
}
