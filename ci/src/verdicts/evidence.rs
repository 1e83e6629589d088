//! What the runs of one test have shown: of the test as a whole, and of those of its cases that failed.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::heard::Heard;
use crate::attempts::BlobName;
use crate::flakes::{Attempt, Fresh, History, Identity, Mixture, Piece, Purpose, Signature};
use crate::model::{CaseName, Outcome, Subject, TestKey, Time};

/// Attempts of one test that are known by their numbers, so that none counts twice.
const MAX_HEARD: usize = 512;
/// Cases of one test that are looked at by themselves; the one that failed longest ago makes room.
const MAX_TRACKED: usize = 32;
/// Inputs of which it is known how they are run again.
const MAX_ACTIONS: usize = 32;
/// What a run is expected to take that nobody has timed.
const EXPECTED: Duration = Duration::from_secs(30);
/// The days whose runs say how often a test fails.
pub const DAYS: u64 = 14;

/// The evidence that there is about one test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestEvidence {
    pub test: TestKey,
    whole: History,
    /// Whether the test failed in a way that is none of its cases': the test as a whole is a subject.
    fails_whole: bool,
    cases: Vec<CaseEvidence>,
    heard: VecDeque<u64>,
    actions: VecDeque<Repeatable>,
    pub last: Time,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct CaseEvidence {
    case: CaseName,
    history: History,
}

/// Inputs with which it ran here, newest last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Repeatable {
    pub identity: Identity,
    pub action: BlobName,
    pub took: Duration,
}

/// What an attempt showed of one subject.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    pub subject: Subject,
    pub outcome: Outcome,
    pub signature: Option<Signature>,
    /// Failures that looked like this turned out to be flaky before.
    pub known: bool,
}

impl TestEvidence {
    pub fn new(test: TestKey) -> Self {
        Self {
            test,
            whole: History::default(),
            fails_whole: false,
            cases: Vec::new(),
            heard: VecDeque::new(),
            actions: VecDeque::new(),
            last: Time::default(),
        }
    }

    pub fn has_heard(&self, execution: u64) -> bool {
        self.heard.contains(&execution)
    }

    /// Takes an attempt in, once, and says what it showed of each subject that failed or has failed before.
    pub fn observe(&mut self, it: &Heard, piece: Piece) -> Vec<Observed> {
        if self.has_heard(it.execution) {
            return Vec::new();
        }
        push(&mut self.heard, it.execution, MAX_HEARD);
        self.last = self.last.max(it.at);
        self.remember(it);
        it.failed.iter().for_each(|(case, _)| self.track(case));
        self.fails_whole |= it.failed.is_empty() && it.is_failure();
        let mut observed = Vec::new();
        for (case, outcome, signature) in self.shown(it) {
            let Some(history) = self.history_mut(case.as_ref()) else { continue };
            let known = history.knows(signature);
            record(history, it, outcome, signature, piece);
            let is_subject = case.is_some() || self.fails_whole && it.failed.is_empty();
            if is_subject {
                let subject = Subject { test: self.test.clone(), case };
                observed.push(Observed { subject, outcome, signature, known });
            }
        }
        observed
    }

    /// What an attempt says of which subject, failures first: what a runner repeats by itself fails and then passes.
    fn shown(&self, it: &Heard) -> Vec<(Option<CaseName>, Outcome, Option<Signature>)> {
        let failed = it.failed.iter();
        let failed =
            failed.map(|(case, signature)| (Some(case.clone()), Outcome::Failed, *signature));
        let tracked = self.cases.iter().map(|it| &it.case).filter(|case| it.has_passed(case));
        let passed = tracked.map(|case| (Some(case.clone()), Outcome::Passed, None));
        let whole = [(None, it.outcome, it.signature)];
        failed.chain(passed).chain(whole).collect()
    }

    fn remember(&mut self, it: &Heard) {
        let Some(action) = it.action.clone() else { return };
        self.actions.retain(|known| known.identity != it.identity);
        let took = it.took.unwrap_or(EXPECTED);
        push(&mut self.actions, Repeatable { identity: it.identity, action, took }, MAX_ACTIONS);
    }

    /// A case that fails for the first time has behind it what the test as a whole has passed.
    fn track(&mut self, case: &CaseName) {
        if self.cases.iter().any(|it| it.case == *case) {
            return;
        }
        if self.cases.len() >= MAX_TRACKED {
            let oldest = self.cases.iter().enumerate();
            let oldest = oldest.min_by_key(|(_, it)| it.history.last_failure());
            if let Some((at, _)) = oldest {
                self.cases.remove(at);
            }
        }
        self.cases.push(CaseEvidence { case: case.clone(), history: self.whole.passes() });
    }

    fn history_mut(&mut self, case: Option<&CaseName>) -> Option<&mut History> {
        match case {
            None => Some(&mut self.whole),
            Some(case) => {
                self.cases.iter_mut().find(|it| it.case == *case).map(|it| &mut it.history)
            }
        }
    }

    /// What is known of a subject; of a case that never failed, what is known of the whole.
    pub fn history(&self, case: Option<&CaseName>) -> &History {
        let tracked = case.and_then(|case| self.cases.iter().find(|it| it.case == *case));
        tracked.map_or(&self.whole, |it| &it.history)
    }

    /// Everything that has failed by itself, with its history.
    pub fn subjects(&self) -> impl Iterator<Item = (Subject, &History)> {
        let of = |case| Subject { test: self.test.clone(), case };
        let whole = self.fails_whole.then(|| (of(None), &self.whole));
        let cases = self.cases.iter().map(move |it| (of(Some(it.case.clone())), &it.history));
        whole.into_iter().chain(cases)
    }

    /// The subjects that an attempt says failed, as cases for shadow runs.
    pub fn fresh(&self, it: &Heard, prior: &Mixture, now: Time) -> Vec<Fresh> {
        let cases = it.failed.iter().map(|(case, _)| Some(case.clone()));
        let whole = (it.failed.is_empty() && it.outcome == Outcome::Failed).then_some(None);
        let subjects = cases.chain(whole);
        let fresh = |case: Option<CaseName>| {
            let tracked =
                case.as_ref().and_then(|it| self.cases.iter().find(|own| own.case == *it));
            let history = match (tracked, &case) {
                (Some(tracked), _) => &tracked.history,
                (None, Some(_)) => &self.whole.passes(),
                (None, None) => &self.whole,
            };
            Fresh {
                rate: history.failing(prior, now, DAYS),
                flaky: history.flips().next().is_some(),
                good: history.last_good(it.identity).filter(|it| self.repeatable(*it).is_some()),
                subject: Subject { test: self.test.clone(), case },
                identity: it.identity,
                at: it.at,
                expected: it.took.unwrap_or(EXPECTED),
                worker: Some(it.worker.clone()).filter(|it| !it.is_empty()),
            }
        };
        subjects.map(fresh).collect()
    }

    pub fn repeatable(&self, identity: Identity) -> Option<&Repeatable> {
        self.actions.iter().rev().find(|it| it.identity == identity)
    }

    /// The inputs with which it ran last.
    pub fn newest(&self) -> Option<&Repeatable> {
        self.actions.back()
    }

    /// Forgets cases until it fits into so many bytes, which `size` measures.
    pub fn fit(&mut self, most: usize, size: impl Fn(&Self) -> usize) {
        while size(self) > most && !self.cases.is_empty() {
            self.cases.remove(0);
        }
    }
}

fn record(
    history: &mut History,
    it: &Heard,
    outcome: Outcome,
    signature: Option<Signature>,
    piece: Piece,
) {
    if it.shadow == Some(Purpose::Control) && outcome == Outcome::Failed {
        history.control_failed(it.at);
        return;
    }
    history.record(&Attempt {
        identity: it.identity,
        seed: it.seed.as_deref(),
        target: None,
        commit: it.commit.as_deref(),
        at: it.at,
        outcome,
        signature,
        piece,
    });
}

fn push<T>(queue: &mut VecDeque<T>, item: T, limit: usize) {
    if queue.len() == limit {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::super::samples::{heard, with_cases};
    use super::*;
    use crate::flakes::Tier;
    use crate::model::Outcome::{Failed, Passed};

    fn take(evidence: &mut TestEvidence, heard: &[Heard]) -> Vec<Observed> {
        heard.iter().flat_map(|it| evidence.observe(it, Piece::Own)).collect()
    }

    #[test]
    fn what_was_heard_before_counts_no_second_time() {
        let mut it = TestEvidence::new(heard("//a:t", 1, Failed).test);
        let one = heard("//a:t", 1, Failed);
        assert_eq!(take(&mut it, std::slice::from_ref(&one)).len(), 1);
        let before = it.clone();
        assert_eq!(take(&mut it, &[one]), []);
        assert_eq!(it, before);
    }

    #[test]
    fn cases_that_fail_in_turn_are_flaky_each_by_itself() {
        let mut it = TestEvidence::new(heard("//a:t", 1, Failed).test);
        let attempts = [
            with_cases("//a:t", 1, &[("a", Failed), ("b", Passed)]),
            with_cases("//a:t", 2, &[("a", Passed), ("b", Failed)]),
        ];
        let observed = take(&mut it, &attempts);
        let shown: Vec<_> =
            observed.iter().map(|it| (it.subject.to_string(), it.outcome)).collect();
        assert_eq!(
            shown,
            [
                ("//a:t (c a)".to_owned(), Failed),
                ("//a:t (c b)".to_owned(), Failed),
                ("//a:t (c a)".to_owned(), Passed)
            ]
        );
        let tiers: Vec<_> = it.subjects().map(|(_, history)| history.tier()).collect();
        assert_eq!(tiers, [Some(Tier::Proven), None]);
    }

    #[test]
    fn a_case_that_was_left_out_has_not_passed() {
        let mut it = TestEvidence::new(heard("//a:t", 1, Failed).test);
        let attempts = [
            with_cases("//a:t", 1, &[("a", Failed), ("b", Passed)]),
            with_cases("//a:t", 2, &[("a", Outcome::Skipped), ("b", Passed)]),
            with_cases("//a:t", 3, &[("b", Passed)]),
            heard("//a:t", 4, Passed),
        ];
        take(&mut it, &attempts);
        let (_, history) = it.subjects().next().unwrap();
        assert_eq!((history.tier(), history.clean()), (None, 0));
    }

    #[test]
    fn a_new_failure_is_judged_by_what_passed_before() {
        let mut it = TestEvidence::new(heard("//a:t", 1, Passed).test);
        let passes: Vec<_> = (1..=50).map(|number| heard("//a:t", number, Passed)).collect();
        take(&mut it, &passes);
        let failed = with_cases("//a:t", 51, &[("a", Failed)]);
        let prior = Mixture::of_tests();
        let fresh = it.fresh(&failed, &prior, failed.at);
        assert_eq!(fresh.len(), 1);
        assert!(fresh[0].rate.mean() < prior.mean() / 2.0);
        assert_eq!(it.repeatable(failed.identity).map(|it| it.took), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_failed_control_is_held_against_nobody() {
        let mut it = TestEvidence::new(heard("//a:t", 1, Failed).test);
        let control = Heard { shadow: Some(Purpose::Control), ..heard("//a:t", 2, Failed) };
        take(&mut it, &[heard("//a:t", 1, Failed), control, heard("//a:t", 3, Passed)]);
        let (_, history) = it.subjects().next().unwrap();
        assert_eq!(history.flips().count(), 0);
    }
}
