//! What fan-outs work with, and what they read of the parts that come back.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use kiln_cas::action::MAX_COMMAND_BYTES;
use kiln_cas::{BlobStore, Digest, DigestFunction};
use kiln_protos::reapi;
use prost::Message;
use tokio::sync::Semaphore;
use tonic::Code;

use super::course::{Ending, Reported, Returned};
use super::subject::Subject;
use super::suites::{Suite, SuiteKey, Suites, id};
use crate::api::Queue;
use crate::completion::SharedCompletion;
use crate::job::Finished;
use crate::journal::run_ns;
use crate::reports::{CaseTime, TestReports};

/// Reports that are read, and results that are put together, at a time.
pub(super) const MAX_READERS: usize = 4;
/// Bytes of the names of one part's cases that are kept until all parts have come.
const MAX_NAMES: usize = 4 << 20;
/// Largest report that is read, in bytes.
const MAX_REPORT: u64 = 64 << 20;
const NANOS_PER_MS: u64 = 1_000_000;

/// The services and bounds that all fan-outs of a server share.
#[derive(Clone)]
pub(super) struct Tools {
    pub queue: Arc<dyn Queue>,
    pub completion: SharedCompletion,
    pub reports: Arc<dyn TestReports>,
    pub suites: Suites,
    /// Reports and outputs of so many parts may be in memory at a time.
    pub readers: Arc<Semaphore>,
}

/// What is known of a test when it is submitted.
pub(super) struct Known {
    pub subject: Subject,
    pub function: DigestFunction,
    /// A key for the inputs that the test runs with: that its runner ignores shards is remembered
    /// for these alone.
    pub inputs: String,
    pub suite: Suite,
    /// `None`: nothing is to be learned, as of a test whose client names the cases.
    pub key: Option<SuiteKey>,
}

/// How one part, or the whole test, ended, and what was read of its outputs.
pub(super) struct Came {
    pub finished: Arc<Finished>,
    /// `None`: the run ended without a result.
    pub result: Option<reapi::ActionResult>,
    pub cases: Option<Vec<CaseTime>>,
    pub ending: Ending,
    pub touched_status: bool,
}

impl Came {
    pub fn passed(&self) -> bool {
        self.ending == Ending::Exited(0)
    }

    pub fn run_ms(&self) -> u64 {
        run_ns(&self.finished.timeline) / NANOS_PER_MS
    }

    /// `is_told`: by a list of cases, of which no runner says that it knows.
    pub fn returned(&self, is_told: bool) -> Returned {
        let ids = |ran: bool| -> BTreeSet<_> {
            let cases = self.cases.iter().flatten().filter(|case| case.ran == ran);
            cases.map(id).collect()
        };
        let reported = self.cases.as_ref();
        Returned {
            ending: self.ending,
            knows_shards: is_told || self.touched_status,
            reported: reported.map(|_| Reported { ran: ids(true), skipped: ids(false) }),
        }
    }
}

impl Tools {
    fn blobs(&self) -> &dyn BlobStore {
        self.completion.blobs()
    }

    /// An encoded Command from the store; `None`: it cannot be had, or is too large.
    pub async fn command(&self, digest: &Digest) -> Option<Bytes> {
        let blob = self.blobs().read(digest, 0, None).await.ok()?;
        blob.collect(MAX_COMMAND_BYTES).await.ok()
    }

    pub async fn came(&self, finished: Arc<Finished>, known: &Known) -> Came {
        let result = reapi::ActionResult::decode(finished.result.clone()).ok();
        let result = result.filter(|_| !finished.result.is_empty());
        let ending = match (&result, finished.code) {
            (Some(_), 0) => Ending::Exited(finished.exit_code),
            (Some(_), code) if code == Code::DeadlineExceeded as i32 => Ending::TimedOut,
            _ => Ending::NoAnswer,
        };
        let files = result.iter().flat_map(|result| &result.output_files);
        let touched_status = files.clone().any(|file| file.path == known.subject.status);
        let mut cases = None;
        if let Some(report) = files.clone().find(|file| file.path == known.subject.report) {
            cases = self.cases(report, known).await;
        }
        Came { finished, result, cases, ending, touched_status }
    }

    /// `None`: the report cannot be read, or names the test alone.
    async fn cases(&self, report: &reapi::OutputFile, known: &Known) -> Option<Vec<CaseTime>> {
        let digest = Digest::from_wire(report.digest.as_ref()?, known.function).ok()?;
        let _reads = self.readers.acquire().await.ok()?;
        let data: Bytes =
            self.blobs().read(&digest, 0, None).await.ok()?.collect(MAX_REPORT).await.ok()?;
        let (reports, label) = (self.reports.clone(), known.subject.label.clone());
        let read = tokio::task::spawn_blocking(move || reports.cases(&data, &label)).await.ok()?;
        match read {
            Ok(cases) => {
                let names: usize = cases.iter().map(|it| it.class.len() + it.name.len()).sum();
                Some(cases).filter(|cases| !cases.is_empty() && names <= MAX_NAMES)
            }
            Err(problem) => {
                tracing::info!(%problem, label = known.subject.label, "a test's report cannot be read");
                None
            }
        }
    }

    /// Learns from a run of all cases that passed.
    pub async fn learn(&self, known: &mut Known, cases: &[CaseTime], whole_ms: u64) {
        let Some(key) = &known.key else { return };
        known.suite.learn(cases, whole_ms);
        self.suites.keep(key, &known.suite).await;
    }

    /// The runner ignores shards: the test is not fanned out again with the same inputs.
    pub async fn remember_ignoring(&self, known: &mut Known) {
        known.suite.ignores_with.clone_from(&known.inputs);
        if let Some(key) = &known.key {
            self.suites.keep(key, &known.suite).await;
        }
    }

    /// The end of a run of the whole teaches what the test's cases are.
    pub async fn learn_from_whole(&self, finished: &Arc<Finished>, known: &mut Known) {
        if known.key.is_none() || finished.code != 0 || finished.exit_code != 0 {
            return;
        }
        let came = self.came(finished.clone(), known).await;
        if came.passed() {
            let whole_ms = came.run_ms();
            self.learn(known, &came.cases.unwrap_or_default(), whole_ms).await;
        }
    }
}
