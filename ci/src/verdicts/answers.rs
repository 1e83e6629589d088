//! What any server answers: whether an invocation's failures are masked, from what is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::account::{Account, FailedRun, ImportRecord};
use super::book::Book;
use super::builds::{BuildRecord, Failed, plain};
use super::census::Census;
use super::error::VerdictError;
use super::inbox;
use super::keys;
use super::mind::{CaseRecord, MindState};
use super::store::{put, read};
use crate::attempts::Attempt;
use crate::flakes::{Judgement, Prior, Tries, judge};
use crate::gate::{self, Failure, Outcome, Run};
use crate::model::{Subject, TestKey, Time};
use crate::storage::Records;

/// What a gate is asked.
#[derive(Clone, Debug, Default)]
pub struct Question {
    pub instance: String,
    pub invocation: String,
    /// Labels of tests whose own sources the change edits.
    pub edited: Vec<String>,
    pub told: Told,
}

/// What is known of how an invocation ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// Nobody has said anything of the invocation.
    #[default]
    Nothing,
    /// Build events of the invocation go on, or are still on their way.
    GoesOn,
    /// What its client, or its build events, say.
    Ended(Arc<Account>),
}

/// A gate's answer so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    pub outcome: Outcome,
    /// Whether the answer may change without anybody doing anything: shadow runs go on, or attempts are on their way.
    pub pending: bool,
    /// Something was told of the invocation, or an attempt of it failed here.
    pub known: bool,
}

/// Clones share what they answer from.
#[derive(Clone)]
pub struct Answers {
    records: Arc<dyn Records>,
    book: Book,
    /// Whether anybody has failures run again.
    runs_again: bool,
}

impl Answers {
    pub fn new(records: Arc<dyn Records>, book: Book, runs_again: bool) -> Self {
        Self { records, book, runs_again }
    }

    /// How many tests are known, in each instance.
    pub async fn census(&self) -> Result<Census, VerdictError> {
        let state: Option<MindState> = read(&*self.records, keys::STATE).await?;
        Ok(state.and_then(|it| it.census).unwrap_or_default())
    }

    /// How many tests are known in all.
    pub async fn tests(&self) -> Result<u64, VerdictError> {
        Ok(self.census().await?.all())
    }

    /// Notes how a run ended that was brought in as a report, so that it can be gated as builds are.
    pub async fn note_import(&self, attempt: &Attempt, now: Time) -> Result<(), VerdictError> {
        let key = keys::import(&attempt.test.instance, &attempt.invocation);
        Ok(self.records.write(vec![put(key, &ImportRecord::of(attempt, now))?]).await?)
    }

    /// What a report said that was brought in. Nothing for what is none.
    pub async fn imported(
        &self,
        instance: &str,
        invocation: &str,
    ) -> Result<Option<Account>, VerdictError> {
        let kept: Option<ImportRecord> =
            read(&*self.records, &keys::import(instance, invocation)).await?;
        Ok(kept.map(|it| it.account))
    }

    pub async fn gate(&self, question: &Question, now: Time) -> Result<Answered, VerdictError> {
        let (instance, invocation) = (&question.instance, &question.invocation);
        let on_their_way = self.on_their_way(instance, invocation).await?;
        let key = keys::build(instance, invocation);
        let kept: Option<BuildRecord> = read(&*self.records, &key).await?;
        let known = kept.is_some() || on_their_way || question.told != Told::Nothing;
        let build = kept.unwrap_or_else(|| BuildRecord::new(instance, invocation));
        let mut failures = Vec::new();
        for failed in &build.failures {
            failures.push(self.failure(failed, &question.edited).await?);
        }
        let failed = match &question.told {
            Told::Ended(account) => account.failed.as_slice(),
            Told::Nothing | Told::GoesOn => &[],
        };
        let told = unexplained(question, failed, &build, on_their_way);
        // Their attempts come a moment later, if at all.
        let missing = !told.is_empty();
        failures.extend(told);
        let incomplete = incomplete(question, &build);
        let tests = self.census().await?.of(instance);
        let run = Run { instance, incomplete: incomplete.as_deref(), failures, tests };
        let quarantine = self.book.open().await?.quarantine;
        let outcome = gate::gate(&run, &quarantine, now);
        let open = outcome.items.iter().any(|it| it.finding == gate::Finding::Open);
        let ended = matches!(question.told, Told::Ended(_));
        // What did not complete never becomes green.
        let is_over = ended && incomplete.is_some();
        let pending = !is_over && (open || on_their_way || missing || !ended);
        Ok(Answered { outcome, pending, known })
    }

    /// Whether attempts of the invocation are committed that nobody has looked at yet.
    async fn on_their_way(&self, instance: &str, invocation: &str) -> Result<bool, VerdictError> {
        let own = |it: &inbox::Item| {
            let mut heard = it.heard.iter();
            heard.any(|it| it.invocation == invocation && it.test.instance == instance)
        };
        let items = inbox::oldest(&*self.records, &BTreeMap::new(), None).await?;
        Ok(items.iter().any(own))
    }

    async fn failure(&self, it: &Failed, edited: &[String]) -> Result<Failure, VerdictError> {
        let key = keys::case(&it.subject, it.identity);
        let case: Option<CaseRecord> = read(&*self.records, &key).await?;
        let (judgement, tries, settled) = match case {
            Some(case) => (case.judgement, case.tries, case.settled || !self.runs_again),
            // Nobody has it run again: what the invocation itself tried is all there is.
            None => (judged(it.tries), it.tries, true),
        };
        Ok(Failure {
            at: it.at,
            signature: it.signature,
            known: it.known,
            edited: is_edited(&it.subject, edited),
            judgement: Some(judgement),
            tries,
            settled,
            subject: it.subject.clone(),
        })
    }
}

fn judged(tries: Tries) -> Judgement {
    let prior = Prior::default();
    judge(&prior, &prior.rate, tries)
}

fn is_edited(subject: &Subject, edited: &[String]) -> bool {
    let own = plain(&subject.test.label);
    edited.iter().any(|it| plain(it) == own)
}

/// What failed, as the client says, and of which no failing attempt is known: nothing can mask it, unless
/// attempts that nobody has looked at yet do.
fn unexplained(
    question: &Question,
    failed: &[FailedRun],
    build: &BuildRecord,
    on_their_way: bool,
) -> Vec<Failure> {
    let unknown = |it: &&FailedRun| !build.knows(&it.label, it.run, it.shard);
    let labels: BTreeSet<_> = failed.iter().filter(unknown).map(|it| &it.label).collect();
    let failure = |label: &String| {
        let (instance, configuration) = (question.instance.clone(), String::new());
        let test = TestKey { instance, label: label.clone(), configuration };
        let subject = Subject { test, case: None };
        Failure {
            edited: is_edited(&subject, &question.edited),
            subject,
            at: Time::default(),
            signature: None,
            known: false,
            judgement: None,
            tries: Tries::default(),
            settled: !on_their_way,
        }
    };
    labels.into_iter().map(failure).collect()
}

fn incomplete(question: &Question, build: &BuildRecord) -> Option<String> {
    let account = match &question.told {
        Told::Ended(account) => account,
        Told::GoesOn => return Some("its build events have not ended".to_owned()),
        Told::Nothing => {
            return Some("nobody has told how it ended: it has no build events here".to_owned());
        }
    };
    let many = || match build.left_out {
        1 => "one more failure is not listed".to_owned(),
        more => format!("{more} more failures are not listed"),
    };
    account.incomplete.clone().or_else(|| (build.left_out > 0).then(many))
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
