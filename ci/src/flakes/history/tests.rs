use proptest::prelude::*;

use super::*;
use crate::flakes::Run;

fn identity(number: u32) -> Identity {
    let argv = [number.to_string()];
    let run =
        Run { argv: &argv, environment: &[], working_directory: "", input_root: "", platform: &[] };
    Identity::of(&run)
}

fn attempt(number: u32, outcome: Outcome) -> Attempt<'static> {
    Attempt {
        identity: identity(number),
        seed: None,
        target: None,
        commit: Some("c"),
        at: Time(u64::from(number) * 1000),
        outcome,
        signature: Signature::of("boom"),
        piece: Piece::Own,
    }
}

fn history(attempts: &[Attempt<'_>]) -> History {
    let mut history = History::default();
    attempts.iter().for_each(|it| history.record(it));
    history
}

#[test]
fn both_outcomes_of_one_identity_prove_it() {
    let it = history(&[attempt(1, Outcome::Failed), attempt(1, Outcome::Passed)]);
    assert_eq!(it.tier(), Some(Tier::Proven));
    assert_eq!(it.flips().count(), 1);
    assert!(it.knows(Signature::of("boom")));
    assert_eq!(it.counts(Time(0), 1).failures, 1);
    assert!(!it.knows(None), "no failure said nothing");
    let silent = |outcome| Attempt { signature: None, ..attempt(2, outcome) };
    let silent = history(&[silent(Outcome::Failed), silent(Outcome::Passed)]);
    assert!(silent.knows(None) && !silent.knows(Signature::of("boom")));
    // The test passed before with the same inputs. That proves it flaky until it fails too often in a row.
    let mut it = history(&[attempt(1, Outcome::Passed), attempt(1, Outcome::Failed)]);
    assert_eq!((it.tier(), it.flips().count()), (Some(Tier::Proven), 0));
    it.record(&attempt(1, Outcome::Failed));
    it.record(&attempt(1, Outcome::Failed));
    assert_eq!(it.tier(), None);
    assert_eq!(it.counts(Time(0), 1).failures, 0);
}

#[test]
fn flaky_is_what_flips_at_other_times_or_often() {
    let at = |number: u32, seconds: u64, outcome| Attempt {
        at: Time(seconds * 1000),
        ..attempt(number, outcome)
    };
    let mut it = History::default();
    let mut flip = |number, seconds| {
        it.record(&at(number, seconds, Outcome::Failed));
        it.record(&at(number, seconds, Outcome::Failed));
        it.record(&at(number, seconds, Outcome::Passed));
        (it.flips().count(), it.counts(Time(0), 1).failures, it.is_flaky())
    };
    assert_eq!(flip(1, 0), (1, 2, false));
    assert_eq!(flip(2, 60), (2, 4, false));
    let mut apart = flip(3, 120);
    assert!(!apart.2);
    apart = flip(4, 180);
    assert!(apart.2);
    let later = [at(1, 0, Outcome::Failed), at(1, 1, Outcome::Passed)];
    let more = [at(2, 3600, Outcome::Failed), at(2, 3601, Outcome::Passed)];
    assert!(history(&[later, more].concat()).is_flaky());
}

#[test]
fn seeds_are_weaker_until_one_of_them_shows_both() {
    let with = |seed, outcome| Attempt { seed: Some(seed), ..attempt(1, outcome) };
    let mut it = history(&[with("1", Outcome::Failed), with("2", Outcome::Passed)]);
    assert_eq!(it.tier(), Some(Tier::AcrossSeeds));
    it.record(&with("1", Outcome::Passed));
    assert_eq!(it.tier(), Some(Tier::Proven));
    assert_eq!(it.counts(Time(0), 1).failures, 1);
}

#[test]
fn targets_and_commits_make_suspects() {
    let of = |number, outcome| Attempt { target: Some("t"), ..attempt(number, outcome) };
    let it = history(&[of(1, Outcome::Failed), of(2, Outcome::Passed)]);
    assert_eq!(it.tier(), Some(Tier::SameTarget));
    let once = [(1, Outcome::Passed), (2, Outcome::Failed), (3, Outcome::Passed)];
    let twice = [once.as_slice(), &[(4, Outcome::Failed), (5, Outcome::Passed)]].concat();
    let made = |outcomes: &[(u32, Outcome)]| {
        history(&outcomes.iter().map(|(n, it)| attempt(*n, *it)).collect::<Vec<_>>()).tier()
    };
    assert_eq!(made(&once), None);
    assert_eq!(made(&twice), Some(Tier::Suspected));
}

#[test]
fn infrastructure_and_time_limits_are_no_evidence() {
    let outage = Attempt { piece: Piece::Outage, ..attempt(1, Outcome::Failed) };
    let it = history(&[
        outage,
        attempt(1, Outcome::Failed),
        attempt(1, Outcome::Infrastructure),
        attempt(1, Outcome::TimedOut),
        attempt(1, Outcome::Skipped),
        attempt(1, Outcome::Passed),
    ]);
    assert_eq!((it.tier(), it.last_failure(), it.clean()), (None, None, 1));
    let day = Day { passes: 1, timeouts: 1, infrastructure: 1, excused: 2, ..Day::default() };
    assert_eq!(it.counts(Time(0), 1), day);
}

#[test]
fn what_fails_with_inputs_that_passed_before_is_excused() {
    let mut it = history(&[attempt(1, Outcome::Passed), attempt(2, Outcome::Failed)]);
    assert_eq!(it.last_good(identity(2)), Some(identity(1)));
    it.control_failed(Time(0));
    it.record(&attempt(2, Outcome::Failed));
    it.record(&attempt(2, Outcome::Passed));
    assert_eq!((it.tier(), it.flips().count(), it.counts(Time(0), 1).failures), (None, 0, 0));
    // By now the test has passed with the new inputs, so its next failure with them counts again.
    it.record(&attempt(2, Outcome::Failed));
    assert_eq!(it.tier(), Some(Tier::Proven));
}

#[test]
fn a_cluster_is_one_flip() {
    let of = |number| Attempt { piece: Piece::Cluster(9), ..attempt(number, Outcome::Failed) };
    let it = history(&[of(1), attempt(1, Outcome::Passed), of(2), attempt(2, Outcome::Passed)]);
    assert_eq!((it.flips().count(), it.counts(Time(0), 1).failures), (1, 2));
}

#[test]
fn a_clock_that_was_wrong_is_forgotten() {
    let at = |day: u64, outcome| Attempt {
        at: Time(day * 86_400_000),
        ..attempt(u32::try_from(day).unwrap(), outcome)
    };
    let it =
        history(&[at(40_000, Outcome::Passed), at(100, Outcome::Passed), at(101, Outcome::Passed)]);
    assert_eq!(it.counts(Time(101 * 86_400_000), 30).passes, 2);
    assert_eq!(it.days.list().len(), 2);
}

proptest! {
    /// A test that never passes is never called flaky, whatever else happens to it.
    #[test]
    fn what_never_passes_is_not_proven(runs in proptest::collection::vec((0_u32..40, 0_u8..4), 0..200)) {
        let mut it = History::default();
        for (number, outcome) in runs {
            let outcome = [Outcome::Failed, Outcome::TimedOut, Outcome::Skipped, Outcome::Infrastructure]
                [usize::from(outcome)];
            it.record(&attempt(number, outcome));
        }
        prop_assert_eq!(it.tier(), None);
        prop_assert_eq!(it.counts(Time(0), 30).failures, 0);
    }

    #[test]
    fn space_is_bounded(runs in proptest::collection::vec((0_u32..90, any::<bool>(), 0_u64..200), 0..400)) {
        let mut it = History::default();
        for (number, passed, day) in runs {
            let outcome = if passed { Outcome::Passed } else { Outcome::Failed };
            it.record(&Attempt { at: Time(day * 86_400_000), ..attempt(number, outcome) });
            prop_assert!(it.groups.len() <= groups::MAX_GROUPS && it.flips.len() <= MAX_FLIPS);
            prop_assert!(it.days.list().len() <= days::MAX_DAYS as usize + 1);
            prop_assert!(it.days.list().is_sorted_by_key(|it| it.day));
        }
    }
}
