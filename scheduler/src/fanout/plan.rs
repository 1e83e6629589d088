//! Whether an action is fanned out, into how many parts, and what each of them runs.

use bytes::Bytes;
use kiln_cas::counted;
use kiln_protos::reapi;
use prost::Message;

use super::derive::{Cases, Part, Whole};
use super::filters::filters;
use super::number::{Expected, choose};
use super::subject::Subject;
use super::suites::SuiteKey;
use super::tools::{Known, Tools};
use super::wish::{Number, Wish};
use crate::job::Job;
use crate::queue::platform::Offer;
use crate::reports::TestReports;
use crate::snapshot::Snapshot;

/// A test of which something may be learned, if it is not run in parts.
pub(super) struct Plan {
    pub wish: Wish,
    pub whole: Whole,
    pub known: Known,
}

/// The parts of a test.
pub(super) struct Parts {
    pub parts: Vec<Part>,
    /// Each part has a list of its cases; else runners take the cases of their shards.
    pub is_told: bool,
    /// Milliseconds that each part is expected to take; 0: not known.
    pub expected_ms: Vec<u64>,
}

impl Plan {
    /// `messages`: the Action, and the Command where it is small enough to go with leases. `None`: it is nothing that
    /// can be run in parts.
    pub async fn of(tools: &Tools, job: &Job, wish: Wish, messages: &[Bytes]) -> Option<Self> {
        let action = reapi::Action::decode(messages.first()?.clone()).ok()?;
        let command = match messages.get(1) {
            Some(command) => command.clone(),
            None => tools.command(&job.facts.command).await?,
        };
        let command: reapi::Command = counted::decode(command).ok()?;
        let metadata = &job.request.metadata;
        let properties = job.facts.platform.pairs();
        let subject = match Subject::of(&command, &metadata.action_mnemonic, properties) {
            Ok(subject) => subject,
            Err(unfit) => {
                tracing::debug!(
                    target_id = metadata.target_id,
                    ?unfit,
                    "an action is not run in parts"
                );
                return None;
            }
        };
        let key = SuiteKey::new(&job.key.instance, &subject.label, &subject.report);
        let mut suite = tools.suites.get(&key).await;
        let key = (!subject.is_filtered).then_some(key);
        if key.is_none() {
            // Cases that the client names are not those of a full run.
            suite = suite.of_some_cases();
        }
        let inputs = format!("{}/{}", job.facts.command.hex(), job.facts.input_root.hex());
        let known = Known { subject, function: job.key.action.function, inputs, suite, key };
        Some(Self { wish, whole: Whole { action, command }, known })
    }

    /// The parts of the test; `None`: it runs whole.
    pub async fn parts(&self, tools: &Tools, job: &Job) -> Option<Parts> {
        let suite = &self.known.suite;
        if suite.ignores_with == self.known.inputs || suite.has_too_many {
            return None;
        }
        let idle = match self.wish.number {
            Number::Auto if suite.whole_ms > 0 => {
                // What cannot be asked has none.
                tools.queue.snapshot().await.map_or(0, |snapshot| idle_slots(&snapshot, job))
            }
            _ => 0,
        };
        let expected = Expected {
            whole_ms: Some(suite.whole_ms).filter(|whole| *whole > 0),
            longest_ms: suite.longest_ms(),
            cases: suite.cases(),
            idle,
        };
        let count = choose(self.wish.number, &expected)?;
        let lists = self.lists(tools.reports.as_ref(), count);
        let is_told = lists.is_some();
        let (cases, expected_ms): (Vec<Cases>, Vec<u64>) = match lists {
            Some(lists) => lists.into_iter().map(|(text, ms)| (Cases::Filtered(text), ms)).unzip(),
            None => (0..count).map(|_| (Cases::OfShard, suite.part_ms(count))).unzip(),
        };
        let count = u32::try_from(cases.len()).ok()?;
        let part = |(index, cases)| Part { index, count, cases };
        Some(Parts { parts: (0..).zip(cases).map(part).collect(), is_told, expected_ms })
    }

    /// Balanced lists of cases with what they last, where the runner takes some and that is known.
    fn lists(&self, reports: &dyn TestReports, count: u32) -> Option<Vec<(String, u64)>> {
        let filter = self.wish.filter.filter(|_| !self.known.subject.is_filtered)?;
        let cases = self.known.suite.timed();
        if cases.is_empty() {
            return None;
        }
        let lists = reports.balanced(&cases, count as usize);
        let lists: Vec<_> = lists.into_iter().filter(|list| !list.is_empty()).collect();
        let sum =
            |list: &Vec<usize>| list.iter().filter_map(|it| cases.get(*it)).map(|it| it.ms).sum();
        let lasts: Vec<u64> = lists.iter().map(sum).collect();
        Some(filters(filter, &cases, &lists)?.into_iter().zip(lasts).collect())
    }
}

/// Slots of workers that could run it which nothing else waits for.
pub(super) fn idle_slots(snapshot: &Snapshot, job: &Job) -> u64 {
    let fits = |properties: &Vec<(String, String)>| {
        Offer::new(properties.iter().cloned()).satisfies(&job.facts.platform)
    };
    let workers = snapshot.workers.iter().filter(|worker| fits(&worker.properties));
    workers
        .map(|worker| u64::from(worker.free()))
        .sum::<u64>()
        .saturating_sub(snapshot.queue_depth as u64)
}
