//! What is known of tests that are flaky or may be, and of failures that are judged, for people: read from all
//! records by whoever asks.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::error::VerdictError;
use super::evidence::{DAYS, TestEvidence};
use super::keys;
use super::mind::{CaseRecord, MindState};
use super::store::read;
use crate::flakes::{Flip, History, Mixture, Tier};
use crate::model::{Subject, Time};
use crate::storage::{Record, Records};

/// Records that are looked through, and how many are read at once.
const MAX_TESTS: usize = 50_000;
const MAX_CASES: usize = 20_000;
const PAGE: usize = 50;
/// What is kept of them, the strongest evidence and the newest failures first.
const MAX_SUSPECTS: usize = 2_000;
const MAX_JUDGED: usize = 1_000;
/// Flips that are shown of one subject.
const MAX_FLIPS: usize = 5;
/// A test that surely fails more often than this may enter quarantine.
pub const MUCH: f64 = 0.02;

/// A subject that there is evidence against.
#[derive(Clone, Debug, PartialEq)]
pub struct Suspect {
    pub subject: Subject,
    /// The tier of the strongest evidence.
    pub tier: Tier,
    /// Whether there is enough evidence to call the test flaky.
    pub is_flaky: bool,
    /// Proven flips that are remembered, and the commits that they were in.
    pub flips: usize,
    pub commits: usize,
    /// The newest ones of any tier, newest first.
    pub newest: Vec<Flip>,
    /// Passes of the last [`DAYS`] days, and failures that a pass of equal inputs followed.
    pub passes: u32,
    pub failures: u32,
    pub timeouts: u32,
    /// Failures for which the surroundings are to blame.
    pub excused: u32,
    /// The share of its runs that is expected to fail, and the probability that it is above [`MUCH`].
    pub rate: f64,
    pub above: f64,
    /// Passes since the last failure.
    pub clean: u32,
    pub last_failure: Option<Time>,
}

/// What all records come to.
#[derive(Clone, Debug, Default)]
pub struct Surveyed {
    /// Tests that were looked at.
    pub tests: usize,
    /// Whether more tests are known than are looked at, or more suspects than are kept.
    pub is_cut: bool,
    /// Suspects: first those that are surely flaky, then by evidence and rate.
    pub suspects: Vec<Suspect>,
    /// The newest failure of each subject that failed within two weeks, newest first.
    pub judged: Vec<CaseRecord>,
    /// Worker time that shadow runs have taken on the day of the newest one.
    pub spent: Duration,
}

/// Clones read the same records.
#[derive(Clone)]
pub struct Survey {
    pub(super) records: Arc<dyn Records>,
}

impl Survey {
    pub fn new(records: Arc<dyn Records>) -> Self {
        Self { records }
    }

    pub async fn look(&self, now: Time) -> Result<Surveyed, VerdictError> {
        let state: Option<MindState> = read(&*self.records, keys::STATE).await?;
        let mut surveyed = Surveyed::default();
        if let Some(state) = state.filter(|it| it.day == now.day()) {
            surveyed.spent = state.spent;
        }
        let prior = Mixture::of_tests();
        let mut suspects = Vec::new();
        surveyed.is_cut = self
            .each(keys::TESTS, MAX_TESTS, |record| {
                let Ok(evidence) = keys::decode::<TestEvidence>(&record.value) else { return };
                surveyed.tests += 1;
                suspects.extend(
                    evidence.subjects().filter_map(|(subject, history)| {
                        Suspect::of(subject, history, &prior, now)
                    }),
                );
                if suspects.len() > 2 * MAX_SUSPECTS {
                    strongest(&mut suspects);
                }
            })
            .await?;
        surveyed.is_cut |= strongest(&mut suspects);
        surveyed.suspects = suspects;
        surveyed.judged = self.judged().await?;
        Ok(surveyed)
    }

    /// Whether attempts are committed that nobody has looked at yet.
    pub async fn waiting(&self) -> Result<bool, VerdictError> {
        Ok(!self.records.list(keys::INBOX, None, false, 1).await?.is_empty())
    }

    async fn judged(&self) -> Result<Vec<CaseRecord>, VerdictError> {
        let mut newest: HashMap<Subject, CaseRecord> = HashMap::new();
        self.each(keys::CASES, MAX_CASES, |record| {
            let Ok(it) = keys::decode::<CaseRecord>(&record.value) else { return };
            let known = newest.get(&it.case.fresh.subject);
            if known.is_none_or(|known| known.at < it.at) {
                newest.insert(it.case.fresh.subject.clone(), it);
            }
        })
        .await?;
        let mut judged: Vec<_> = newest.into_values().collect();
        judged.sort_by_cached_key(|it| (Reverse(it.at), it.case.fresh.subject.clone()));
        judged.truncate(MAX_JUDGED);
        Ok(judged)
    }

    /// Answers whether there are more than `most`.
    async fn each(
        &self,
        prefix: &str,
        most: usize,
        mut take: impl FnMut(&Record) + Send,
    ) -> Result<bool, VerdictError> {
        let mut after: Option<String> = None;
        let mut looked_at = 0;
        while looked_at < most {
            let page = self.records.list(prefix, after.as_deref(), false, PAGE).await?;
            let Some(last) = page.last() else { return Ok(false) };
            after = Some(last.key.clone());
            looked_at += page.len();
            page.iter().for_each(&mut take);
        }
        Ok(true)
    }
}

impl Suspect {
    fn of(subject: Subject, history: &History, prior: &Mixture, now: Time) -> Option<Self> {
        let tier = history.tier()?;
        let proven = || history.flips().filter(|it| it.tier == Tier::Proven);
        let mut commits: Vec<_> = proven().filter_map(|it| it.commit.as_deref()).collect();
        commits.sort_unstable();
        commits.dedup();
        let counts = history.counts(now, DAYS);
        let rate = history.rate(prior, now, DAYS);
        Some(Self {
            subject,
            tier,
            is_flaky: history.is_flaky(),
            flips: proven().count(),
            commits: commits.len(),
            newest: history.flips().rev().take(MAX_FLIPS).cloned().collect(),
            passes: counts.passes,
            failures: counts.failures,
            timeouts: counts.timeouts,
            excused: counts.excused,
            rate: rate.mean(),
            above: rate.above(MUCH),
            clean: history.clean(),
            last_failure: history.last_failure(),
        })
    }
}

/// Leaves those with the strongest evidence, in order. Answers whether any were left out.
fn strongest(suspects: &mut Vec<Suspect>) -> bool {
    suspects.sort_by(|a, b| {
        let rank = |it: &Suspect| (it.is_flaky, it.tier);
        let by_rate = || b.rate.total_cmp(&a.rate);
        rank(b).cmp(&rank(a)).then_with(by_rate).then_with(|| a.subject.cmp(&b.subject))
    });
    let is_cut = suspects.len() > MAX_SUSPECTS;
    suspects.truncate(MAX_SUSPECTS);
    is_cut
}

#[cfg(test)]
mod tests {
    use super::super::samples::heard;
    use super::super::store::put;
    use super::*;
    use crate::flakes::Piece;
    use crate::model::Outcome::{Failed, Passed};
    use crate::storage::memory::Memory;

    async fn keep(memory: &Memory, label: &str, outcomes: &[crate::model::Outcome]) {
        let mut evidence = TestEvidence::new(heard(label, 1, Passed).test);
        for (number, outcome) in (1..).zip(outcomes) {
            // An hour and more between any two.
            let mut it = heard(label, number * 4_000, *outcome);
            it.execution = number;
            evidence.observe(&it, Piece::Own);
        }
        let write = put(keys::test(&evidence.test), &evidence).expect("it is small");
        memory.write(vec![write]).await.expect("it has room");
    }

    #[tokio::test]
    async fn tests_with_evidence_are_found_strongest_first_and_others_are_not() {
        let memory = Memory::default();
        keep(&memory, "//a:good", &[Passed, Passed]).await;
        keep(&memory, "//a:broken", &[Passed, Failed, Failed, Failed, Failed]).await;
        keep(&memory, "//a:once", &[Failed, Passed, Passed]).await;
        keep(&memory, "//a:flaky", &[Failed, Passed, Failed, Passed]).await;
        let survey = Survey::new(Arc::new(memory)).look(Time(20_000_000)).await.expect("a survey");
        let found: Vec<_> = survey
            .suspects
            .iter()
            .map(|it| (it.subject.test.label.as_str(), it.is_flaky, it.flips))
            .collect();
        assert_eq!(found, [("//a:flaky", true, 2), ("//a:once", false, 1)]);
        let flaky = &survey.suspects[0];
        assert_eq!((flaky.passes, flaky.failures, flaky.commits, flaky.clean), (2, 2, 2, 1));
        assert!(flaky.rate > survey.suspects[1].rate && flaky.above > 0.5);
        assert_eq!(flaky.newest[0].at, Time(12_000_000));
        assert_eq!((survey.tests, survey.is_cut), (4, false));
    }
}
