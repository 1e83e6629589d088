//! Targets that are told a few at a time, a baseline that is started anew, and targets beside those that serve.

use std::sync::Arc;

use proptest::prelude::*;

use super::histories::{MINUTE, Told, shifts, spec};
use crate::rollouts::machine::{
    Effect, End, Event, Input, Logged, Phase, RolloutState, Running, Shift, Spec, StepSpec,
    TargetId, Why, decide,
};

fn of(change: impl FnOnce(&mut Spec)) -> Arc<Spec> {
    let mut spec = (*spec([false, false])).clone();
    change(&mut spec);
    Arc::new(spec)
}

/// A rollout in its first step, whose targets settle when they are told to.
struct Stepwise {
    state: RolloutState,
    now: u64,
}

impl Stepwise {
    fn start(count: u32, allowed: usize) -> Self {
        let steps = vec![StepSpec {
            targets: (0..count).collect(),
            bake: MINUTE,
            gate: false,
            traffic: None,
            fresh: Vec::new(),
        }];
        let spec = of(|spec| (spec.steps, spec.unavailable) = (steps, Some(allowed)));
        let mut one = Self { state: RolloutState::new(spec), now: 0 };
        for event in [Event::Started, Event::Verified, Event::Locked(7), Event::StepBegan(0)] {
            one.state.apply(&Logged { at: 0, event });
        }
        one
    }

    /// Returns who is told.
    fn tell(&mut self, input: &Input) -> Vec<TargetId> {
        let mut told = Vec::new();
        for event in decide(&self.state, input, self.now) {
            if let Event::WaveBegan(ids) = &event {
                told.extend(ids);
            }
            self.state.apply(&Logged { at: self.now, event });
        }
        told
    }

    fn unsettled(&self) -> Vec<TargetId> {
        self.state.unsettled()
    }

    fn settle(&mut self, pick: u16) {
        let waiting = self.unsettled();
        if let Some(id) = waiting.get(usize::from(pick) % waiting.len().max(1)) {
            let desired = self.state.targets[id].desired.clone();
            let running = Running::Version(desired.version, desired.generation);
            self.tell(&Input::Observed(*id, running));
        }
    }
}

proptest! {
    #[test]
    fn no_wave_takes_more_away_than_may_be_down(
        count in 1u32..12,
        allowed in 1usize..5,
        ill in proptest::collection::vec(any::<bool>(), 12),
        picks in proptest::collection::vec(any::<u16>(), 60),
    ) {
        let mut one = Stepwise::start(count, allowed);
        let down: Vec<TargetId> = (0..).zip(ill).filter(|it| it.1 && it.0 < count).map(|it| it.0).collect();
        for pick in &picks {
            let untouched = down.iter().filter(|id| !one.state.targets.contains_key(*id)).count();
            let busy = untouched + one.unsettled().len();
            let told = one.tell(&Input::Fleet(down.clone()));
            let taken = told.iter().filter(|id| !down.contains(id)).count();
            prop_assert!(taken == 0 || busy + taken <= allowed, "{busy} and {taken}");
            one.settle(*pick);
        }
        prop_assert!(one.state.untold(0).is_empty() && one.unsettled().is_empty());

        // The same bound holds on the way back.
        one.tell(&Input::Breach("errors".to_owned()));
        for pick in picks {
            one.now += 100;
            let busy = one.unsettled().len();
            let told = one.tell(&Input::Tick);
            prop_assert!(told.is_empty() || busy + told.len() <= allowed);
            one.settle(pick);
        }
        one.tell(&Input::Tick);
        prop_assert_eq!(one.state.phase, Phase::Ended(End::RolledBack));
    }
}

#[test]
fn what_is_down_already_counts_and_is_said_once() {
    let mut one = Stepwise::start(3, 1);
    assert_eq!(one.tell(&Input::Fleet(vec![2])), [2], "who is down takes nothing away");
    assert!(one.tell(&Input::Fleet(vec![])).is_empty(), "until it is up");
    one.settle(0);
    assert_eq!(one.tell(&Input::Fleet(vec![])), [0]);
    let mut other = Stepwise::start(2, 1);
    // A target of a later step is down: nothing of this step may be.
    assert!(other.tell(&Input::Fleet(vec![7])).is_empty());
    assert_eq!(other.state.crowded, Some(1));
    let length = other.state.length;
    other.tell(&Input::Fleet(vec![7]));
    assert_eq!(other.state.length, length, "the same is said once");
    other.tell(&Input::Pause("ann".to_owned()));
    assert!(other.tell(&Input::Fleet(vec![])).is_empty(), "nothing begins in a pause");
    other.tell(&Input::Resume);
    assert_eq!(other.tell(&Input::Fleet(vec![])), [0]);
    assert_eq!(other.state.crowded, None);
}

#[test]
fn who_is_lost_holds_up_no_return() {
    let mut one = Stepwise::start(3, 1);
    for _ in 0..3 {
        one.tell(&Input::Fleet(vec![]));
        one.settle(0);
    }
    one.tell(&Input::Observed(1, Running::Silent));
    one.tell(&Input::Abort("ann".to_owned()));
    for _ in 0..200 {
        one.now += 5_000;
        one.tell(&Input::Tick);
        let silent = one.unsettled().iter().all(|id| *id == 1);
        if !silent {
            let waiting: Vec<_> = one.unsettled().into_iter().filter(|id| *id != 1).collect();
            let desired = one.state.targets[&waiting[0]].desired.clone();
            let running = Running::Version(desired.version, desired.generation);
            one.tell(&Input::Observed(waiting[0], running));
        }
    }
    assert_eq!(one.state.phase, Phase::Ended(End::RolledBack));
    assert_eq!(one.unsettled(), [1], "it is told when it comes back");
}

#[test]
fn a_fresh_baseline_is_told_the_old_version_with_the_canary_and_is_not_returned() {
    let mut told = Told::of(of(|spec| spec.steps[0].fresh = vec![2]));
    assert_eq!(told.applied(), [(0, "new"), (2, "old")]);
    assert_eq!((told.state.changed(), told.state.spec.cohort(0)), (1, vec![2]));
    assert!(told.state.spec.cohort(1).is_empty(), "it has the new version by then");
    told.wait(12 * MINUTE);
    assert_eq!(told.state.phase, Phase::Ended(End::Succeeded));
    assert_eq!(told.applied()[2..], [(1, "new"), (2, "new")]);

    let mut told = Told::of(of(|spec| spec.steps[0].fresh = vec![2]));
    told.tell(&Input::Breach("errors".to_owned()));
    told.tell(&Input::Tick);
    assert_eq!(told.state.phase, Phase::Ended(End::RolledBack));
    assert_eq!(told.applied()[2..], [(0, "old")]);
}

#[test]
fn a_baseline_that_does_not_start_anew_blames_nobody() {
    let mut told = Told::of(of(|spec| {
        (spec.steps[0].fresh, spec.limits.lost) = (vec![2], 0);
    }));
    // The target runs the right version but names no generation, as if it had not heard the order to start
    // anew.
    let desired = told.state.targets[&2].desired.clone();
    told.tell(&Input::Observed(2, Running::Version(desired.version, Default::default())));
    told.silent = vec![2];
    told.wait(4 * MINUTE);
    assert!(told.state.why.is_none(), "{:?}", told.state.why);
    assert!(told.state.is_settled());
}

/// A rollout in which both versions are there: `install beside`, then all requests at once.
fn beside() -> Arc<Spec> {
    of(|spec| {
        (spec.steps[0].targets, spec.steps[0].traffic) = (vec![0, 1, 2], Some(0));
        (spec.steps[1].targets, spec.steps[1].traffic) = (Vec::new(), Some(10_000));
        spec.beside = true;
    })
}

#[test]
fn requests_are_switched_at_once_and_both_sets_stay_warm() {
    let mut told = Told::of(beside());
    told.wait(12 * MINUTE);
    assert_eq!(told.state.phase, Phase::Ended(End::Succeeded));
    assert_eq!(shifts(&told), [Shift::Step(0), Shift::Step(1)]);
    assert_eq!(told.applied(), [(0, "new"), (1, "new"), (2, "new")], "who served is not touched");
}

#[test]
fn requests_are_switched_back_before_any_target_is_restarted() {
    let mut told = Told::of(beside());
    told.wait(4 * MINUTE);
    assert_eq!(told.state.phase, Phase::Soaking);
    let before = told.done.len();
    told.tell(&Input::Breach("errors".to_owned()));
    let shift =
        told.done[before..].iter().position(|it| matches!(it, Effect::Shift(Shift::Back, _)));
    assert_eq!(shift, Some(0), "{:?}", &told.done[before..]);
    assert_eq!(told.applied().len(), 3, "requests first");
    told.wait(20_000);
    assert_eq!(told.state.phase, Phase::Ended(End::RolledBack));
    assert_eq!(told.applied()[3..], [(0, "old"), (1, "old"), (2, "old")]);
    assert_eq!(shifts(&told).last(), Some(&Shift::Back), "those that serve are all that are asked");
}

#[test]
fn a_balancer_that_does_not_answer_holds_a_return_up_for_a_while_only() {
    let mut state = RolloutState::new(beside());
    let events = [Event::Started, Event::Verified, Event::Locked(7), Event::StepBegan(0)];
    for event in events {
        state.apply(&Logged { at: 0, event });
    }
    state.split = Some(Shift::Step(1));
    state.apply(&Logged { at: 1_000, event: Event::RollbackBegan(Why::Breach("x".to_owned())) });
    assert!(decide(&state, &Input::Tick, 2_000).is_empty());
    let late = decide(&state, &Input::Tick, 1_000 + state.spec.limits.settle);
    assert_eq!(late, [Event::WaveBegan(vec![0, 1, 2])]);
}

#[test]
fn nobody_is_given_up_while_it_is_not_known_how_targets_are() {
    let mut told = Told::of(spec([false, false]));
    told.tell(&Input::Observed(0, Running::Silent));
    told.silent = vec![0];
    for _ in 0..100 {
        told.now += 5_000;
        told.tell(&Input::Blind);
    }
    assert!(told.state.is_forward() && told.applied().len() == 1, "{:?}", told.state.why);
    told.wait(5 * MINUTE);
    assert!(told.state.targets[&0].is_lost(), "now it is");
    told.now += 60 * MINUTE;
    told.tell(&Input::Blind);
    assert!(!told.state.is_forward(), "time goes by all the same");
}
