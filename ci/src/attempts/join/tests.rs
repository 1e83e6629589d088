use proptest::prelude::*;

use super::super::samples::{blob, executed, reported};
use super::*;

fn outcomes(attempts: &[Attempt]) -> Vec<(u32, Outcome, Known)> {
    attempts.iter().map(|it| (it.slot.attempt, it.outcome, it.known)).collect()
}

const BOTH: fn() -> Known = || Known::EXECUTED | Known::REPORTED;

#[test]
fn the_same_attempt_known_by_both_is_one() {
    let mut run = executed("//a:t", 1, 7, Outcome::Passed);
    run.test.configuration = String::new();
    let told = reported("//a:t", 1, Outcome::Passed);
    let joined = join(vec![run.clone(), told.clone()]);
    assert_eq!(joined.len(), 1);
    let it = &joined[0];
    assert_eq!(it.known, BOTH());
    assert_eq!((it.worker.as_str(), it.strategy.as_str()), ("w1", "remote"));
    assert_eq!((&it.test.configuration, it.slot.attempt), (&told.test.configuration, 1));
    assert_eq!((it.started, it.duration), (run.started, run.duration));
    assert_eq!(join(vec![told, run]), joined);
}

#[test]
fn what_is_told_of_an_invocation_holds_for_all_that_it_executed() {
    let run = |label| executed(label, 1, 7, Outcome::Passed);
    let told = Attempt {
        commit: Some("c1".into()),
        branch: Some("main".into()),
        ..reported("//a:t", 1, Outcome::Passed)
    };
    let of = |attempts: Vec<Attempt>| -> Vec<(Option<String>, Option<String>)> {
        join(attempts).into_iter().map(|it| (it.commit, it.branch)).collect()
    };
    let known = (Some("c1".to_owned()), Some("main".to_owned()));
    assert_eq!(of(vec![run("//a:t"), run("//b:t"), told.clone()]), [known.clone(), known.clone()]);
    // Another invocation's is nobody else's, and two commits are none.
    let elsewhere = Attempt { invocation: "other".into(), ..run("//b:t") };
    assert_eq!(of(vec![elsewhere, told.clone()]), [known.clone(), (None, None)]);
    let other = Attempt { commit: Some("c2".into()), slot: run("//c:t").slot, ..told.clone() };
    let other = Attempt { test: run("//c:t").test, ..other };
    let all = of(vec![run("//b:t"), told, other]);
    assert!(all.contains(&(None, Some("main".to_owned()))), "{all:?}");
}

#[test]
fn executions_are_lent_and_what_is_said_of_one_again_is_left_out() {
    let run = |execution| executed("//a:t", execution, execution, Outcome::Passed);
    let elsewhere = Attempt { invocation: "other".into(), ..run(1) };
    let apart = [run(1), run(2), elsewhere];
    let lent = distinct(&apart);
    assert_eq!(lent.len(), 3);
    assert!(lent.iter().all(|it| matches!(it, Cow::Borrowed(_))));
    let again = [run(2), run(1), run(2)];
    let executions: Vec<_> = distinct(&again).iter().map(|it| it.execution).collect();
    assert_eq!(executions, [1, 2]);
}

#[test]
fn retries_are_matched_in_order_and_outcomes_decide() {
    let runs = [
        executed("//a:t", 10, 1, Outcome::Failed),
        executed("//a:t", 20, 2, Outcome::Infrastructure),
        executed("//a:t", 30, 3, Outcome::Failed),
        executed("//a:t", 40, 4, Outcome::Passed),
    ];
    let told = [
        reported("//a:t", 1, Outcome::Failed),
        reported("//a:t", 2, Outcome::Failed),
        reported("//a:t", 3, Outcome::Passed),
    ];
    let joined = join(runs.into_iter().chain(told).collect());
    assert_eq!(
        outcomes(&joined),
        [
            (1, Outcome::Failed, BOTH()),
            (2, Outcome::Failed, BOTH()),
            (3, Outcome::Passed, BOTH()),
            // A worker was lost in between: nobody but Kiln knows of it.
            (4, Outcome::Infrastructure, Known::EXECUTED),
        ]
    );
    assert_eq!(joined.iter().map(|it| it.execution).collect::<Vec<_>>(), [1, 3, 4, 2]);
}

#[test]
fn a_log_in_common_says_more_than_the_order() {
    let mut runs =
        [executed("//a:t", 10, 1, Outcome::Failed), executed("//a:t", 20, 2, Outcome::Failed)];
    let mut told = [reported("//a:t", 1, Outcome::Failed), reported("//a:t", 2, Outcome::Failed)];
    for (run, log) in runs.iter_mut().zip(["aa", "bb"]) {
        run.log = Some(blob(log));
    }
    for (told, log) in told.iter_mut().zip(["bb", "aa"]) {
        told.log = Some(blob(log));
    }
    let joined = join(runs.into_iter().chain(told).collect());
    assert_eq!(joined.iter().map(|it| it.execution).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn what_ran_elsewhere_and_what_nobody_reports_stays_alone() {
    let mut elsewhere = reported("//a:t", 1, Outcome::Passed);
    elsewhere.strategy = "linux-sandbox".into();
    let other = executed("//a:other", 5, 1, Outcome::Passed);
    let joined = join(vec![elsewhere, other]);
    assert_eq!(
        outcomes(&joined),
        [(1, Outcome::Passed, Known::EXECUTED), (1, Outcome::Passed, Known::REPORTED),]
    );
    let mut build = executed("//a:t", 5, 1, Outcome::Passed);
    build.invocation = "another".into();
    assert_eq!(join(vec![build, reported("//a:t", 1, Outcome::Passed)]).len(), 2);
}

#[test]
fn what_was_merged_into_another_request_is_no_run() {
    let mut merged = executed("//a:t", 5, 9, Outcome::Passed);
    merged.known = Known::MERGED;
    let joined = join(vec![merged.clone(), reported("//a:t", 1, Outcome::Passed)]);
    assert_eq!(joined.len(), 1);
    assert_eq!(settle(joined), []);
    assert_eq!(settle(join(vec![reported("//a:t", 1, Outcome::Passed)])).len(), 1);
}

#[test]
fn parts_are_apart_from_what_was_made_of_them_and_from_what_the_client_tells() {
    let part = |execution, shard| {
        let mut it = executed("//a:t", execution, execution, Outcome::Failed);
        it.known |= Known::PART;
        (it.slot.shard, it.shards) = (shard, 2);
        it
    };
    let whole = executed("//a:t", 1, 9, Outcome::Passed);
    let told = reported("//a:t", 1, Outcome::Failed);
    // Only the whole is there to be the client's, though a part of the first shard ended as the client says.
    let all = vec![part(1, 1), part(2, 2), part(1, 1), whole, told.clone()];
    let joined = join(all);
    let (parts, wholes): (Vec<_>, Vec<_>) = joined.into_iter().partition(Attempt::is_part);
    assert_eq!(outcomes(&wholes), [(1, Outcome::Failed, BOTH())]);
    assert_eq!(parts.iter().map(|it| it.slot.shard).collect::<Vec<_>>(), [1, 2]);
    assert!(parts.iter().all(|it| it.commit == told.commit), "they are of the same commit");
}

#[test]
fn two_configurations_of_one_test_are_two_tests() {
    let both = ["opt", "dbg"].map(|configuration| {
        let mut it = reported("//a:t", 1, Outcome::Passed);
        it.test.configuration = configuration.into();
        it
    });
    assert_eq!(join(both.to_vec()).len(), 2);
}

fn accounts() -> impl Strategy<Value = Vec<Attempt>> {
    let outcome = prop_oneof![
        Just(Outcome::Passed),
        Just(Outcome::Failed),
        Just(Outcome::TimedOut),
        Just(Outcome::Infrastructure)
    ];
    let one = (any::<bool>(), 1_u32..4, 1_u64..5, outcome, 0_u8..3, any::<bool>());
    let one = one.prop_map(|(run, attempt, execution, outcome, log, configured)| {
        let mut it = if run {
            // What ran once has one outcome and one time.
            executed("//a:t", execution * 10, execution, Outcome::Failed)
        } else {
            reported("//a:t", attempt, outcome)
        };
        if !run && log > 0 {
            it.log = Some(blob(&format!("{attempt:02}")));
        }
        if !configured && run {
            it.test.configuration = String::new();
        }
        it
    });
    proptest::collection::vec(one, 0..8)
}

/// Reports of one attempt are the same, however often they come.
fn consistent(attempts: Vec<Attempt>) -> Vec<Attempt> {
    let mut seen: Vec<Attempt> = Vec::new();
    for it in attempts {
        let known = seen.iter().find(|other| {
            other.known == it.known
                && if it.execution > 0 {
                    other.execution == it.execution
                } else {
                    other.slot == it.slot
                }
        });
        let again = known.cloned().unwrap_or(it);
        seen.push(again);
    }
    seen
}

/// The executions, or the reported attempts, among these, each once.
fn count(known: Known, all: &[Attempt]) -> Vec<(u64, u32)> {
    let id = |it: &Attempt| match known {
        Known::EXECUTED => (it.execution, 0),
        _ => (0, it.slot.attempt),
    };
    let mut ids: Vec<_> = all.iter().filter(|it| it.known.has(known)).map(id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

proptest! {
    #[test]
    fn order_and_repetition_do_not_matter(attempts in accounts(), turn in 0_usize..8) {
        let attempts = consistent(attempts);
        let joined = join(attempts.clone());
        let mut turned = attempts.clone();
        let by = turn.min(turned.len());
        turned.rotate_left(by);
        prop_assert_eq!(&join(turned), &joined);
        let twice = attempts.iter().cloned().chain(attempts.iter().cloned()).collect();
        prop_assert_eq!(&join(twice), &joined);
        prop_assert_eq!(&join(joined.clone()), &joined);
    }

    #[test]
    fn nothing_is_lost_and_nothing_made_up(attempts in accounts()) {
        let attempts = consistent(attempts);
        let joined = join(attempts.clone());
        for known in [Known::EXECUTED, Known::REPORTED] {
            prop_assert_eq!(count(known, &joined), count(known, &attempts));
        }
    }

    /// Told piece by piece, and some of it again: accounts may find other partners then, but each is in one
    /// attempt alone.
    #[test]
    fn what_comes_later_joins_what_was_joined(attempts in accounts(), cut in 0_usize..8) {
        let attempts = consistent(attempts);
        let cut = cut.min(attempts.len());
        let mut parts = join(attempts[..cut].to_vec());
        parts.extend(distinct(&attempts).into_iter().map(Cow::into_owned));
        let joined = join(parts);
        let runs = joined.iter().filter(|it| it.known.has(Known::EXECUTED)).count();
        let told = joined.iter().filter(|it| it.known.has(Known::REPORTED)).count();
        prop_assert_eq!(runs, count(Known::EXECUTED, &attempts).len());
        prop_assert_eq!(told, count(Known::REPORTED, &attempts).len());
    }
}
