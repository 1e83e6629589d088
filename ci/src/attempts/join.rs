//! One attempt of what several sources know about it.

use std::collections::BTreeMap;

use super::{Attempt, Known};
use crate::model::Outcome;

/// What must be equal for two attempts to be one. The configuration is not here: executions of older
/// clients do not know it.
type Place = (String, String, String, u32, u32);

/// Joins what is known of attempts, of one invocation or of several. The order of what is given does not
/// matter, and what was joined may be joined again, with more.
///
/// What a client reports of a slot belongs to the execution of that slot with the same log; where logs are
/// not known, to the first one with the same outcome; else to the first one that is left. Executions
/// that nobody reports are numbered behind those.
pub fn join(attempts: Vec<Attempt>) -> Vec<Attempt> {
    places(attempts).into_values().flat_map(join_place).collect()
}

fn places(attempts: Vec<Attempt>) -> BTreeMap<Place, Vec<Attempt>> {
    let mut places: BTreeMap<Place, Vec<Attempt>> = BTreeMap::new();
    for it in attempts {
        let test = &it.test;
        let place = (
            test.instance.clone(),
            test.label.clone(),
            it.invocation.clone(),
            it.slot.run,
            it.slot.shard,
        );
        places.entry(place).or_default().push(it);
    }
    places
}

/// Those of which executions and clients both told, those of executions alone, and the others.
fn by_source(attempts: Vec<Attempt>) -> (Vec<Attempt>, Vec<Attempt>, Vec<Attempt>) {
    let is_run = |it: &Attempt| it.known.has(Known::EXECUTED) || it.known.has(Known::MERGED);
    let is_told = |it: &Attempt| it.known.has(Known::REPORTED) || it.known.has(Known::IMPORTED);
    let (both, rest): (Vec<_>, Vec<_>) =
        attempts.into_iter().partition(|it| is_run(it) && is_told(it));
    let (runs, told) = rest.into_iter().partition(is_run);
    (both, runs, told)
}

/// Leaves out accounts that say the same again, and joins nothing: what is told of an invocation piece by
/// piece must not be matched before it is seen together.
pub fn distinct(attempts: Vec<Attempt>) -> Vec<Attempt> {
    let distinct = |place: Vec<Attempt>| {
        let (both, runs, told) = by_source(place);
        let both = fold(both, |a, b| a.execution == b.execution && same_number(a, b));
        let runs = fold(runs, |a, b| a.execution == b.execution);
        both.into_iter().chain(runs).chain(fold(told, same_number))
    };
    places(attempts).into_values().flat_map(distinct).collect()
}

/// Leaves out what turned out to be no run of its own. Only for what is not joined with more any more.
pub fn settle(attempts: Vec<Attempt>) -> Vec<Attempt> {
    attempts.into_iter().filter(|it| !it.known.has(Known::MERGED)).collect()
}

fn join_place(attempts: Vec<Attempt>) -> Vec<Attempt> {
    let (both, runs, told) = by_source(attempts);
    let mut joined = fold(both, |a, b| a.execution == b.execution && same_number(a, b));
    let runs = absorb(&mut joined, fold(runs, |a, b| a.execution == b.execution), |a, b| {
        a.execution == b.execution
    });
    let told = absorb(&mut joined, fold(told, same_number), same_number);
    joined.extend(pair(runs, told));
    number(joined)
}

fn same_number(a: &Attempt, b: &Attempt) -> bool {
    a.slot.attempt == b.slot.attempt && compatible(a, b)
}

/// Whether both may be of one configuration.
fn compatible(a: &Attempt, b: &Attempt) -> bool {
    let (a, b) = (&a.test.configuration, &b.test.configuration);
    a == b || a.is_empty() || b.is_empty()
}

/// In an order that does not depend on how they came.
fn sorted(mut attempts: Vec<Attempt>) -> Vec<Attempt> {
    attempts.sort_by(|a, b| {
        let key = |it: &Attempt| (it.slot.attempt, it.started, it.execution);
        let rest = |it: &Attempt| (it.test.configuration.clone(), it.known, richness(it));
        key(a).cmp(&key(b)).then_with(|| rest(a).cmp(&rest(b)))
    });
    attempts
}

/// The same attempt, said again.
fn fold(attempts: Vec<Attempt>, same: impl Fn(&Attempt, &Attempt) -> bool) -> Vec<Attempt> {
    let mut out: Vec<Attempt> = Vec::new();
    for it in sorted(attempts) {
        match out.iter_mut().find(|known| same(known, &it)) {
            Some(known) => merge(known, it),
            None => out.push(it),
        }
    }
    out
}

/// What the joined ones have taken up already goes to them; the others are given back.
fn absorb(
    joined: &mut [Attempt],
    attempts: Vec<Attempt>,
    same: impl Fn(&Attempt, &Attempt) -> bool,
) -> Vec<Attempt> {
    let mut left = Vec::new();
    for it in attempts {
        match joined.iter_mut().find(|known| same(known, &it)) {
            Some(known) => merge(known, it),
            None => left.push(it),
        }
    }
    left
}

/// Whether an execution and what was told are one attempt.
type Rule<'a> = &'a dyn Fn(&Attempt, &Attempt) -> bool;

/// Runs in the order in which they began, and what was told in the order of its numbers.
fn pair(mut runs: Vec<Attempt>, mut told: Vec<Attempt>) -> Vec<Attempt> {
    runs.sort_by_key(|it| (it.started, it.execution));
    let same_log = |a: &Attempt, b: &Attempt| a.log.is_some() && a.log == b.log;
    let both_logs = |a: &Attempt, b: &Attempt| a.log.is_some() && b.log.is_some();
    let mut joined = Vec::new();
    let rules: [Rule<'_>; 3] =
        [&same_log, &|a, b| a.outcome == b.outcome && !both_logs(a, b), &|a, b| {
            let says_nothing = |it: &Attempt| it.outcome == Outcome::Infrastructure;
            !says_nothing(a) && !says_nothing(b)
        }];
    for rule in rules {
        let mut left = Vec::new();
        for it in told {
            let fits = |run: &Attempt| compatible(run, &it) && rule(run, &it);
            match runs.iter().position(fits) {
                Some(at) => {
                    let mut run = runs.remove(at);
                    merge(&mut run, it);
                    joined.push(run);
                }
                None => left.push(it),
            }
        }
        told = left;
    }
    joined.extend(runs);
    joined.extend(told);
    joined
}

/// Those that nobody numbered come behind those that somebody did, in the order in which they began.
fn number(attempts: Vec<Attempt>) -> Vec<Attempt> {
    let mut by_configuration: BTreeMap<String, Vec<Attempt>> = BTreeMap::new();
    for it in attempts {
        by_configuration.entry(it.test.configuration.clone()).or_default().push(it);
    }
    by_configuration.into_values().flat_map(number_configuration).collect()
}

fn number_configuration(attempts: Vec<Attempt>) -> Vec<Attempt> {
    let is_numbered = |it: &Attempt| it.known.has(Known::REPORTED) || it.known.has(Known::IMPORTED);
    let (mut numbered, mut rest): (Vec<_>, Vec<_>) = attempts.into_iter().partition(is_numbered);
    let mut next = numbered.iter().map(|it| it.slot.attempt).max().unwrap_or(0);
    rest.sort_by_key(|it| (it.started, it.execution));
    for it in &mut rest {
        next = next.saturating_add(1);
        it.slot.attempt = next;
    }
    numbered.append(&mut rest);
    numbered.sort_by_key(|it| (it.slot.attempt, it.started, it.execution));
    numbered
}

/// What of two accounts of one attempt says more.
fn richness(it: &Attempt) -> (usize, bool, bool) {
    (it.cases.len(), it.failure.is_some(), it.log.is_some())
}

/// Executions know times, worker and inputs; the client knows which attempt it was and what it made of it.
fn merge(into: &mut Attempt, other: Attempt) {
    let executed = |it: &Attempt| it.known.has(Known::EXECUTED);
    let told = |it: &Attempt| it.known.has(Known::REPORTED) || it.known.has(Known::IMPORTED);
    let (mut one, mut two) = (std::mem::replace(into, placeholder(&other)), other);
    // `one` is the better witness of what happened.
    if executed(&two) && !executed(&one) {
        std::mem::swap(&mut one, &mut two);
    }
    if told(&two) && !told(&one) {
        one.outcome = two.outcome;
        one.slot.attempt = two.slot.attempt;
    }
    one.known |= two.known;
    fill(&mut one.test.configuration, two.test.configuration);
    fill(&mut one.worker, two.worker);
    fill(&mut one.strategy, two.strategy);
    one.shards = one.shards.max(two.shards);
    one.execution = one.execution.max(two.execution);
    if one.started.0 == 0 {
        one.started = two.started;
    }
    one.duration = one.duration.or(two.duration);
    one.set_up = one.set_up.or(two.set_up);
    one.action = one.action.or(two.action);
    one.identity = one.identity.or(two.identity);
    one.seed = one.seed.or(two.seed);
    one.log = one.log.or(two.log);
    one.failure = one.failure.or(two.failure);
    one.commit = one.commit.or(two.commit);
    one.branch = one.branch.or(two.branch);
    if two.cases.len() > one.cases.len() {
        one.cases = two.cases;
    }
    *into = one;
}

fn placeholder(it: &Attempt) -> Attempt {
    Attempt::new(it.test.clone(), "", it.slot, it.known)
}

fn fill(into: &mut String, other: String) {
    if into.is_empty() {
        *into = other;
    }
}

#[cfg(test)]
mod tests {
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
        let mut told =
            [reported("//a:t", 1, Outcome::Failed), reported("//a:t", 2, Outcome::Failed)];
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

    /// Which executions, or which reported attempts, there are.
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
            parts.extend(distinct(attempts.clone()));
            let joined = join(parts);
            let runs = joined.iter().filter(|it| it.known.has(Known::EXECUTED)).count();
            let told = joined.iter().filter(|it| it.known.has(Known::REPORTED)).count();
            prop_assert_eq!(runs, count(Known::EXECUTED, &attempts).len());
            prop_assert_eq!(told, count(Known::REPORTED, &attempts).len());
        }
    }
}
