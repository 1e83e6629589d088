//! The end of an execution: durable blobs, the action cache, the answer, the event.

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use kiln_cas::promises::on_behalf;
use kiln_cas::stores::{ClosureError, closure};
use kiln_cas::{BlobStore, Digest, DigestFunction, bazel};
use kiln_net::urls::path;
use kiln_protos::events::{self, Execution, execution::Origin};
use kiln_protos::protobuf::Timestamp;
use kiln_protos::rpc::Status;
use kiln_protos::{reapi, worker};
use prost::Message;
use tonic::Code;

use crate::config::Parts;
use crate::job::{ActionFacts, Finished, Outcome, Request, Run, UnixNanos, unix_nanos};
use crate::journal::{STAGES, take_worker_times};
use crate::queue::Ending;
use crate::services::status::{missing_blobs, status, store_status};

const NANOS: i64 = 1_000_000_000;
/// Of a success whose outputs are over a quota.
const OVER_QUOTA_EXIT_CODE: i32 = 1;
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

    /// Publishes what may be published and makes the answer. A result is in the action cache
    /// only after all its blobs are durable.
    pub async fn complete(&self, run: &Run, outcome: Outcome) -> Finished {
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
        if let Err(status) = self.publish(run, &response).await {
            let (action, error) = (&run.job.key.action, &status.message);
            tracing::error!(%action, error, "a result was not published");
            response = failure(status);
        }
        self.explain(run, &mut response).await;
        self.finished(run, response, reason)
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

    async fn publish(&self, run: &Run, response: &reapi::ExecuteResponse) -> Result<(), Status> {
        let ok = response.status.as_ref().is_none_or(|status| status.code == 0);
        let Some(result) = &response.result else { return Ok(()) };
        // What the worker has to say about a result is about this run, and not for the next build.
        let remarked = !response.message.is_empty();
        if !ok || remarked || result.exit_code != 0 || run.job.facts.do_not_cache {
            return Ok(());
        }
        self.promise_outputs(run, result).await?;
        let not_durable = |error| store_status("the result could not be made durable", &error);
        self.parts.blobs.sync().await.map_err(not_durable)?;
        let put = self.parts.actions.put(&run.job.key, result.encode_to_vec().into());
        put.await.map_err(not_durable)
    }

    /// The worker may have stored its outputs through another frontend. Where they are asked
    /// for, `sync` answers for them here as well, and what never came is found before anybody
    /// relies on it.
    async fn promise_outputs(&self, run: &Run, result: &reapi::ActionResult) -> Result<(), Status> {
        let blobs = &*self.parts.blobs;
        let present = self.parts.invocations.begin(invocation(&run.job.request));
        let missing = match closure(result, run.job.key.action.function, blobs).await {
            Ok(outputs) => on_behalf(present.as_ref(), blobs.find_missing(&outputs)).await,
            Err(ClosureError::Missing(tree)) => Ok(vec![tree]),
            Err(ClosureError::Store(error)) => Err(error),
            Err(error) => {
                let message = format!("the worker's result is not valid: {error}");
                return Err(status(Code::Internal, message));
            }
        };
        let missing =
            missing.map_err(|error| store_status("the outputs could not be looked up", &error))?;
        match missing.first() {
            None => Ok(()),
            Some(first) => Err(lost_outputs(missing.len(), first)),
        }
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

    /// For whoever has to find out why: a link and, after a failure, a log.
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

    /// Some clients show the response's message, some only that of its status.
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
            Ending::Published => status(Code::Internal, "the answer of the worker was lost"),
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
        Finished { cancelled, ..self.finished(run, response, reason) }
    }

    fn link(&self, run: &Run) -> String {
        let base_url = run.job.request.links_from(&self.base_url);
        link(base_url, &run.job.key, Some(&run.operation))
    }

    /// `message`: why it failed, without a link.
    fn finished(
        &self,
        run: &Run,
        mut response: reapi::ExecuteResponse,
        message: String,
    ) -> Finished {
        let code = response.status.as_ref().map_or(0, |status| status.code);
        if answers_outcomes_only(run) && response.result.is_some() {
            response.status = None;
        }
        let result = response.result.as_ref();
        let metadata = result.and_then(|result| result.execution_metadata.as_ref());
        Finished {
            code,
            message,
            exit_code: result.map_or(0, |result| result.exit_code),
            result: result.map(|result| result.encode_to_vec().into()).unwrap_or_default(),
            timeline: timeline(run, metadata),
            worker: run.worker.clone(),
            attempts: run.attempts,
            response: response.encode_to_vec().into(),
            cancelled: false,
        }
    }

    /// Tells subscribers that a request waits or runs from now on.
    pub fn begin(&self, key: &kiln_cas::ActionKey, request: &Request) {
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

/// One request's end.
pub struct Record<'a> {
    pub id: String,
    pub key: &'a kiln_cas::ActionKey,
    pub facts: &'a ActionFacts,
    pub request: &'a Request,
    pub origin: Origin,
    pub expected_ms: u64,
    pub finished: &'a Finished,
}

impl Record<'_> {
    fn into_event(self) -> Execution {
        let Self { key, facts, request, finished, .. } = self;
        let metadata = &request.metadata;
        let tool = metadata.tool_details.clone().unwrap_or_default();
        let mut timeline = finished.timeline;
        timeline.received = request.received_at;
        let property = |(name, value): &(String, String)| events::Property {
            name: name.clone(),
            value: value.clone(),
        };
        Execution {
            id: self.id,
            instance_name: key.instance.to_string(),
            origin: self.origin as i32,
            digest_function: key.action.function.to_wire() as i32,
            action: Some(event_digest(&key.action)),
            command: Some(event_digest(&facts.command)),
            input_root: Some(event_digest(&facts.input_root)),
            invocation_id: metadata.tool_invocation_id.clone(),
            correlated_invocations_id: metadata.correlated_invocations_id.clone(),
            target_id: metadata.target_id.clone(),
            mnemonic: mnemonic(metadata, finished),
            configuration_id: metadata.configuration_id.clone(),
            tool_name: tool.tool_name,
            tool_version: tool.tool_version,
            worker: finished.worker.to_string(),
            attempts: finished.attempts,
            status_code: finished.code,
            status_message: finished.message.clone(),
            exit_code: finished.exit_code,
            timeline: Some(timeline),
            action_result: finished.result.clone(),
            do_not_cache: facts.do_not_cache,
            skip_cache_lookup: request.skip_cache_lookup,
            platform: facts.platform.pairs().iter().map(property).collect(),
            expected_ms: self.expected_ms,
            cancelled: finished.cancelled,
        }
    }
}

/// As the client calls it, where it calls no two things so.
fn mnemonic(metadata: &reapi::RequestMetadata, finished: &Finished) -> String {
    let given = &metadata.action_mnemonic;
    let told_apart = || {
        let result = reapi::ActionResult::decode(finished.result.clone()).ok()?;
        bazel::tell_apart(given, &result)
    };
    let found = if bazel::is_test(given) { told_apart() } else { None };
    found.map_or_else(|| given.clone(), str::to_owned)
}

fn event_digest(digest: &kiln_cas::Digest) -> events::Digest {
    events::Digest { hash: digest.hex(), size_bytes: digest.size as i64 }
}

/// The id of the invocation that a request belongs to, as promises are attributed to it.
pub fn invocation(request: &Request) -> &[u8] {
    request.metadata.tool_invocation_id.as_bytes()
}

/// Clients try again what is unavailable.
fn lost_outputs(count: usize, first: &Digest) -> Status {
    let message = format!(
        "outputs of the action are not in the store ({count}, among them {first}); execute it again"
    );
    status(Code::Unavailable, message)
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
    stored
        .filter_map(|any| worker::Stored::decode(&*any.value).ok())
        .map(|stored| stored.bytes)
        .sum()
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

/// `{base_url}/actions/{function}/{hash}/{size}?instance=…&operation=…`; empty without base.
pub(crate) fn link(base_url: &str, key: &kiln_cas::ActionKey, operation: Option<&str>) -> String {
    if base_url.is_empty() {
        return String::new();
    }
    let action = &key.action;
    let mut url = format!(
        "{base_url}/actions/{}/{}/{}?instance={}",
        action.function,
        action.hex(),
        action.size,
        path(&key.instance)
    );
    if let Some(operation) = operation {
        // Writing to a String cannot fail.
        let _ = write!(url, "&operation={}", path(operation));
    }
    url
}

fn append_link(message: &mut String, link: &str) {
    if !message.is_empty() && !link.is_empty() {
        message.push('\n');
    }
    message.push_str(link);
}

pub(crate) fn timestamp(nanos: UnixNanos) -> Timestamp {
    Timestamp { seconds: nanos.div_euclid(NANOS), nanos: nanos.rem_euclid(NANOS) as i32 }
}

/// A non-empty `worker` means to clients that every timestamp is set. What the worker left
/// open is taken from the step before.
fn fill_metadata(metadata: &mut reapi::ExecutedActionMetadata, run: &Run) {
    if metadata.worker.is_empty() {
        metadata.worker = run.worker.to_string();
    }
    metadata.queued_timestamp = Some(timestamp(run.queued_at));
    let end = *metadata.worker_completed_timestamp.get_or_insert_with(|| timestamp(unix_nanos()));
    let mut last = *metadata.worker_start_timestamp.get_or_insert(timestamp(run.leased_at));
    for step in [
        &mut metadata.input_fetch_start_timestamp,
        &mut metadata.input_fetch_completed_timestamp,
        &mut metadata.execution_start_timestamp,
    ] {
        last = *step.get_or_insert(last);
    }
    let mut next = end;
    for step in [
        &mut metadata.output_upload_completed_timestamp,
        &mut metadata.output_upload_start_timestamp,
        &mut metadata.execution_completed_timestamp,
    ] {
        next = *step.get_or_insert(next);
    }
}

fn timeline(run: &Run, metadata: Option<&reapi::ExecutedActionMetadata>) -> events::Timeline {
    let mut timeline = events::Timeline {
        received: run.job.request.received_at,
        queued: run.queued_at,
        leased: run.leased_at,
        finished: unix_nanos(),
        ..Default::default()
    };
    if let Some(metadata) = metadata {
        take_worker_times(&mut timeline, metadata);
    }
    timeline
}

/// What people want to know about a failed action, as plain text.
fn describe(run: &Run, response: &reapi::ExecuteResponse) -> String {
    let mut text = format!("operation: {}\naction: {}\n", run.operation, run.job.key.action);
    let request = &run.job.request.metadata;
    for (name, value) in [
        ("target", request.target_id.as_str()),
        ("mnemonic", &request.action_mnemonic),
        ("worker", &run.worker),
    ] {
        if !value.is_empty() {
            let _ = writeln!(text, "{name}: {value}");
        }
    }
    let _ = writeln!(text, "attempts: {}", run.attempts);
    if let Some(status) = response.status.as_ref().filter(|status| status.code != 0) {
        let _ = writeln!(text, "status: {:?}: {}", Code::from_i32(status.code), status.message);
    }
    if let Some(result) = &response.result {
        let _ = writeln!(text, "exit code: {}", result.exit_code);
    }
    let metadata = response.result.as_ref().and_then(|result| result.execution_metadata.as_ref());
    let line = timeline(run, metadata);
    for stage in STAGES {
        if let Some((start, end)) = stage.span(&line) {
            let _ = writeln!(text, "{}: {:.3} ms", stage.words(), (end - start) as f64 / 1e6);
        }
    }
    text
}

/// An action-cache hit as an answer, without decoding the result.
pub(crate) fn cached(result: Bytes, received_at: UnixNanos, message: &str) -> Finished {
    use prost::encoding::{bool, bytes, string};
    let mut response = Vec::with_capacity(result.len() + message.len() + 16);
    bytes::encode(1, &result, &mut response);
    bool::encode(2, &true, &mut response);
    if !message.is_empty() {
        string::encode(5, &message.to_owned(), &mut response);
    }
    let timeline =
        events::Timeline { received: received_at, finished: unix_nanos(), ..Default::default() };
    Finished { response: response.into(), result, timeline, ..Default::default() }
}

pub type SharedCompletion = Arc<Completion>;
