//! Short histories, told input by input.

use std::sync::Arc;

use crate::judge::Verdict;
use crate::rollouts::machine::{
    Effect, EffectId, End, Event, Input, Limits, Logged, Millis, Outcome, Phase, RolloutState,
    Running, Shift, Spec, StepSpec, Why, decide,
};

pub const MINUTE: Millis = 60_000;

pub fn spec(gates: [bool; 2]) -> Arc<Spec> {
    let step = |targets: &[u32], gate| StepSpec {
        targets: targets.to_vec(),
        bake: MINUTE,
        gate,
        traffic: None,
        fresh: Vec::new(),
    };
    Arc::new(Spec {
        old: Some("old".into()),
        new: "new".into(),
        steps: vec![step(&[0], gates[0]), step(&[1, 2], gates[1])],
        soak: 5 * MINUTE,
        deadline: 60 * MINUTE,
        limits: Limits {
            settle: MINUTE,
            tries: 3,
            lost: 1,
            extensions: 2,
            rollback: 10 * MINUTE,
            lock_retry: 5_000,
        },
        unavailable: None,
        beside: false,
    })
}

/// A rollout whose effects are all carried out at once, and whose targets obey.
pub struct Told {
    pub state: RolloutState,
    pub now: Millis,
    pub log: Vec<Logged>,
    verdict: Verdict,
    pub done: Vec<Effect>,
    /// Targets that do not answer.
    pub silent: Vec<u32>,
}

impl Told {
    fn start(gates: [bool; 2]) -> Self {
        Self::of(spec(gates))
    }

    pub fn of(spec: Arc<Spec>) -> Self {
        let state = RolloutState::new(spec);
        let (log, done, silent) = (Vec::new(), Vec::new(), Vec::new());
        let mut told = Self { state, now: 0, log, verdict: Verdict::Promote, done, silent };
        told.tell(&Input::Start);
        told
    }

    pub fn tell(&mut self, input: &Input) {
        for event in decide(&self.state, input, self.now) {
            let logged = Logged { at: self.now, event };
            self.state.apply(&logged);
            self.log.push(logged);
        }
        while let Some((id, effect)) = self.state.pending.first_key_value() {
            let (id, effect) = (*id, effect.clone());
            self.carry_out(id, effect);
        }
    }

    fn carry_out(&mut self, id: EffectId, effect: Effect) {
        let outcome = match &effect {
            Effect::Lock => Outcome::Locked(7),
            Effect::Judge => {
                Outcome::Judged { verdict: self.verdict, breach: false, why: "worse".to_owned() }
            }
            _ => Outcome::Done,
        };
        self.done.push(effect.clone());
        self.tell(&Input::Result(id, outcome));
        if let Effect::Apply(target, desired) = effect
            && !self.silent.contains(&target)
        {
            let running = Running::Version(desired.version, desired.generation);
            self.tell(&Input::Observed(target, running));
        }
    }

    pub fn wait(&mut self, time: Millis) {
        for _ in 0..time / 5_000 {
            self.now += 5_000;
            self.tell(&Input::Tick);
        }
    }

    pub fn applied(&self) -> Vec<(u32, &str)> {
        let applied = |effect: &'_ Effect| match effect {
            Effect::Apply(target, desired) => Some((*target, desired.version.clone())),
            _ => None,
        };
        let name = |(target, version): (u32, Arc<str>)| {
            (target, if &*version == "new" { "new" } else { "old" })
        };
        self.done.iter().filter_map(applied).map(name).collect()
    }
}

#[test]
fn a_good_release_comes_to_all_targets_and_is_watched_to_the_end() {
    let mut told = Told::start([false, false]);
    assert_eq!(told.state.phase, Phase::Applying(0));
    told.wait(4 * MINUTE);
    assert_eq!(told.state.phase, Phase::Soaking);
    told.wait(6 * MINUTE);
    assert_eq!(told.state.phase, Phase::Ended(End::Succeeded));
    assert_eq!(told.applied(), [(0, "new"), (1, "new"), (2, "new")]);
    assert_eq!(told.done.iter().filter(|effect| **effect == Effect::Unlock(7)).count(), 1);
    assert_eq!(RolloutState::replay(spec([false, false]), &told.log), told.state);
}

#[test]
fn a_breach_reverts_in_every_phase_that_goes_forward() {
    let reach: [(&str, [bool; 2], Millis); 5] = [
        ("applying", [false, false], 0),
        ("baking", [false, false], 20_000),
        ("at a gate", [false, true], 2 * MINUTE),
        ("soaking after all have it", [false, false], 4 * MINUTE),
        ("at the first gate", [true, false], 0),
    ];
    for (name, gates, time) in reach {
        for paused in [false, true] {
            let mut told = Told::start(gates);
            told.wait(time);
            if paused {
                told.tell(&Input::Pause("ann".to_owned()));
            }
            let touched = told.state.targets.len();
            assert!(told.state.is_forward(), "{name}");
            told.tell(&Input::Breach("errors".to_owned()));
            told.tell(&Input::Tick);
            assert_eq!(told.state.phase, Phase::Ended(End::RolledBack), "{name}");
            let back = told.applied().iter().filter(|(_, version)| *version == "old").count();
            assert_eq!(back, touched, "{name}");
            assert!(told.done.contains(&Effect::Quarantine("new".into())), "{name}");
            // A rollout that was reverted is not reverted again.
            told.tell(&Input::Breach("errors".to_owned()));
            assert_eq!(told.state.phase, Phase::Ended(End::RolledBack), "{name}");
        }
    }
}

#[test]
fn a_gate_waits_for_a_person_and_a_pause_stops_the_clock() {
    let mut told = Told::start([false, true]);
    told.wait(3 * MINUTE);
    assert_eq!(told.state.phase, Phase::Gate(1));
    told.tell(&Input::Approve { step: 0 });
    assert_eq!(told.state.phase, Phase::Gate(1), "that was for another step");
    told.tell(&Input::Pause("ann".to_owned()));
    told.wait(100 * MINUTE);
    assert_eq!(told.state.phase, Phase::Gate(1), "no deadline while a person has stopped it");
    told.tell(&Input::Resume);
    told.tell(&Input::Approve { step: 1 });
    assert_eq!(told.state.phase, Phase::Applying(1));
    told.wait(10 * MINUTE);
    assert_eq!(told.state.phase, Phase::Ended(End::Succeeded));
}

#[test]
fn nobody_at_a_gate_is_a_deadline() {
    let mut told = Told::start([false, true]);
    told.wait(61 * MINUTE);
    assert_eq!(told.state.why, Some(Why::Deadline));
    assert_eq!(told.state.phase, Phase::Ended(End::RolledBack));
    assert!(!told.done.iter().any(|effect| matches!(effect, Effect::Quarantine(_))));
}

#[test]
fn a_judge_that_cannot_decide_extends_and_then_pauses() {
    let mut told = Told::start([false, false]);
    told.verdict = Verdict::Hold;
    told.wait(30 * MINUTE);
    assert!(told.state.paused.is_some() && told.state.phase == Phase::Baking(0));
    assert_eq!(told.log.iter().filter(|logged| logged.event == Event::Extended).count(), 3);
    told.verdict = Verdict::Promote;
    told.tell(&Input::Resume);
    told.wait(15 * MINUTE);
    assert_eq!(told.state.phase, Phase::Ended(End::Succeeded));
}

#[test]
fn two_bad_looks_revert() {
    let mut told = Told::start([false, false]);
    told.verdict = Verdict::Rollback;
    told.wait(MINUTE + 10_000);
    assert_eq!(told.state.phase, Phase::Baking(0), "one look is no proof");
    told.wait(3 * MINUTE);
    assert_eq!(told.state.phase, Phase::Ended(End::RolledBack));
}

#[test]
fn aborted_and_superseded_rollouts_keep_no_target() {
    for input in [Input::Abort("ann".to_owned()), Input::Supersede("1.5".to_owned())] {
        let mut told = Told::start([false, false]);
        told.tell(&input);
        told.tell(&Input::Tick);
        assert_eq!(told.state.phase, Phase::Ended(End::RolledBack));
        assert_eq!(told.applied(), [(0, "new"), (0, "old")]);
        assert!(!told.done.iter().any(|effect| matches!(effect, Effect::Quarantine(_))));
    }
}

#[test]
fn a_silent_target_is_given_up_and_told_when_it_is_back() {
    let mut told = Told::start([false, false]);
    told.silent = vec![1];
    told.wait(20 * MINUTE);
    assert_eq!(told.state.phase, Phase::Ended(End::Succeeded), "one may be lost");
    assert_eq!(told.state.unsettled(), [1]);
    told.silent.clear();
    told.tell(&Input::Observed(1, Running::Version("old".into(), Default::default())));
    assert!(told.state.unsettled().is_empty());
    let mut told = Told::start([false, false]);
    told.silent = vec![1, 2];
    told.wait(30 * MINUTE);
    assert_eq!(told.state.why, Some(Why::Lost(2)));
    assert_eq!(told.state.phase, Phase::Ended(End::RolledBack));
}

#[test]
fn a_rollback_without_an_end_calls_a_person_however_seldom_the_clock_ticks() {
    let mut told = Told::start([false, false]);
    // The target answers, but stays at the new version however often it is told to go back.
    told.silent = vec![0];
    told.tell(&Input::Abort("ann".to_owned()));
    for _ in 0..11 {
        told.now += MINUTE;
        told.tell(&Input::Tick);
    }
    assert_eq!(told.state.phase, Phase::Ended(End::RollbackFailed));
    assert!(told.done.iter().any(|effect| matches!(effect, Effect::Page(_))));
}

#[test]
fn what_is_not_verified_touches_nothing() {
    let mut state = RolloutState::new(spec([false, false]));
    state.apply(&Logged { at: 0, event: Event::Started });
    let refused = Input::Result(EffectId(0, 0), Outcome::Refused("no signature".to_owned()));
    for event in decide(&state, &refused, 1) {
        state.apply(&Logged { at: 1, event });
    }
    assert_eq!(state.phase, Phase::Ended(End::Rejected));
    assert!(state.pending.is_empty() && state.targets.is_empty());
    assert!(decide(&state, &Input::Tick, 10_000_000).is_empty());
}

#[test]
fn who_is_overtaken_says_nothing_more() {
    let mut state = RolloutState::new(spec([false, false]));
    for event in [Event::Started, Event::Verified, Event::Locked(7), Event::StepBegan(0)] {
        state.apply(&Logged { at: 0, event });
    }
    let (id, _) = state.pending.last_key_value().expect("the step's");
    let newer = crate::rollouts::machine::Generation { fence: 8, change: 1 };
    for event in decide(&state.clone(), &Input::Result(*id, Outcome::Stale(newer)), 1) {
        state.apply(&Logged { at: 1, event });
    }
    assert_eq!(state.phase, Phase::Ended(End::Overtaken));
    assert!(!state.pending.values().any(|effect| matches!(effect, Effect::Apply(..))));
}

#[test]
fn who_is_overtaken_after_the_end_ended_as_before() {
    let mut told = Told::start([false, false]);
    told.wait(20 * MINUTE);
    assert_eq!(told.state.phase, Phase::Ended(End::Succeeded));
    let orders = told.applied().len();
    let newer = crate::rollouts::machine::Generation { fence: 8, change: 1 };
    told.tell(&Input::Observed(0, Running::Version("newer".into(), newer)));
    assert_eq!(told.applied().len(), orders, "the target would refuse it");
    // An order is on its way when somebody else tells the target something newer.
    let mut state = told.state.clone();
    state.apply(&Logged { at: told.now, event: Event::Asked(0) });
    let (id, _) = state.pending.last_key_value().expect("the order");
    for event in decide(&state.clone(), &Input::Result(*id, Outcome::Stale(newer)), told.now) {
        state.apply(&Logged { at: told.now, event });
    }
    assert_eq!(state.phase, Phase::Ended(End::Succeeded));
    assert!(state.pending.is_empty());
}

/// A rollout that splits requests as well.
fn split() -> Arc<Spec> {
    let mut spec = (*spec([false, false])).clone();
    for (step, share) in spec.steps.iter_mut().zip([1_000, 10_000]) {
        step.traffic = Some(share);
    }
    Arc::new(spec)
}

pub fn shifts(told: &Told) -> Vec<Shift> {
    let shift = |effect: &Effect| match effect {
        Effect::Shift(shift, _) => Some(*shift),
        _ => None,
    };
    told.done.iter().filter_map(shift).collect()
}

#[test]
fn requests_are_split_before_a_step_is_watched_and_come_back_before_targets_do() {
    let mut told = Told::of(split());
    told.wait(12 * MINUTE);
    assert_eq!(told.state.phase, Phase::Ended(End::Succeeded));
    assert_eq!(shifts(&told), [Shift::Step(0), Shift::Step(1)]);
    let mut told = Told::of(split());
    told.wait(20_000);
    assert_eq!(told.state.phase, Phase::Baking(0));
    let before = told.done.len();
    told.tell(&Input::Breach("errors".to_owned()));
    told.wait(20_000);
    assert_eq!(told.state.phase, Phase::Ended(End::RolledBack));
    assert!(matches!(told.done.get(before), Some(Effect::Shift(Shift::Back, _))));
    assert_eq!(shifts(&told), [Shift::Step(0), Shift::Back, Shift::Restored]);
    let generations = told.done.iter().filter_map(|effect| match effect {
        Effect::Shift(_, generation) => Some(*generation),
        _ => None,
    });
    assert!(generations.is_sorted_by(|a, b| a < b), "a balancer refuses what is older");
}

#[test]
fn a_freeze_stops_what_goes_forward_and_no_rollback() {
    let mut told = Told::start([false, false]);
    told.tell(&Input::Freeze("weekend".to_owned()));
    told.wait(100 * MINUTE);
    assert_eq!(told.state.phase, Phase::Applying(0));
    told.tell(&Input::Resume);
    assert!(told.state.paused.is_some(), "no person ends a freeze by that");
    let mut thawed = Told::start([false, false]);
    thawed.tell(&Input::Freeze("weekend".to_owned()));
    thawed.tell(&Input::Thaw);
    thawed.wait(12 * MINUTE);
    assert_eq!(thawed.state.phase, Phase::Ended(End::Succeeded));
    told.tell(&Input::Breach("errors".to_owned()));
    told.tell(&Input::Tick);
    assert_eq!(told.state.phase, Phase::Ended(End::RolledBack));
}

#[test]
fn what_has_no_predecessor_calls_a_person() {
    let mut spec = (*spec([false, false])).clone();
    spec.old = None;
    let mut told = Told::of(Arc::new(spec));
    told.tell(&Input::Breach("errors".to_owned()));
    told.tell(&Input::Tick);
    assert_eq!(told.state.phase, Phase::Ended(End::RollbackFailed));
    assert!(told.done.iter().any(|effect| matches!(effect, Effect::Page(_))));
}

#[test]
fn who_has_given_up_is_told_again_sooner_and_not_more_often() {
    let mut told = Told::of(spec([false, false]));
    let mut stuck = Told::of(spec([false, false]));
    for one in [&mut told, &mut stuck] {
        // The target runs what it ran before, and says that it is done with its order.
        let generation = one.state.generation;
        one.tell(&Input::Observed(0, Running::Version("old".into(), generation)));
        assert_eq!(one.state.phase, Phase::Applying(0));
        one.silent.push(0);
    }
    let mut seconds = 0;
    while told.state.is_forward() {
        told.now += 5_000;
        seconds += 5;
        told.tell(&Input::Failed(0));
        told.tell(&Input::Tick);
    }
    assert_eq!(told.state.why, Some(Why::Stuck(0)));
    // The order was given once, and repeated no more often than to any other target.
    assert_eq!(told.applied().iter().filter(|(_, version)| *version == "new").count(), 4);
    stuck.wait(seconds * 1_000);
    assert!(stuck.state.is_forward(), "who says nothing is waited for");
}
