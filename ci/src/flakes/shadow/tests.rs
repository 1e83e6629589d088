use proptest::prelude::*;

use super::*;
use crate::flakes::{Mixture, Run};
use crate::model::TestKey;

fn subject(number: u32) -> Subject {
    let label = format!("//t:{number}");
    let test = TestKey { instance: String::new(), label, configuration: String::new() };
    Subject { test, case: None }
}

fn identity(number: u32) -> Identity {
    let argv = [number.to_string()];
    let run =
        Run { argv: &argv, environment: &[], working_directory: "", input_root: "", platform: &[] };
    Identity::of(&run)
}

fn fresh(number: u32, rate: Mixture) -> Fresh {
    let expected = Duration::from_secs(10);
    let (subject, identity) = (subject(number), identity(number));
    Fresh {
        subject,
        identity,
        at: Time(0),
        rate,
        expected,
        worker: Some("w".into()),
        good: None,
        flaky: false,
    }
}

fn shadows(limits: Limits) -> Shadows {
    Shadows::new(limits, Prior::default())
}

const TEN: Duration = Duration::from_secs(10);

fn end(it: &mut Shadows, rerun: &Rerun, outcome: Outcome) {
    it.ended(rerun.id, outcome, TEN, Time(0)).unwrap();
}

fn verdict(it: &Shadows, number: u32) -> Verdict {
    it.judgement(&subject(number), identity(number)).unwrap().verdict
}

#[test]
fn reruns_go_on_until_the_posterior_decides() {
    let mut it = shadows(Limits::default());
    it.failed(fresh(1, Mixture::of_tests().after(0.0, 500.0)));
    it.failed(fresh(2, Mixture::of_tests()));
    assert_eq!(verdict(&it, 1), Verdict::Undecided);
    let first = it.next(Time(0), 8);
    assert_eq!(first.len(), 2);
    assert!(it.next(Time(0), 8).is_empty(), "one run at a time for each failure");
    first.iter().for_each(|rerun| end(&mut it, rerun, Outcome::Failed));
    // The first test's clean history shows that the change broke it. The second test has no history to judge
    // by.
    assert_eq!((verdict(&it, 1), verdict(&it, 2)), (Verdict::Broken, Verdict::Undecided));
    let second = it.next(Time(0), 8);
    assert_eq!(second.len(), 1);
    end(&mut it, &second[0], Outcome::Passed);
    assert_eq!(verdict(&it, 2), Verdict::Flaky);
    assert!(it.next(Time(0), 8).is_empty());
}

#[test]
fn what_is_most_likely_to_decide_goes_first() {
    let mut it = shadows(Limits { reserve: 0, ..Limits::default() });
    let often = Mixture::of_tests().after(800.0, 200.0);
    it.failed(fresh(1, often));
    it.failed(Fresh {
        expected: Duration::from_secs(600),
        ..fresh(2, Mixture::of_tests().after(20.0, 400.0))
    });
    it.failed(fresh(3, Mixture::of_tests().after(20.0, 400.0)));
    assert_eq!(it.next(Time(0), 1)[0].subject, subject(3));
    it.wanted(&subject(2), identity(2), 500);
    assert_eq!(it.next(Time(0), 1)[0].subject, subject(2));
}

#[test]
fn limits_hold() {
    let limits = Limits {
        reserve: 2,
        at_once: 3,
        per_failure: 2,
        per_day: 5 * TEN,
        open: 10,
        ..Limits::default()
    };
    let mut it = shadows(limits);
    (0..30).for_each(|number| it.failed(fresh(number, Mixture::of_tests())));
    assert_eq!(it.open.len(), 10);
    assert!(it.next(Time(0), 2).is_empty());
    assert_eq!(it.next(Time(0), 3).len(), 1);
    let more = it.next(Time(0), 100);
    assert_eq!(more.len(), 2);
    for rerun in &more {
        end(&mut it, rerun, Outcome::TimedOut);
    }
    assert_eq!(it.next(Time(0), 100).len(), 2);
    assert_eq!(it.spent(), 5 * TEN);
    let ids: Vec<_> = it.running.keys().copied().collect();
    for id in ids {
        it.ended(id, Outcome::Failed, TEN, Time(0));
    }
    assert!(it.next(Time(0), 100).is_empty(), "the day's budget is spent");
    assert_eq!(it.next(Time(86_400_000), 100).len(), 3);
}

#[test]
fn a_quick_test_that_fails_always_is_broken_within_a_minute_and_one_that_failed_by_chance_later() {
    let took = Duration::from_secs(1);
    let seconds = |flaky| {
        let mut it = shadows(Limits::default());
        it.failed(Fresh { flaky, expected: took, ..fresh(1, Mixture::of_tests()) });
        (0..3_600).find(|second| {
            let now = Time(second * 1_000);
            for rerun in it.next(now, 2) {
                it.ended(rerun.id, Outcome::Failed, took, now.plus(took));
            }
            verdict(&it, 1) == Verdict::Broken
        })
    };
    let (new, flaky) = (seconds(false).unwrap(), seconds(true).unwrap());
    assert!(new <= 60, "{new} s");
    assert!(flaky >= 600, "{flaky} s");
}

#[test]
fn real_work_goes_first() {
    let mut it = shadows(Limits::default());
    it.failed(fresh(1, Mixture::of_tests()));
    it.probe(subject(9), identity(9), TEN);
    let reruns = it.next(Time(0), 9);
    assert_eq!([reruns[0].purpose, reruns[1].purpose], [Purpose::Decide, Purpose::Probe]);
    assert_eq!(it.preempt(1), [reruns[1].id]);
    assert_eq!(it.preempt(5), [reruns[0].id]);
    assert_eq!((it.in_flight(), it.spent()), (0, Duration::ZERO));
    assert!(it.ended(reruns[0].id, Outcome::Passed, TEN, Time(0)).is_none());
    assert_eq!(it.next(Time(0), 9).len(), 2, "they start anew");
}

#[test]
fn failures_together_wait_for_a_control() {
    let mut it = shadows(Limits::default());
    let clean = Mixture::of_tests().after(0.0, 500.0);
    let keys: Vec<_> = (0..5).map(|number| (subject(number), identity(number))).collect();
    (0..5).for_each(|number| it.failed(fresh(number, clean.clone())));
    it.together(7, &keys, vec![(subject(0), identity(100)), (subject(1), identity(101))]);
    let control = it.next(Time(0), 9);
    assert_eq!((control.len(), control[0].purpose), (1, Purpose::Control));
    end(&mut it, &control[0], Outcome::Failed);
    assert!(it.next(Time(0), 9).is_empty(), "the outage is waited for");
    let later = Time(300_000);
    let control = it.next(later, 9);
    assert_eq!(control[0].identity, identity(101));
    end(&mut it, &control[0], Outcome::Passed);
    let reruns = it.next(later, 9);
    assert_eq!(reruns.len(), 5);
    reruns.iter().for_each(|rerun| end(&mut it, rerun, Outcome::Failed));
    assert_eq!(verdict(&it, 4), Verdict::Broken);
    it.forget(Time(1));
    assert!(it.open.is_empty() && it.holds.is_empty());
}

#[test]
fn nothing_is_broken_while_what_passed_before_fails_too() {
    let mut it = shadows(Limits::default());
    let clean = Mixture::of_tests().after(0.0, 500.0);
    it.failed(Fresh { good: Some(identity(50)), ..fresh(1, clean) });
    let mut turn = |minutes: u64, purpose, outcome| {
        let reruns = it.next(Time(minutes * 60_000), 9);
        assert_eq!(reruns.iter().map(|it| it.purpose).collect::<Vec<_>>(), [purpose]);
        assert_eq!(reruns[0].avoid.as_deref(), Some("w"));
        it.ended(reruns[0].id, outcome, TEN, Time(minutes * 60_000)).unwrap();
        assert!(it.next(Time(minutes * 60_000), 9).is_empty() || purpose != Purpose::Control);
        it.preempt(9);
        (verdict(&it, 1), it.settled(&subject(1), identity(1)))
    };
    let undecided = (Verdict::Undecided, false);
    assert_eq!(turn(0, Purpose::Decide, Outcome::Failed), undecided);
    assert_eq!(turn(0, Purpose::Control, Outcome::Failed), undecided);
    assert_eq!(turn(5, Purpose::Control, Outcome::Failed), undecided);
    let reruns = {
        let reruns = it.next(Time(10 * 60_000), 9);
        it.ended(reruns[0].id, Outcome::Passed, TEN, Time(10 * 60_000)).unwrap();
        it.next(Time(10 * 60_000), 9)
    };
    assert_eq!(reruns[0].purpose, Purpose::Decide, "what failed beside the control does not count");
    end(&mut it, &reruns[0], Outcome::Failed);
    assert_eq!(verdict(&it, 1), Verdict::Broken);
}

#[derive(Clone, Debug)]
enum Step {
    Fail(u32),
    Pass(u32),
    Next(usize),
    End(usize, bool),
    Preempt(usize),
    Together(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_u32..20).prop_map(Step::Fail),
        (0_u32..20).prop_map(Step::Pass),
        (0_usize..12).prop_map(Step::Next),
        (0_usize..4, any::<bool>()).prop_map(|(at, passed)| Step::End(at, passed)),
        (0_usize..4).prop_map(Step::Preempt),
        (0_u32..18).prop_map(Step::Together),
    ]
}

proptest! {
    /// Whatever happens: never more than is idle, never more than allowed, and no case is lost or runs twice.
    #[test]
    fn only_idle_slots_are_taken(steps in proptest::collection::vec(step(), 0..120)) {
        let limits = Limits { at_once: 5, per_failure: 4, ..Limits::default() };
        let mut it = shadows(limits);
        for (index, step) in steps.into_iter().enumerate() {
            let now = Time(index as u64 * 60_000);
            match step {
                Step::Fail(number) => {
                    let good = (number % 2 == 0).then(|| identity(number + 200));
                    it.failed(Fresh { good, ..fresh(number, Mixture::of_tests()) });
                }
                Step::Pass(number) => it.passed(&subject(number), identity(number)),
                Step::Next(idle) => prop_assert!(it.next(now, idle).len() <= idle.saturating_sub(1)),
                Step::End(at, passed) => {
                    if let Some(id) = it.running.keys().nth(at).copied() {
                        let outcome = if passed { Outcome::Passed } else { Outcome::Failed };
                        prop_assert!(it.ended(id, outcome, TEN, now).is_some());
                    }
                }
                Step::Preempt(waiting) => prop_assert!(it.preempt(waiting).len() <= waiting),
                Step::Together(first) => {
                    let keys: Vec<_> = (first..first + 3).map(|it| (subject(it), identity(it))).collect();
                    it.together(u64::from(first), &keys, vec![(subject(first), identity(first + 100))]);
                }
            }
            prop_assert!(it.in_flight() <= 5);
            let running = it.open.values().filter(|it| it.running).count();
            let decide = it.running.values().filter(|it| it.case.is_some()).count();
            prop_assert_eq!(running, decide);
            prop_assert!(it.open.values().all(|it| it.runs <= 4));
        }
    }
}
