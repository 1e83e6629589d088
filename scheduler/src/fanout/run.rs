//! Carries a fan-out out: waits for its parts, and makes one answer of what comes back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kiln_net::panics::{Panicked, caught};
use kiln_protos::events::execution::Origin;
use kiln_protos::protobuf::Any;
use kiln_protos::{reapi, rpc, worker};
use prost::Message;
use tonic::Code;

use super::course::{Course, Ending, Next, Why};
use super::merge::{Merger, Piece};
use super::plan::idle_slots;
use super::running::{Running, Slow, copy_of};
use super::suites::id;
use super::tools::{Came, Known, Tools};
use super::waited::Waited;
use crate::api::Ticket;
use crate::completion::{Completion, Record, Together};
use crate::config::Hedge;
use crate::job::{Finished, Job, Outcome};
use crate::journal::run_ns;
use crate::queue;
use crate::status::{refused, status};

/// One fan-out while it runs.
pub(super) struct FanOut {
    pub tools: Tools,
    pub waited: Arc<Waited>,
    pub known: Known,
    /// Each part was told its cases; else each runs those of its shard.
    pub is_told: bool,
    /// How long a client that lost its connection has to come back.
    pub grace: Duration,
    /// The rule that says when a part is slow.
    pub hedge: Hedge,
    /// Milliseconds that each part is expected to take; 0: not known.
    pub expected_ms: Vec<u64>,
}

/// How a fan-out ended.
struct Over {
    finished: Arc<Finished>,
    together: Option<Together>,
    /// The queue has recorded the end already, so that it is not recorded twice.
    is_recorded: bool,
}

impl FanOut {
    /// Runs the fan-out until there is an answer, nobody wants one any more, or the server ends.
    pub async fn run(mut self, tickets: Vec<Ticket>) {
        let (waited, completion) = (self.waited.clone(), self.tools.completion.clone());
        let grace = self.grace;
        let over = tokio::select! {
            over = caught(self.work(tickets)) => {
                over.unwrap_or_else(|panicked| Some(lost(&waited, &completion, &panicked)))
            }
            ending = waited.unwanted(grace) => {
                let finished = Arc::new(completion.failed(&waited.run(), &ending));
                Some(Over { finished, together: None, is_recorded: false })
            }
        };
        // Without an answer the server ends, and whoever waits is told so.
        if let Some(Over { finished, together, is_recorded }) = over {
            waited.finish(&completion, &finished, together, is_recorded);
        }
    }

    async fn work(&mut self, tickets: Vec<Ticket>) -> Option<Over> {
        let count = tickets.len();
        let mut course = Course::new(count, self.known.suite.full(), self.is_told);
        let mut came: Vec<Option<Came>> = (0..count).map(|_| None).collect();
        let mut slow = Slow::new(self.hedge, std::mem::take(&mut self.expected_ms));
        let jobs: Vec<Arc<Job>> = tickets.iter().map(|ticket| ticket.job.clone()).collect();
        let next = {
            let mut running = Running::new(tickets, &self.waited);
            loop {
                let end = tokio::select! {
                    end = running.ends.next() => end?,
                    () = slow.due() => {
                        self.copy_slowest(&mut running, &mut slow).await;
                        continue;
                    }
                };
                let (index, runs_on) = (end.part, running.ended(&end));
                if came.get(index).is_some_and(Option::is_some) {
                    // Its other copy was sooner.
                    continue;
                }
                let part = self.tools.came(end.finished?, &self.known).await;
                if part.ending == Ending::NoAnswer && runs_on {
                    continue;
                }
                if let Some(job) = jobs.get(index).filter(|_| end.is_copy) {
                    self.record_copy(index, job, &part.finished);
                }
                running.give_up(index);
                slow.hedging.came(index);
                let next = course.came(index, part.returned(self.is_told));
                if let Some(place) = came.get_mut(index) {
                    *place = Some(part);
                }
                if next != Next::Wait {
                    break next;
                }
            }
        };
        let part = |came: Vec<Option<Came>>, index: usize| came.into_iter().nth(index).flatten();
        match next {
            Next::Whole(why) => self.run_whole(why, &came).await,
            Next::Alone(index) => Some(self.alone(part(came, index)?).await),
            Next::NoAnswer(index) => {
                let finished = part(came, index)?.finished;
                Some(Over { finished, together: None, is_recorded: false })
            }
            Next::PutTogether | Next::Wait => {
                Some(self.put_together(came.into_iter().flatten().collect()).await)
            }
        }
    }

    /// Has the part run a second time that is slowest, where a slot is idle: everything else goes first. Nothing is kept
    /// of a copy but what its part comes to, and nothing of one that comes second.
    async fn copy_slowest(&self, running: &mut Running, slow: &mut Slow) {
        slow.looked();
        let Ok(snapshot) = self.tools.queue.snapshot().await else { return };
        let Some((part, job, worker)) = slow.slowest(running, &snapshot) else { return };
        if idle_slots(&snapshot, &job) == 0 {
            return;
        }
        // It is not asked for twice, whatever becomes of it.
        slow.hedging.copied(part);
        let label = &self.known.subject.label;
        match self.tools.queue.submit(copy_of(&job, &worker)).await {
            Ok(ticket) => {
                tracing::info!(label, part = part + 1, "a slow part of a test runs a second time");
                running.add(part, ticket);
            }
            Err(reason) => {
                let reason = refused(&reason).message;
                tracing::debug!(label, reason, "a slow part of a test runs no second time");
            }
        }
    }

    /// A copy is an execution of nobody's until its answer is that of its part.
    fn record_copy(&self, part: usize, job: &Job, finished: &Finished) {
        self.tools.completion.record(Record {
            id: format!("{}-part-{}", self.waited.name, part + 1),
            key: &job.key,
            facts: &job.facts,
            request: &job.request,
            origin: Origin::Executed,
            expected_ms: job.expected_ms.unwrap_or(0),
            finished,
            together: None,
        });
    }

    async fn put_together(&mut self, parts: Vec<Came>) -> Over {
        let together = together(&parts);
        let response = match self.merged(&parts).await {
            Ok(response) => response,
            Err(error) => {
                let message = format!(
                    "the results of the shards cannot be put together: {error}; execute it again"
                );
                failed(status(Code::Unavailable, message))
            }
        };
        let is_whole = response.message.is_empty() && response.status.is_none();
        let finished = self.complete(response, &parts).await;
        if is_whole && finished.code == 0 && finished.exit_code == 0 {
            let whole_ms = parts.iter().map(Came::run_ms).sum();
            let cases: Vec<_> =
                parts.iter().flat_map(|part| part.cases.iter().flatten()).cloned().collect();
            self.tools.learn(&mut self.known, &cases, whole_ms).await;
        }
        Over { finished, together: Some(together), is_recorded: false }
    }

    async fn merged(&self, parts: &[Came]) -> Result<reapi::ExecuteResponse, kiln_cas::StoreError> {
        let piece = |(number, part): (u32, &Came)| {
            part.result.clone().map(|result| Piece { number, result })
        };
        // It is never closed.
        let _reads = self.tools.readers.acquire().await;
        let pieces: Vec<Piece> = (1..).zip(parts).filter_map(piece).collect();
        let merger = Merger {
            blobs: self.tools.completion.blobs(),
            reports: self.tools.reports.clone(),
            subject: &self.known.subject,
            function: self.known.function,
            count: u32::try_from(parts.len()).unwrap_or(u32::MAX),
        };
        let mut merged = merger.put_together(&pieces).await?;
        let stored = worker::Stored { bytes: merged.stored };
        let stored = Any { type_url: worker::STORED.to_owned(), value: stored.encode_to_vec() };
        let metadata = merged.result.execution_metadata.get_or_insert_default();
        metadata.auxiliary_metadata.push(stored);
        let verdict = Verdict::of(parts);
        merged.result.exit_code = verdict.exit_code;
        let mut reasons = merged.remarks;
        reasons.extend(verdict.reason.clone());
        reasons.extend(
            parts.iter().map(|part| part.finished.message.clone()).filter(|it| !it.is_empty()),
        );
        reasons.dedup();
        Ok(reapi::ExecuteResponse {
            result: Some(merged.result),
            status: verdict
                .timed_out
                .then(|| status(Code::DeadlineExceeded, verdict.reason.unwrap_or_default())),
            message: reasons.join("; "),
            ..Default::default()
        })
    }

    /// The runner ignores shards: what one part ran is the whole, and counts once.
    async fn alone(&mut self, part: Came) -> Over {
        tracing::info!(
            label = self.known.subject.label,
            "a test's runner ignores shards; its whole run counts once"
        );
        if part.passed() {
            self.known.suite.learn(part.cases.as_deref().unwrap_or_default(), part.run_ms());
        }
        self.tools.remember_ignoring(&mut self.known).await;
        let mut result = part.result.clone().unwrap_or_default();
        let Known { subject, .. } = &self.known;
        result
            .output_files
            .retain(|file| file.path != subject.status || subject.status_is_declared);
        let timed_out = part.ending == Ending::TimedOut;
        let message = part.finished.message.clone();
        let response = reapi::ExecuteResponse {
            result: Some(result),
            status: timed_out.then(|| status(Code::DeadlineExceeded, message.clone())),
            message,
            ..Default::default()
        };
        let parts = [part];
        let finished = self.complete(response, &parts).await;
        Over { finished, together: Some(together(&parts)), is_recorded: false }
    }

    /// Runs the whole as if it had not been fanned out.
    async fn run_whole(&mut self, why: Why, came: &[Option<Came>]) -> Option<Over> {
        let label = &self.known.subject.label;
        tracing::info!(label, why = why.words(), "a test that was fanned out runs whole");
        let ticket = match self.tools.queue.submit(Job::clone(&self.waited.job)).await {
            Ok(ticket) => ticket,
            Err(reason) => {
                let finished = self.complete(failed(refused(&reason)), &[]).await;
                return Some(Over { finished, together: None, is_recorded: false });
            }
        };
        let mut running = Running::new(vec![ticket], &self.waited);
        let finished = running.ends.next().await?.finished?;
        let in_parts: BTreeSet<_> =
            came.iter().flatten().flat_map(|part| part.cases.iter().flatten()).map(id).collect();
        self.tools.learn_from_whole(&finished, &mut self.known).await;
        // Cases that are gone for good are missing from the whole run as well.
        let is_lost = why == Why::Missing && !self.known.suite.full().is_subset(&in_parts);
        if why.is_of_runner() || is_lost {
            self.tools.remember_ignoring(&mut self.known).await;
        }
        Some(Over { finished, together: None, is_recorded: true })
    }

    /// Publishes what may be published, under the whole action's own digest.
    async fn complete(&self, response: reapi::ExecuteResponse, parts: &[Came]) -> Arc<Finished> {
        let mut run = self.waited.run();
        let leased = parts.iter().map(|part| part.finished.timeline.leased).filter(|it| *it > 0);
        run.leased_at = leased.min().unwrap_or(0);
        let workers = response.result.as_ref().and_then(|it| it.execution_metadata.as_ref());
        run.worker = workers.map_or("", |it| it.worker.as_str()).into();
        run.attempts = parts.iter().map(|part| part.finished.attempts).max().unwrap_or(0);
        let outcome = Outcome::Response(Box::new(response));
        Arc::new(self.tools.completion.complete(&run, outcome).await.0)
    }
}

/// The answer for a fan-out whose result was lost to a fault of this server.
fn lost(waited: &Waited, completion: &Completion, panicked: &Panicked) -> Over {
    let operation = &waited.name;
    tracing::error!(%operation, error = %panicked, "the answer of a test in parts is lost");
    let finished = Arc::new(completion.failed(&waited.run(), &queue::Ending::Published));
    Over { finished, together: None, is_recorded: false }
}

fn together(parts: &[Came]) -> Together {
    Together {
        count: u32::try_from(parts.len()).unwrap_or(u32::MAX),
        run_ns: parts.iter().map(|part| run_ns(&part.finished.timeline)).sum(),
    }
}

fn failed(status: rpc::Status) -> reapi::ExecuteResponse {
    reapi::ExecuteResponse { status: Some(status), ..Default::default() }
}

/// The exit code and cause that the whole test has by its parts. A failure counts for more than a
/// timeout, as it does for Bazel.
struct Verdict {
    exit_code: i32,
    timed_out: bool,
    reason: Option<String>,
}

impl Verdict {
    fn of(parts: &[Came]) -> Self {
        let has = |part: &Came, late: bool| match part.ending {
            Ending::Exited(code) => !late && code != 0,
            Ending::TimedOut => late,
            Ending::NoAnswer => false,
        };
        let numbers = |late: bool| -> Vec<u32> {
            (1..).zip(parts).filter(|(_, part)| has(part, late)).map(|(number, _)| number).collect()
        };
        let (failed, late) = (numbers(false), numbers(true));
        let (chosen, word) = match (failed.first(), late.first()) {
            (Some(first), _) => (*first, "failed"),
            (None, Some(first)) => (*first, "ran into the timeout"),
            (None, None) => return Self { exit_code: 0, timed_out: false, reason: None },
        };
        let numbers = if failed.is_empty() { &late } else { &failed };
        let listed: Vec<String> = numbers.iter().map(u32::to_string).collect();
        let reason = format!("of {} shards {} {word}", parts.len(), listed.join(", "));
        let part = parts.get(chosen as usize - 1);
        Self {
            exit_code: part.map_or(1, |part| part.finished.exit_code),
            timed_out: failed.is_empty(),
            reason: Some(reason),
        }
    }
}
