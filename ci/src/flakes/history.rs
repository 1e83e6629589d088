//! What the runs of one subject have shown so far, in bounded space.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Identity, Mixture, Signature};
use crate::model::{Outcome, Time};

/// How many identities, flips, days and signatures are remembered of a subject. Identities that only passed
/// are forgotten before those with a failure that waits for a pass.
const MAX_GROUPS: usize = 24;
const MAX_WAITING: usize = 16;
const MAX_SEEDS: usize = 16;
const MAX_FLIPS: usize = 64;
const MAX_SIGNATURES: usize = 32;
const MAX_CLUSTERS: usize = 32;
pub const MAX_DAYS: u64 = 30;

/// So many failures in a row after a pass of the same identity are no flip any more: something that is not
/// among the inputs has broken the test.
const STREAK: u32 = 3;

/// Two proven flips so far apart make a test flaky, or so many at any time: what fails twice within minutes
/// may have failed for one reason.
const APART: Duration = Duration::from_secs(3600);
const MANY: usize = 4;

/// One run that was executed: not cached, not of the tool that writes XML.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    pub identity: Identity,
    pub seed: Option<&'a str>,
    /// The content hash of the target, where change impact knows it.
    pub target: Option<&'a str>,
    pub commit: Option<&'a str>,
    pub at: Time,
    pub outcome: Outcome,
    pub signature: Option<Signature>,
    /// A re-run weighs what the failure weighs that it repeats, whatever is said here.
    pub piece: Piece,
}

/// What a failure weighs, as [`super::clusters`] finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    /// It stands by itself.
    Own,
    /// It has a cause in common with others; failures of one subject in one cluster are one flip.
    Cluster(u64),
    /// The infrastructure failed: it says nothing about the test.
    Outage,
}

/// How strong it is that a test is flaky, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Failed at several commits between others at which it passed (tier C).
    Suspected,
    /// Both outcomes for one content hash of the target (tier B).
    SameTarget,
    /// Both outcomes for one identity, with other seeds (tier A').
    AcrossSeeds,
    /// Both outcomes for one identity and seed (tier A).
    Proven,
}

/// A failure with a pass of the same identity after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flip {
    pub identity: Identity,
    pub seed: Option<String>,
    pub commit: Option<String>,
    /// When it failed.
    pub at: Time,
    pub tier: Tier,
    pub signature: Option<Signature>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    groups: VecDeque<Group>,
    flips: VecDeque<Flip>,
    days: Vec<Day>,
    /// Signatures of failures that a pass followed.
    signatures: VecDeque<Signature>,
    clusters: VecDeque<u64>,
    clean: u32,
    last_failure: Option<Time>,
}

/// Counts of one day; `failures` are those that a pass of the same identity followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    pub day: u64,
    pub passes: u32,
    pub failures: u32,
    pub timeouts: u32,
    /// Lost workers and the like.
    pub infrastructure: u32,
    /// Failures for which the surroundings are to blame.
    pub excused: u32,
}

/// Runs of one identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Group {
    identity: Identity,
    target: Option<String>,
    /// Seeds that passed.
    passed: VecDeque<Option<String>>,
    waiting: VecDeque<Waiting>,
    /// Failures since the last pass, also those that are not kept.
    straight: u32,
    /// What the first of these weighs, and with it those that repeat it.
    piece: Option<Piece>,
}

/// A failure that no pass of its identity has followed yet. The test may be broken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Waiting {
    seed: Option<String>,
    commit: Option<String>,
    at: Time,
    signature: Option<Signature>,
    cluster: Option<u64>,
}

impl History {
    pub fn record(&mut self, attempt: &Attempt<'_>) {
        match (attempt.outcome, attempt.piece) {
            (Outcome::Skipped, _) => {}
            (Outcome::Passed, _) => self.passed(attempt),
            (Outcome::TimedOut, _) => self.day(attempt.at).timeouts += 1,
            (Outcome::Infrastructure, _) => self.day(attempt.at).infrastructure += 1,
            (Outcome::Failed, piece) => match *self.group(attempt).piece.get_or_insert(piece) {
                Piece::Outage => self.day(attempt.at).excused += 1,
                Piece::Own => self.failed(attempt, None),
                Piece::Cluster(id) => self.failed(attempt, Some(id)),
            },
        }
    }

    fn passed(&mut self, attempt: &Attempt<'_>) {
        self.day(attempt.at).passes += 1;
        self.clean = self.clean.saturating_add(1);
        let group = self.group(attempt);
        group.straight = 0;
        group.piece = None;
        if !group.passed.iter().any(|it| it.as_deref() == attempt.seed) {
            push(&mut group.passed, attempt.seed.map(str::to_owned), MAX_SEEDS);
        }
        let waiting = std::mem::take(&mut group.waiting);
        // What was seen across seeds is proven when a seed that failed passes as well.
        for flip in &mut self.flips {
            let same = flip.identity == attempt.identity && flip.seed.as_deref() == attempt.seed;
            if same && flip.tier == Tier::AcrossSeeds {
                flip.tier = Tier::Proven;
            }
        }
        self.settle(waiting, attempt);
    }

    /// Failures in a row turn out to be none of a broken test. Each counts for the rate; all of them, and all of
    /// one cluster, are one flip.
    fn settle(&mut self, failures: VecDeque<Waiting>, pass: &Attempt<'_>) {
        let mut flips: Vec<Flip> = Vec::new();
        for failure in failures {
            if let Some(signature) = failure.signature
                && !self.signatures.contains(&signature)
            {
                push(&mut self.signatures, signature, MAX_SIGNATURES);
            }
            self.day(failure.at).failures += 1;
            if let Some(cluster) = failure.cluster {
                if self.clusters.contains(&cluster) {
                    continue;
                }
                push(&mut self.clusters, cluster, MAX_CLUSTERS);
            }
            let same = failure.seed.as_deref() == pass.seed;
            if !flips.iter().any(|it| it.seed == failure.seed) {
                flips.push(Flip {
                    identity: pass.identity,
                    seed: failure.seed,
                    commit: failure.commit,
                    at: failure.at,
                    tier: if same { Tier::Proven } else { Tier::AcrossSeeds },
                    signature: failure.signature,
                });
            }
        }
        flips.into_iter().for_each(|it| push(&mut self.flips, it, MAX_FLIPS));
    }

    fn failed(&mut self, attempt: &Attempt<'_>, cluster: Option<u64>) {
        self.clean = 0;
        self.last_failure = Some(attempt.at);
        let failure = Waiting {
            seed: attempt.seed.map(str::to_owned),
            commit: attempt.commit.map(str::to_owned),
            at: attempt.at,
            signature: attempt.signature,
            cluster,
        };
        let group = self.group(attempt);
        group.straight = group.straight.saturating_add(1);
        push(&mut group.waiting, failure, MAX_WAITING);
    }

    /// A control failed: inputs with which the test passed before do not pass now. So the surroundings are at
    /// fault, and failures that wait for a pass say nothing about the test.
    pub fn control_failed(&mut self, at: Time) {
        let mut excused = 1;
        for group in self.groups.iter_mut().filter(|it| !it.waiting.is_empty()) {
            excused += u32::try_from(group.waiting.len()).unwrap_or(u32::MAX);
            group.waiting.clear();
            group.piece = Some(Piece::Outage);
        }
        let day = self.day(at);
        day.excused = day.excused.saturating_add(excused);
    }

    fn group(&mut self, attempt: &Attempt<'_>) -> &mut Group {
        let found = self.groups.iter().rposition(|it| it.identity == attempt.identity);
        let group = found.and_then(|at| self.groups.remove(at)).unwrap_or_else(|| Group {
            identity: attempt.identity,
            target: attempt.target.map(str::to_owned),
            passed: VecDeque::new(),
            waiting: VecDeque::new(),
            straight: 0,
            piece: None,
        });
        if self.groups.len() == MAX_GROUPS {
            let idle = self.groups.iter().position(|it| it.waiting.is_empty()).unwrap_or(0);
            self.groups.remove(idle);
        }
        self.groups.push_back(group);
        let last = self.groups.len() - 1;
        &mut self.groups[last]
    }

    /// The counts of a day. Days that lie far from this one are forgotten: old ones, and those that a wrong
    /// clock made.
    fn day(&mut self, at: Time) -> &mut Day {
        let day = at.day();
        let index = match self.days.binary_search_by_key(&day, |it| it.day) {
            Ok(index) => index,
            Err(_) => {
                self.days.retain(|it| it.day + MAX_DAYS > day && it.day <= day + 1);
                let index = self.days.partition_point(|it| it.day < day);
                self.days.insert(index, Day { day, ..Day::default() });
                index
            }
        };
        &mut self.days[index]
    }

    /// The strongest evidence there is that the test is flaky.
    pub fn tier(&self) -> Option<Tier> {
        let settled = self.flips.iter().map(|it| it.tier).max();
        let open = self.groups.iter().filter_map(Group::tier).max();
        let strong = settled.max(open);
        strong.or_else(|| self.same_target()).or_else(|| self.across_commits())
    }

    fn same_target(&self) -> Option<Tier> {
        let failing = self.groups.iter().filter(|it| !it.waiting.is_empty() && it.target.is_some());
        let both = |failing: &Group| {
            self.groups.iter().any(|it| it.target == failing.target && !it.passed.is_empty())
        };
        failing.into_iter().any(both).then_some(Tier::SameTarget)
    }

    /// Something that was broken once and mended is no suspect; one that was so twice is.
    fn across_commits(&self) -> Option<Tier> {
        let outcomes: Vec<bool> = self.groups.iter().map(|it| it.waiting.is_empty()).collect();
        let changes = outcomes.windows(2).filter(|pair| pair[0] != pair[1]).count();
        (changes >= 4).then_some(Tier::Suspected)
    }

    /// Failures that were followed by a pass of the same identity, oldest first.
    pub fn flips(&self) -> impl DoubleEndedIterator<Item = &Flip> {
        self.flips.iter()
    }

    /// Whether it failed and then passed with equal inputs and seed more than once. Once may be the machine's
    /// fault, where too little else failed along with it to tell.
    pub fn is_flaky(&self) -> bool {
        let mut proven = self.flips.iter().filter(|it| it.tier == Tier::Proven).map(|it| it.at);
        let many = proven.clone().count() >= MANY;
        many || proven.next().is_some_and(|first| proven.any(|it| it.since(first) >= APART))
    }

    /// The counts of `days` days that end with the one of `now`.
    pub fn counts(&self, now: Time, days: u64) -> Day {
        let mut sum = Day { day: now.day(), ..Day::default() };
        let within = |it: &&Day| it.day + days > now.day() && it.day <= now.day() + 1;
        for day in self.days.iter().filter(within) {
            sum.passes = sum.passes.saturating_add(day.passes);
            sum.failures = sum.failures.saturating_add(day.failures);
            sum.timeouts = sum.timeouts.saturating_add(day.timeouts);
            sum.infrastructure = sum.infrastructure.saturating_add(day.infrastructure);
            sum.excused = sum.excused.saturating_add(day.excused);
        }
        sum
    }

    /// What is believed of its failure rate after the runs of these days.
    pub fn rate(&self, prior: &Mixture, now: Time, days: u64) -> Mixture {
        let counts = self.counts(now, days);
        prior.after(counts.failures.into(), counts.passes.into())
    }

    /// At which rate it fails though it is not broken, outages included: what a fresh failure is judged by.
    pub fn failing(&self, prior: &Mixture, now: Time, days: u64) -> Mixture {
        let counts = self.counts(now, days);
        let failures = counts.failures.saturating_add(counts.excused);
        prior.after(failures.into(), counts.passes.into())
    }

    /// Passes since the last failure, whatever came of that.
    pub fn clean(&self) -> u32 {
        self.clean
    }

    pub fn last_failure(&self) -> Option<Time> {
        self.last_failure
    }

    /// Whether a failure that looked like this turned out to be flaky before.
    pub fn knows(&self, signature: Signature) -> bool {
        self.signatures.contains(&signature)
    }

    /// The newest other identity that has passed and not failed since: running it again shows whether the
    /// surroundings are well.
    pub fn last_good(&self, except: Identity) -> Option<Identity> {
        let good = |it: &&Group| it.identity != except && it.straight == 0 && !it.passed.is_empty();
        self.groups.iter().rev().find(good).map(|it| it.identity)
    }
}

impl Group {
    /// What failed after it had passed is evidence too, but not for long.
    fn tier(&self) -> Option<Tier> {
        if self.straight >= STREAK || self.passed.is_empty() {
            return None;
        }
        let failed = |it: &Waiting| {
            if self.passed.contains(&it.seed) { Tier::Proven } else { Tier::AcrossSeeds }
        };
        self.waiting.iter().map(failed).max()
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T, limit: usize) {
    if queue.len() == limit {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flakes::Run;

    fn identity(number: u32) -> Identity {
        let argv = [number.to_string()];
        let run = Run {
            argv: &argv,
            environment: &[],
            working_directory: "",
            input_root: "",
            platform: &[],
        };
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
        assert!(it.knows(Signature::of("boom").unwrap()));
        assert_eq!(it.counts(Time(0), 1).failures, 1);
        // It passed before: evidence, until it fails too often in a row.
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
        // After that it counts again.
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
        let it = history(&[
            at(40_000, Outcome::Passed),
            at(100, Outcome::Passed),
            at(101, Outcome::Passed),
        ]);
        assert_eq!(it.counts(Time(101 * 86_400_000), 30).passes, 2);
        assert_eq!(it.days.len(), 2);
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
                prop_assert!(it.groups.len() <= MAX_GROUPS && it.flips.len() <= MAX_FLIPS);
                prop_assert!(it.days.len() <= MAX_DAYS as usize + 1);
                prop_assert!(it.days.is_sorted_by_key(|it| it.day));
            }
        }
    }
}
