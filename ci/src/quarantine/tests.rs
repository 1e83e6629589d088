use proptest::prelude::*;

use super::*;
use crate::flakes::{Attempt, Identity, Piece, Run, Signature};
use crate::model::{Outcome, TestKey};

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
const TESTS: usize = 1_000;

fn subject(name: &str) -> Subject {
    let label = format!("//t:{name}");
    let test = TestKey { instance: String::new(), label, configuration: String::new() };
    Subject { test, case: None }
}

fn run(history: &mut History, number: u64, at: u64, outcome: Outcome) {
    run_at(history, number, Some(&number.to_string()), at, outcome);
}

fn run_at(history: &mut History, number: u64, commit: Option<&str>, at: u64, outcome: Outcome) {
    let argv = [number.to_string()];
    let run =
        Run { argv: &argv, environment: &[], working_directory: "", input_root: "", platform: &[] };
    history.record(&Attempt {
        identity: Identity::of(&run),
        seed: None,
        target: None,
        commit,
        at: Time(at),
        outcome,
        signature: Signature::of("boom"),
        piece: Piece::Own,
    });
}

/// `flips` commits in each of which it fails and passes, then `clean` more passes.
fn flaky(at: u64, flips: u64, clean: u64) -> History {
    let mut history = History::default();
    for number in 0..flips {
        run(&mut history, number, at, Outcome::Failed);
        run(&mut history, number, at, Outcome::Passed);
    }
    (0..clean).for_each(|number| run(&mut history, 1_000 + number, at, Outcome::Passed));
    history
}

fn request(reason: &str) -> Request {
    Request { who: "ann".to_owned(), reason: reason.to_owned(), owner: None, stay: None }
}

fn kind(change: Option<Change>) -> Option<Kind> {
    change.map(|it| it.kind)
}

fn assess(it: &mut Quarantine, history: &History, at: u64) -> Option<Kind> {
    kind(it.assess(&subject("a"), history, Some("@team"), TESTS, Time(at)))
}

#[test]
fn it_takes_two_flips_in_two_commits_and_a_high_rate() {
    let mut it = Quarantine::default();
    assert_eq!(assess(&mut it, &flaky(0, 1, 10), 0), None);
    // Two flips in a thousand runs are no 2 %.
    assert_eq!(assess(&mut it, &flaky(0, 2, 1_000), 0), None);
    let mut one_commit = History::default();
    for _ in 0..2 {
        run(&mut one_commit, 1, 0, Outcome::Failed);
        run(&mut one_commit, 1, 0, Outcome::Passed);
    }
    assert_eq!(assess(&mut it, &one_commit, 0), None);
    // Attempts at an unknown commit may belong to the one commit that is known, so they prove nothing more.
    run_at(&mut one_commit, 2, None, 0, Outcome::Failed);
    run_at(&mut one_commit, 2, None, 0, Outcome::Passed);
    assert_eq!(assess(&mut it, &one_commit, 0), None);
    let change =
        it.assess(&subject("a"), &flaky(0, 3, 20), Some("@team"), TESTS, Time(HOUR)).unwrap();
    assert_eq!((change.kind, change.owner.as_deref()), (Kind::Entered, Some("@team")));
    assert_eq!(change.expires, Some(Time(HOUR + 14 * DAY)));
    assert!(
        change
            .reason
            .starts_with("failed and passed with equal inputs 3 times in 3 commits; 3 of 26")
    );
    assert_eq!(change.evidence.unwrap().newest.len(), 3);
    assert_eq!(assess(&mut it, &flaky(0, 4, 20), 2 * HOUR), None, "nothing has changed");
}

#[test]
fn it_stays_a_day_leaves_when_reliable_and_cools_down_longer_each_time() {
    let mut it = Quarantine::default();
    let (bad, good) = (flaky(0, 3, 20), flaky(0, 3, 298));
    assert_eq!(assess(&mut it, &bad, 0), Some(Kind::Entered));
    assert_eq!(assess(&mut it, &good, 23 * HOUR), None);
    assert_eq!(assess(&mut it, &flaky(0, 3, 290), 25 * HOUR), None);
    assert_eq!(assess(&mut it, &good, 25 * HOUR), Some(Kind::Left));
    let mut at = 25 * HOUR;
    for days in [7, 14, 28, 28] {
        let again = |at| flaky(at, 3, 20);
        assert_eq!(assess(&mut it, &again(at + HOUR), at + days * DAY - HOUR), None);
        at += days * DAY;
        assert_eq!(assess(&mut it, &again(at), at), Some(Kind::Entered), "after {days} days");
        at += 14 * DAY;
        assert_eq!(it.tick(Time(at)).len(), 1);
    }
}

#[test]
fn evidence_from_before_it_left_does_not_count() {
    let mut it = Quarantine::default();
    let old = flaky(10 * DAY, 3, 20);
    assert_eq!(assess(&mut it, &old, 10 * DAY), Some(Kind::Entered));
    it.leave(&subject("a"), request("mended"), Time(11 * DAY)).unwrap();
    assert_eq!(assess(&mut it, &old, 19 * DAY), None);
    assert_eq!(assess(&mut it, &flaky(19 * DAY, 3, 20), 19 * DAY), Some(Kind::Entered));
}

#[test]
fn what_expired_while_nobody_looked_masks_nothing_and_is_told_once() {
    let mut it = Quarantine::default();
    assess(&mut it, &flaky(0, 3, 20), 0);
    let stored = serde_json::to_string(&it).unwrap();
    let mut it: Quarantine = serde_json::from_str(&stored).unwrap();
    assert!(it.find(&subject("a"), Time(13 * DAY)).is_some());
    assert!(it.find(&subject("a"), Time(20 * DAY)).is_none());
    assert_eq!(it.len("", Time(20 * DAY)), 0);
    let changes = it.tick(Time(20 * DAY));
    assert_eq!(changes.iter().map(|it| it.kind).collect::<Vec<_>>(), [Kind::Expired]);
    assert!(it.tick(Time(20 * DAY)).is_empty());
}

#[test]
fn people_give_reasons() {
    let mut it = Quarantine::default();
    let a = subject("a");
    assert_eq!(it.enter(&a, request(" "), Time(0)), Err(Error::NoReason));
    let short = Request { stay: Some(Duration::from_secs(3600)), ..request("release today") };
    assert_eq!(it.enter(&a, short, Time(0)).unwrap().expires, Some(Time(HOUR)));
    let long = Request { stay: Some(Duration::from_secs(400 * 86_400)), ..request("no time") };
    let renewed = it.enter(&a, long, Time(HOUR / 2)).unwrap();
    assert_eq!((renewed.kind, renewed.expires), (Kind::Renewed, Some(Time(HOUR / 2 + 14 * DAY))));
    let less = Request { stay: Some(Duration::from_secs(60)), ..request("again") };
    assert_eq!(it.enter(&a, less, Time(HOUR / 2)).unwrap().expires, renewed.expires);
    // The policy does not end what a person began.
    assert_eq!(assess(&mut it, &flaky(0, 3, 400), 5 * DAY), None);
    assert_eq!(it.leave(&a, request(""), Time(5 * DAY)), Err(Error::NoReason));
    assert_eq!(it.leave(&a, request("mended"), Time(5 * DAY)).unwrap().kind, Kind::Left);
    let error = it.leave(&a, request("mended"), Time(5 * DAY)).unwrap_err();
    assert_eq!(error.to_string(), "//t:a is not in quarantine");
}

#[test]
fn no_more_than_the_cap_enter_by_themselves() {
    let mut it = Quarantine::default();
    let history = flaky(0, 3, 20);
    let mut enter = |name: &str, at| kind(it.assess(&subject(name), &history, None, 250, Time(at)));
    for name in ["a", "b", "c", "d", "e"] {
        assert_eq!(enter(name, 0), Some(Kind::Entered));
    }
    assert_eq!(enter("f", 0), Some(Kind::Refused));
    assert_eq!(enter("f", HOUR), None, "told once");
    assert!(!it.over_cap("", 250, Time(0)));
    it.enter(&subject("g"), request("now"), Time(HOUR)).unwrap();
    assert!(it.over_cap("", 250, Time(HOUR)), "a person went beyond it");
    assert!(!it.over_cap("", 1_000, Time(HOUR)));
    // Another instance has room of its own.
    let mut other = subject("a");
    other.test.instance = "other".to_owned();
    assert!(!it.over_cap("other", 0, Time(HOUR)));
    let entered = it.assess(&other, &history, None, 0, Time(HOUR));
    assert_eq!(kind(entered), Some(Kind::Entered));
}

#[test]
fn a_clock_that_runs_backwards_changes_nothing() {
    let mut it = Quarantine::default();
    let a = subject("a");
    assess(&mut it, &flaky(100 * DAY, 3, 20), 100 * DAY);
    assert!(it.tick(Time(113 * DAY)).is_empty());
    // Set back by a hundred days: what is left is one day, neither less nor a hundred more.
    assert!(it.tick(Time(13 * DAY)).is_empty());
    assert!(it.find(&a, Time(13 * DAY + 23 * HOUR)).is_some());
    assert!(it.find(&a, Time(14 * DAY)).is_none());
    assert_eq!(it.tick(Time(14 * DAY)).len(), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Assess { flips: u64, clean: u64 },
    Tick,
    Wait(u64),
    Back(u64),
    Store,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_u64..5, prop_oneof![0_u64..30, 280_u64..400])
            .prop_map(|(flips, clean)| Step::Assess { flips, clean }),
        1 => Just(Step::Tick),
        3 => (1_u64..20 * 24).prop_map(Step::Wait),
        1 => (1_u64..40 * 24).prop_map(Step::Back),
        1 => Just(Step::Store),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Changes alternate, have numbers that grow, and keep the times of the policy by a clock that counts
    /// forward steps alone.
    #[test]
    fn it_never_flaps(steps in proptest::collection::vec(step(), 0..60)) {
        let mut it = Quarantine::default();
        let (mut wall, mut elapsed) = (50 * DAY, 0_u64);
        let mut entered: Option<u64> = None;
        let mut left: Option<(u64, usize)> = None;
        let mut number = None;
        for step in steps {
            let changes = match step {
                Step::Assess { flips, clean } => {
                    let history = flaky(wall, flips, clean);
                    it.assess(&subject("a"), &history, None, TESTS, Time(wall)).into_iter().collect()
                }
                Step::Tick => it.tick(Time(wall)),
                Step::Wait(hours) => {
                    // The clock is read before it is set back.
                    wall += hours * HOUR;
                    elapsed += hours * HOUR;
                    it.tick(Time(wall))
                }
                Step::Back(hours) => {
                    wall = wall.saturating_sub((hours + 1) * HOUR);
                    it.tick(Time(wall))
                }
                Step::Store => {
                    let text = serde_json::to_string(&it).unwrap();
                    it = serde_json::from_str(&text).unwrap();
                    Vec::new()
                }
            };
            for change in changes {
                prop_assert!(number.is_none_or(|it| change.number > it));
                number = Some(change.number);
                match change.kind {
                    Kind::Entered => {
                        prop_assert_eq!(entered, None);
                        if let Some((at, times)) = left {
                            let cool = [7, 14, 28][times.min(3) - 1] * DAY;
                            // What is wholly forgotten may come again as if for the first time.
                            prop_assert!(elapsed - at >= cool.min(7 * DAY));
                            prop_assert!(elapsed - at >= cool || elapsed - at >= 90 * DAY);
                        }
                        entered = Some(elapsed);
                    }
                    Kind::Left | Kind::Expired => {
                        let stayed = elapsed - entered.unwrap();
                        prop_assert!(stayed >= DAY);
                        prop_assert!(change.kind == Kind::Left || stayed >= 14 * DAY);
                        entered = None;
                        let times = left.filter(|it| elapsed - it.0 < 90 * DAY).map_or(0, |it| it.1);
                        left = Some((elapsed, times + 1));
                    }
                    Kind::Renewed | Kind::Refused => prop_assert!(false, "{change:?}"),
                }
            }
            let there = it.find(&subject("a"), Time(wall)).is_some();
            prop_assert_eq!(there, entered.is_some_and(|it| elapsed - it < 14 * DAY));
        }
    }
}

#[test]
fn an_entry_without_a_configuration_is_for_all_of_them() {
    let mut it = Quarantine::default();
    it.enter(&subject("a"), request("fails on Mondays"), Time(0)).unwrap();
    let mut built = subject("a");
    built.test.configuration = "3f1c".to_owned();
    assert_eq!(it.find(&built, Time(1)).map(|it| it.reason.as_str()), Some("fails on Mondays"));
    built.test.instance = "other".to_owned();
    assert_eq!(it.find(&built, Time(1)), None);
    // The other way round it is for that one alone.
    let mut it = Quarantine::default();
    let mut one = subject("b");
    one.test.configuration = "3f1c".to_owned();
    it.enter(&one, request("fails there"), Time(0)).unwrap();
    assert!(it.find(&one, Time(1)).is_some() && it.find(&subject("b"), Time(1)).is_none());
}
