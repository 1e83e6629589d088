//! The end of an execution: durable blobs, the action cache, the answer, the event.

mod answer;
mod explain;
mod publication;
mod record;
mod timeline;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_cas::stores::closure;
use kiln_cas::{ActionKey, BlobStore, Digest, DigestFunction};
use kiln_net::counts::duration;
use kiln_net::panics::caught;
use kiln_protos::rpc::Status;
use kiln_protos::{events, reapi, worker};
use prost::Message;
use tonic::Code;

pub(crate) use self::answer::cached;
use self::explain::{append_link, describe};
pub(crate) use self::explain::{link, page};
use self::publication::Publication;
pub use self::publication::invocation;
pub(crate) use self::record::event_digest;
pub use self::record::{Record, Together};
use self::timeline::{fill_metadata, timeline};
use crate::config::Parts;
use crate::job::{Finished, Job, Outcome, Request, Run};
use crate::queue::Ending;
use crate::status::{missing_blobs, status};

/// The exit code that a client reads where an action succeeded but its outputs are over a quota.
const OVER_QUOTA_EXIT_CODE: i32 = 1;
/// Bytes that are believed of one action: no worker collects more outputs.
const MAX_STORED: u64 = 1 << 44;
/// How long it may take to make an answer durable: the slowest store that works has long ended.
const COMPLETED_WITHIN: Duration = Duration::from_secs(15 * 60);
const TIMELINE_LOG: &str = "kiln: where and when the action ran";

pub struct Completion {
    parts: Parts,
    base_url: String,
}

impl Completion {
    pub fn new(parts: Parts, base_url: String) -> Self {
        Self { parts, base_url }
    }

    pub fn blobs(&self) -> &dyn BlobStore {
        &*self.parts.blobs
    }

    /// Publishes what may be published and makes the answer, which comes whatever becomes of the store: after
    /// [`COMPLETED_WITHIN`], or a fault of the server, it is that the worker's is lost. `None`: nothing was published.
    pub async fn complete(&self, run: &Run, outcome: Outcome) -> (Finished, Option<Publication>) {
        let completed = tokio::time::timeout(COMPLETED_WITHIN, self.published(run, outcome));
        let error = match caught(completed).await {
            Ok(Ok(finished)) => return finished,
            Ok(Err(_)) => format!("the store did not answer within {}", duration(COMPLETED_WITHIN)),
            Err(panicked) => panicked.to_string(),
        };
        tracing::error!(action = %run.job.key.action, error, "a worker's answer is lost");
        (self.failed(run, &Ending::Published), None)
    }

    /// A result is in the action cache only after all its blobs are durable.
    async fn published(&self, run: &Run, outcome: Outcome) -> (Finished, Option<Publication>) {
        let mut response = match outcome {
            Outcome::Response(response) => *response,
            Outcome::MissingInputs { message, missing } => {
                failure(missing_inputs(run, message, &missing))
            }
            Outcome::InvalidAction(message) => failure(status(Code::InvalidArgument, message)),
            Outcome::StoreFull(message) => failure(status(Code::ResourceExhausted, message)),
        };
        response.cached_result = false;
        self.count_outputs(run, &mut response).await;
        let reason = reason(&response);
        if let Some(result) = &mut response.result {
            fill_metadata(result.execution_metadata.get_or_insert_default(), run);
        }
        let mut result = response.result.as_ref().map(|result| result.encode_to_vec().into());
        let published = self.publish(run, &response, result.as_ref()).await;
        let publication = published.unwrap_or_else(|status| {
            let (action, error) = (&run.job.key.action, &status.message);
            tracing::error!(%action, error, "a result was not published");
            (response, result) = (failure(status), None);
            None
        });
        self.explain(run, &mut response).await;
        (self.finished(run, response, result, reason), publication)
    }

    /// What the store keeps for the action counts for whoever asked first. A success that is over a quota
    /// is a failure of the action: its outputs are not named, so that nothing relies on them.
    async fn count_outputs(&self, run: &Run, response: &mut reapi::ExecuteResponse) {
        let Some(result) = &mut response.result else { return };
        let stored = take_stored(result);
        let account = &run.job.request.account;
        if account.is_empty() {
            return;
        }
        let Err(error) = self.parts.quotas.charge(account, &run.job.key.instance, stored) else {
            return;
        };
        let failed = response.status.as_ref().is_some_and(|status| status.code != 0);
        if failed || result.exit_code != 0 {
            return;
        }
        response.message = format!("the outputs are not taken: {error}");
        *result = reapi::ActionResult {
            exit_code: OVER_QUOTA_EXIT_CODE,
            stdout_raw: std::mem::take(&mut result.stdout_raw),
            stdout_digest: result.stdout_digest.take(),
            stderr_raw: std::mem::take(&mut result.stderr_raw),
            stderr_digest: result.stderr_digest.take(),
            execution_metadata: result.execution_metadata.take(),
            ..Default::default()
        };
        self.note(run, result, &response.message).await;
    }

    /// Adds the reason to the action's stderr, where all of that is at hand: some clients show nothing else.
    async fn note(&self, run: &Run, result: &mut reapi::ActionResult, reason: &str) {
        let size = result.stderr_digest.as_ref().map_or(0, |digest| digest.size_bytes);
        if usize::try_from(size) != Ok(result.stderr_raw.len()) {
            return;
        }
        let mut text = result.stderr_raw.clone();
        text.extend_from_slice(format!("kiln: {reason}\n").as_bytes());
        let text = Bytes::from(text);
        let digest = run.job.key.action.function.digest(&text);
        if self.parts.blobs.write(&digest, text.clone()).await.is_ok() {
            result.stderr_digest = Some(digest.to_wire());
            result.stderr_raw = text.into();
        }
    }

    /// `encoded`: the response's result. `None`: it is for nobody but those who wait for it.
    async fn publish(
        &self,
        run: &Run,
        response: &reapi::ExecuteResponse,
        encoded: Option<&Bytes>,
    ) -> Result<Option<Publication>, Status> {
        let ok = response.status.as_ref().is_none_or(|status| status.code == 0);
        let (Some(result), Some(encoded)) = (&response.result, encoded) else { return Ok(None) };
        // What the worker has to say about a result is about this run, and not for the next build.
        let remarked = !response.message.is_empty();
        let Job { facts, request, .. } = &*run.job;
        let is_for_nobody = facts.do_not_cache || request.shard.is_some();
        if !ok || remarked || result.exit_code != 0 || is_for_nobody {
            return Ok(None);
        }
        publication::publish(&self.parts, run, result, encoded).await.map(Some)
    }

    /// Call it when the answer was given that came with a publication: publishes the result once more where
    /// the action cache may have lost it meanwhile.
    pub async fn keep(&self, run: &Run, answer: &Finished, publication: Option<Publication>) {
        let Some(publication) = publication else { return };
        let kept = publication::keep(&self.parts, run, &answer.result, &publication);
        let error = match caught(tokio::time::timeout(COMPLETED_WITHIN, kept)).await {
            Ok(Ok(())) => return,
            Ok(Err(_)) => format!("the store did not answer within {}", duration(COMPLETED_WITHIN)),
            Err(panicked) => panicked.to_string(),
        };
        tracing::warn!(action = %run.job.key.action, error, "a result may be lost");
    }

    /// Promises what a result names to whom this task answers, who joined an action of another
    /// invocation. What is not there any more, the client finds out.
    pub async fn promise(&self, result: &Bytes, function: DigestFunction) {
        let blobs = &*self.parts.blobs;
        let Ok(result) = reapi::ActionResult::decode(result.clone()) else { return };
        if let Ok(outputs) = closure(&result, function, blobs).await
            && let Err(error) = blobs.find_missing(&outputs).await
        {
            tracing::debug!(%error, "outputs were not promised to all who waited for them");
        }
    }

    /// Adds what helps people to find out why an action ended so: a link and, after a failure, a
    /// log.
    async fn explain(&self, run: &Run, response: &mut reapi::ExecuteResponse) {
        let code = response.status.as_ref().map_or(0, |status| status.code);
        let exit_code = response.result.as_ref().map_or(0, |result| result.exit_code);
        if code != 0 || exit_code != 0 {
            let text = Bytes::from(describe(run, response));
            let digest = run.job.key.action.function.digest(&text);
            if self.parts.blobs.write(&digest, text).await.is_ok() {
                let log = reapi::LogFile { digest: Some(digest.to_wire()), human_readable: true };
                response.server_logs.insert(TIMELINE_LOG.to_owned(), log);
            }
        }
        self.add_link(run, response);
    }

    /// Appends the link to the response's message and to that of its error: some clients show only
    /// one of these.
    fn add_link(&self, run: &Run, response: &mut reapi::ExecuteResponse) {
        let link = self.link(run);
        append_link(&mut response.message, &link);
        if let Some(status) = response.status.as_mut().filter(|status| status.code != 0) {
            append_link(&mut status.message, &link);
        }
    }

    /// The answer to a task that ended without one from a worker.
    pub fn failed(&self, run: &Run, ending: &Ending) -> Finished {
        let status = match ending {
            Ending::Published => status(
                Code::Internal,
                "the answer of the worker was lost; execute it again; the log of the server says more",
            ),
            Ending::Cancelled => status(Code::Cancelled, "the operation was cancelled"),
            // Whoever hears this did wait, or is back.
            Ending::NobodyWaits => status(
                Code::Unavailable,
                "stopped because no client waited for it any more; execute it again",
            ),
            Ending::Unsatisfiable(reason) => status(
                Code::FailedPrecondition,
                format!(
                    "the action can run nowhere: {reason}; correct its platform properties or add a worker"
                ),
            ),
            Ending::WorkersPaused(reasons) => status(
                Code::Unavailable,
                format!(
                    "all workers that could run the action have paused ({reasons}); mend one, or add another"
                ),
            ),
            Ending::RetriesExhausted { attempts, last } => status(
                Code::Internal,
                format!(
                    "the action was tried {attempts} times and no worker could run it; at last: {last}; the logs of its workers may say more"
                ),
            ),
            Ending::Poison { workers } => status(
                Code::FailedPrecondition,
                format!(
                    "{} workers were lost while they ran this action ({}): it is not tried again; look for what it does to its machine",
                    workers.len(),
                    workers.join(", ")
                ),
            ),
        };
        let mut response = failure(status);
        let reason = reason(&response);
        self.add_link(run, &mut response);
        let cancelled = matches!(ending, Ending::Cancelled | Ending::NobodyWaits);
        Finished { cancelled, ..self.finished(run, response, None, reason) }
    }

    fn link(&self, run: &Run) -> String {
        let base_url = run.job.request.links_from(&self.base_url);
        link(base_url, &run.job.key, Some(&run.operation))
    }

    /// `result`: the response's, encoded. `message`: why it failed, without a link.
    fn finished(
        &self,
        run: &Run,
        mut response: reapi::ExecuteResponse,
        result: Option<Bytes>,
        message: String,
    ) -> Finished {
        let code = response.status.as_ref().map_or(0, |status| status.code);
        if answers_outcomes_only(run) && response.result.is_some() {
            response.status = None;
        }
        let decoded = response.result.take();
        let metadata = decoded.as_ref().and_then(|result| result.execution_metadata.as_ref());
        Finished {
            code,
            message,
            exit_code: decoded.as_ref().map_or(0, |result| result.exit_code),
            timeline: timeline(run, metadata),
            worker: run.worker.clone(),
            attempts: run.attempts,
            response: answer::encode(result.as_ref(), &response),
            result: result.unwrap_or_default(),
            cancelled: false,
        }
    }

    /// Tells subscribers that a request waits or runs from now on.
    pub fn begin(&self, key: &ActionKey, request: &Request) {
        let metadata = &request.metadata;
        let tool = metadata.tool_details.clone().unwrap_or_default();
        self.parts.events.begin(events::Begun {
            invocation_id: metadata.tool_invocation_id.clone(),
            correlated_invocations_id: metadata.correlated_invocations_id.clone(),
            tool_name: tool.tool_name,
            tool_version: tool.tool_version,
            instance_name: key.instance.to_string(),
            at: request.received_at,
            last_at: request.received_at,
            requests: 1,
            missed: 0,
            mnemonic: metadata.action_mnemonic.clone(),
        });
    }

    /// Tells subscribers how one request ended. Runs of the hermeticity check are no part of any build.
    pub fn record(&self, record: Record<'_>) {
        if record.request.rerun.is_some() {
            return;
        }
        self.parts.events.publish(record.into_event());
    }
}

fn missing_inputs(run: &Run, message: String, missing: &[worker::Digest]) -> Status {
    let function = run.job.key.action.function;
    let parse = |digest: &worker::Digest| {
        Digest::from_hex(digest.hash.as_bytes(), u64::try_from(digest.size_bytes).ok()?, function)
            .ok()
    };
    let digests: Vec<Digest> = missing.iter().filter_map(parse).collect();
    if digests.is_empty() {
        status(Code::FailedPrecondition, message)
    } else {
        missing_blobs(&digests)
    }
}

/// Takes out what the worker says of the bytes that it stored: it is for nobody else.
fn take_stored(result: &mut reapi::ActionResult) -> u64 {
    let Some(metadata) = &mut result.execution_metadata else { return 0 };
    let stored = metadata.auxiliary_metadata.extract_if(.., |any| any.type_url == worker::STORED);
    let stored = stored.filter_map(|any| worker::Stored::decode(&*any.value).ok());
    stored.fold(0_u64, |sum, stored| sum.saturating_add(stored.bytes)).min(MAX_STORED)
}

/// Why it failed, where its own output does not say so.
fn reason(response: &reapi::ExecuteResponse) -> String {
    let status = response.status.as_ref().filter(|status| status.code != 0);
    status.map_or_else(|| response.message.clone(), |status| status.message.clone())
}

/// Buck2 takes every status for an error of the infrastructure and looks at no result beside one. The
/// specification has an action's timeout as a status, which Bazel needs; Buck2 is told by the exit code.
fn answers_outcomes_only(run: &Run) -> bool {
    let tool = run.job.request.metadata.tool_details.as_ref();
    tool.is_some_and(|tool| tool.tool_name == "buck2")
}

fn failure(status: Status) -> reapi::ExecuteResponse {
    reapi::ExecuteResponse { status: Some(status), ..Default::default() }
}

pub type SharedCompletion = Arc<Completion>;
