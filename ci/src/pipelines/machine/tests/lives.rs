//! Every order of events: a run ends, nothing begins before what it needs, and nothing that passed begins again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::world::{MOST, spec, stage};
use crate::model::Time;
use crate::pipelines::machine::{
    End, Event, Input, Logged, Phase, RunState, Skip, Spec, Standing, StopWhy, step,
};
use crate::pipelines::runner::Outcome;
use crate::pipelines::stage::{Approval, On, RetryOn, Work};

fn outcome(kind: u8) -> Outcome {
    let reason = "so it is".to_owned();
    match kind % 4 {
        0 | 1 => Outcome::Passed { told: BTreeMap::from([("key".to_owned(), "value".to_owned())]) },
        2 => Outcome::Failed { reason },
        _ => Outcome::Infrastructure { reason },
    }
}

/// A life: what it is told, by what was drawn.
struct Life {
    state: RunState,
    now: Time,
    log: Vec<Logged>,
}

impl Life {
    fn new(spec: Arc<Spec>) -> Self {
        Self { state: RunState::new(spec), now: Time(1_000), log: Vec::new() }
    }

    fn tell(&mut self, input: &Input) {
        let before = self.state.clone();
        let events = step(&mut self.state, input, self.now);
        check(before, &events);
        self.log.extend(events);
    }

    fn input(&mut self, (what, which, kind): (u8, u8, u8)) -> Input {
        let (stage, by) = (u32::from(which) % MOST as u32, format!("person-{}", kind % 3));
        let reason = "why not".to_owned();
        match what {
            0 => {
                self.now = self.now.plus(Duration::from_secs(u64::from(kind)));
                Input::Tick
            }
            1 => Input::Turn,
            2 => Input::Approve { stage, by, reason },
            3 => Input::Refuse { stage, by, reason },
            4 if kind % 8 == 0 => Input::Stop(StopWhy::Cancelled { by, reason }),
            5 => Input::Resume { by, reason },
            _ => {
                let attempt = u32::from(kind / 4) % 3 + 1;
                Input::Ended { stage, attempt, outcome: outcome(kind), links: Vec::new() }
            }
        }
    }

    /// Somebody does what is to be done, until it is over.
    fn end(&mut self) {
        for _ in 0..1_000 {
            if self.state.is_over() {
                return;
            }
            self.tell(&Input::Turn);
            let running: Vec<_> = self.state.running().collect();
            for (at, running) in running {
                let outcome =
                    if running.cancelled.is_some() { Outcome::Cancelled } else { outcome(0) };
                let (stage, attempt) = (u32::try_from(at).unwrap(), running.attempt);
                self.tell(&Input::Ended { stage, attempt, outcome, links: Vec::new() });
            }
            for stage in 0..MOST as u32 {
                for by in ["a", "b"] {
                    let (by, reason) = (by.to_owned(), String::new());
                    self.tell(&Input::Approve { stage, by, reason });
                }
            }
            self.now = self.now.plus(Duration::from_secs(2));
            self.tell(&Input::Tick);
        }
        panic!("it does not end: {:?}", self.state);
    }
}

/// What has to be so whenever something happens.
fn check(mut state: RunState, events: &[Logged]) {
    for logged in events {
        match &logged.event {
            Event::Started { stage, attempt } => {
                let at = *stage as usize;
                let before = &state.stages[at];
                assert!(state.spec.stages[at].left_out.is_none());
                assert_eq!(before.open, 0, "all that it needs has ended");
                assert_eq!(*attempt, before.attempts + 1, "no attempt is given twice");
                let waits = matches!(before.standing, Standing::Waiting | Standing::Pausing { .. });
                assert!(waits, "what has ended never begins again: {before:?}");
                assert!(state.stop.is_none() && state.phase == Phase::Running);
                let good = state.spec.stages[at].needs.iter().all(|it| state.is_good(*it as usize));
                let on = state.spec.stages[at].on;
                assert!(on == On::Always || good == (on == On::Success));
                assert!(state.running().count() <= state.spec.most);
            }
            Event::Finished { .. } => {
                assert!(state.stages.iter().all(|it| it.standing.is_end()));
                assert_eq!(state.running().count(), 0, "nothing is left behind");
            }
            _ => {}
        }
        state.apply(logged);
    }
}

fn replay(spec: &Arc<Spec>, log: &[Logged]) -> RunState {
    let mut state = RunState::new(spec.clone());
    log.iter().for_each(|logged| state.apply(logged));
    state
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_order_of_events_ends_and_is_replayed_from_any_point(
        spec in spec(),
        drawn in prop::collection::vec((0..9u8, any::<u8>(), any::<u8>()), 0..60),
    ) {
        let mut life = Life::new(spec.clone());
        for one in drawn {
            let input = life.input(one);
            life.tell(&input);
            // A crash: whoever reads the log is where it was.
            prop_assert_eq!(&replay(&spec, &life.log), &life.state);
        }
        life.end();
        let written = serde_json::to_vec(&life.log).unwrap();
        let read: Vec<Logged> = serde_json::from_slice(&written).unwrap();
        prop_assert_eq!(&read, &life.log);
        for at in 0..life.log.len() {
            let mut again = replay(&spec, &life.log[..at]);
            again.apply(&life.log[at]);
            prop_assert_eq!(&again, &replay(&spec, &life.log[..=at]));
        }
    }
}

fn ended(stage: u32, attempt: u32, outcome: Outcome) -> Input {
    Input::Ended { stage, attempt, outcome, links: Vec::new() }
}

fn failed() -> Outcome {
    Outcome::Failed { reason: "no".to_owned() }
}

fn life(stages: Vec<crate::pipelines::Stage>) -> Life {
    let spec = Spec::new(stages, "ann", Duration::from_secs(10_000), 10);
    let mut life = Life::new(Arc::new(spec));
    life.tell(&Input::Turn);
    life
}

#[test]
fn a_failure_blocks_what_needs_it_and_a_resumed_run_does_only_that_again() {
    let mut always = stage(3, vec![2]);
    always.on = On::Always;
    let mut life = life(vec![stage(0, vec![]), stage(1, vec![0]), stage(2, vec![1]), always]);
    life.tell(&ended(0, 1, outcome(0)));
    life.tell(&ended(1, 1, failed()));
    assert_eq!(life.state.stages[2].standing, Standing::Skipped(Skip::Blocked));
    assert_eq!(life.state.running().map(|it| it.0).collect::<Vec<_>>(), [3]);
    life.tell(&ended(3, 1, outcome(0)));
    assert_eq!(life.state.phase, Phase::Ended(End::Failed));

    let (by, reason) = ("ann".to_owned(), "the disk was full".to_owned());
    life.tell(&Input::Resume { by, reason });
    assert_eq!(life.state.phase, Phase::Queued);
    life.tell(&Input::Turn);
    assert_eq!(life.state.running().map(|it| it.0).collect::<Vec<_>>(), [1]);
    life.tell(&ended(1, 1, outcome(0)));
    assert_eq!(life.state.running().count(), 1, "the answer of an old attempt is none");
    life.tell(&ended(1, 2, outcome(0)));
    life.tell(&ended(2, 1, outcome(0)));
    assert_eq!(life.state.phase, Phase::Ended(End::Passed));
}

#[test]
fn attempts_pause_longer_each_time_and_time_is_limited() {
    let mut one = stage(0, vec![]);
    (one.retry.again, one.retry.on) = (2, RetryOn::Any);
    let mut life = life(vec![one]);
    for (attempt, pause) in [(1, 1_000), (2, 2_000)] {
        life.now = life.now.plus(Duration::from_secs(100));
        life.tell(&Input::Tick);
        assert!(life.state.running().all(|(_, it)| it.timed_out), "it is to be cancelled");
        life.tell(&ended(0, attempt, Outcome::Cancelled));
        let until = Time(life.now.0 + pause);
        let Standing::Pausing { until: paused, reason } = &life.state.stages[0].standing else {
            panic!("{:?}", life.state)
        };
        assert_eq!((*paused, reason.as_str()), (until, "it took longer than 100 s"));
        life.now = Time(until.0 - 1);
        life.tell(&Input::Tick);
        assert_eq!(life.state.running().count(), 0);
        life.now = until;
        life.tell(&Input::Tick);
        assert_eq!(life.state.running().count(), 1);
    }
    life.tell(&ended(0, 3, failed()));
    assert_eq!(life.state.phase, Phase::Ended(End::Failed));
}

#[test]
fn what_was_cancelled_and_says_nothing_is_given_up() {
    let mut life = life(vec![stage(0, vec![]), stage(1, vec![0])]);
    let (by, reason) = ("ann".to_owned(), "enough".to_owned());
    life.tell(&Input::Stop(StopWhy::Cancelled { by, reason }));
    assert!(!life.state.is_over(), "its attempt has to end first");
    life.now = life.now.plus(super::super::LOST);
    life.tell(&Input::Tick);
    assert_eq!(life.state.phase, Phase::Ended(End::Cancelled));
}

#[test]
fn ten_thousand_stages_end() {
    let stages =
        (0..10_000).map(|at| stage(at, if at < 100 { vec![] } else { vec![at as u32 - 100] }));
    let spec = Arc::new(Spec::new(stages.collect(), "ann", Duration::from_secs(1_000_000), 100));
    let mut state = RunState::new(spec);
    step(&mut state, &Input::Turn, Time(0));
    let mut steps = 0;
    loop {
        let next = state.running().next();
        let Some((at, running)) = next else { break };
        step(&mut state, &ended(at as u32, running.attempt, outcome(0)), Time(1));
        steps += 1;
    }
    assert_eq!((steps, state.phase), (10_000, Phase::Ended(End::Passed)));
}

#[test]
fn an_approval_counts_once_and_not_of_whoever_began_the_run() {
    let mut asks = stage(0, vec![]);
    let by = vec!["ann".to_owned(), "bob".to_owned(), "eve".to_owned()];
    let message = String::new();
    asks.work = Work::Approve(Approval { count: 2, by, own: false, message });
    let mut life = life(vec![asks]);
    for by in ["ann", "bob", "bob", "somebody"] {
        let (by, reason) = (by.to_owned(), String::new());
        life.tell(&Input::Approve { stage: 0, by, reason });
    }
    assert_eq!(life.state.stages[0].approved, ["bob"]);
    let (by, reason) = ("eve".to_owned(), String::new());
    life.tell(&Input::Approve { stage: 0, by, reason });
    assert_eq!(life.state.phase, Phase::Ended(End::Passed));
}
