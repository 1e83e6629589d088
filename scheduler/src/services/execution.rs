//! `build.bazel.remote.execution.v2.Execution`.
//!
//! What is wrong with a request before there is an operation is a gRPC error (REAPI,
//! `Execution.Execute`); whatever happens later is in `ExecuteResponse.status`, and
//! `Operation.error` is never set.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use kiln_cas::access::Right;
use kiln_cas::bazel;
use kiln_cas::services::{account_of, grpc_error};
use kiln_protos::events::execution::Origin;
use kiln_protos::longrunning::Operation;
use kiln_protos::reapi::execution_server::Execution;
use kiln_protos::reapi::{ExecuteRequest, ExecuteResponse, WaitExecutionRequest, execution_stage};
use kiln_protos::rpc;
use prost::Message;
use tonic::{Code, Request, Response, Status};

use crate::api::{Stage, Ticket, Unavailable};
use crate::completion::{Record, cached, invocation, link};
use crate::config::BaseUrl;
use crate::job::{ActionFacts, Finished, Job, unix_nanos};
use crate::presence::{Client, Watched};
use crate::request::{Asked, Caller, Inline, add_command, completed, parse, read_action};
use crate::shard::expected_ms;
use crate::shared::Core;
use crate::status::{refused, status, store_status};

use super::inline::inlined;
use super::{done, message, pending};

/// When action and cache take longer to read, the client hears that they are being read.
const CACHE_CHECK_NOTICE: Duration = Duration::from_millis(500);

pub type OperationStream = Pin<Box<dyn Stream<Item = Result<Operation, Status>> + Send>>;

#[derive(Clone)]
pub struct ExecutionService {
    pub(crate) core: Arc<Core>,
}

/// How an `Execute` goes on.
pub(super) enum ExecuteAnswer {
    Hit(Finished),
    Queued(Ticket),
}

#[tonic::async_trait]
impl Execution for ExecutionService {
    type ExecuteStream = OperationStream;
    type WaitExecutionStream = OperationStream;

    async fn execute(
        &self,
        request: Request<ExecuteRequest>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        let received_at = unix_nanos();
        let (headers, caller, request) = request.into_parts();
        let core = &self.core;
        core.guard().check(&caller, Right::Execute, &request.instance_name)?;
        let access = &core.parts.access;
        let tools = access.tools(&caller, &request.instance_name);
        let account = account_of(&**access, &caller);
        let base_url = caller.get::<BaseUrl>().map(|url| url.0.clone());
        let known = Caller { owner: access.name(&caller), tools, account, base_url };
        let asked =
            parse(&core.config, request, &headers, received_at, known).map_err(grpc_error)?;
        let asked = Arc::new(asked);
        let client = Client::new(&caller, &headers);
        let mut answer = Box::pin(answer(core.clone(), asked.clone()));
        let stream = match tokio::time::timeout(CACHE_CHECK_NOTICE, &mut answer).await {
            Ok(answer) => answered(core.clone(), &asked, client, answer.map_err(grpc_error)?),
            Err(_) => slowly_answered(core.clone(), asked, client, answer),
        };
        Ok(Response::new(stream))
    }

    async fn wait_execution(
        &self,
        request: Request<WaitExecutionRequest>,
    ) -> Result<Response<Self::WaitExecutionStream>, Status> {
        let (headers, caller, WaitExecutionRequest { name }) = request.into_parts();
        let ticket = self.core.queue.attach(&name).await.map_err(unavailable)?;
        let ticket = ticket.ok_or_else(|| unknown_operation(&name))?;
        self.core.guard().check(&caller, Right::Execute, &ticket.job.key.instance)?;
        let (client, joined) = (Client::new(&caller, &headers), false);
        Ok(Response::new(updates(self.core.clone(), ticket, client, Inline::default(), joined)))
    }
}

/// Clients answer NOT_FOUND by calling Execute again.
pub(super) fn unknown_operation(name: &str) -> Status {
    Status::not_found(format!(
        "operation {name:?} is not known: it ended long ago or belongs to an earlier server; \
         call Execute again"
    ))
}

pub(super) async fn answer(
    core: Arc<Core>,
    asked: Arc<Asked>,
) -> Result<ExecuteAnswer, rpc::Status> {
    let blobs = core.parts.blobs.as_ref();
    let mut action = read_action(&core.config, blobs, &asked.key.action).await?;
    let request = completed(&asked.request, action.named.as_ref());
    if !asked.request.skip_cache_lookup && !action.facts.do_not_cache {
        let hit = core.parts.actions.get(&asked.key).await;
        let hit = hit.map_err(|error| store_status("the action cache cannot be read", &error))?;
        if let Some(result) = hit {
            let message = link(asked.request.links_from(&core.config.base_url), &asked.key, None);
            let finished = cached(result, asked.request.received_at, &message);
            record_hit(&core, &asked, &request, &action.facts, &finished);
            return Ok(ExecuteAnswer::Hit(finished));
        }
    }
    let room = core.parts.quotas.check_room(&request.account, &asked.key.instance);
    room.map_err(|error| {
        status(Code::ResourceExhausted, format!("the action's outputs cannot be stored: {error}"))
    })?;
    // All actions of a target have its properties.
    let mnemonic = &request.metadata.action_mnemonic;
    action.shards = action.shards.filter(|_| mnemonic.is_empty() || bazel::is_test(mnemonic));
    add_command(blobs, &mut action).await;
    let metadata = &request.metadata;
    let command = action.messages.get(1).map(|it| &it[..]);
    let job = Job {
        key: asked.key.clone(),
        messages: core.lease_messages(&action.messages),
        facts: action.facts,
        priority: asked.priority,
        expected_ms: expected_ms(&core.parts, &asked.key.instance, metadata, command),
        request: request.clone(),
    };
    let submitted = core.fan_outs.submit(job, action.shards, &action.messages).await;
    let ticket = submitted.map_err(|reason| refused(&reason))?;
    core.completion.begin(&asked.key, &request);
    Ok(ExecuteAnswer::Queued(ticket))
}

pub(super) fn unavailable(error: Unavailable) -> Status {
    Status::unavailable(format!("the queue cannot be asked: {error}; try again"))
}

fn record_hit(
    core: &Core,
    asked: &Asked,
    request: &crate::job::Request,
    facts: &ActionFacts,
    finished: &Finished,
) {
    core.cache_hits.fetch_add(1, Ordering::Relaxed);
    core.completion.record(Record {
        id: core.unqueued_name(&asked.key.instance),
        key: &asked.key,
        facts,
        request,
        origin: Origin::CacheHit,
        expected_ms: 0,
        finished,
        together: None,
    });
}

fn answered(
    core: Arc<Core>,
    asked: &Asked,
    client: Client,
    answer: ExecuteAnswer,
) -> OperationStream {
    match answer {
        ExecuteAnswer::Queued(ticket) => {
            let joined = invocation(&ticket.job.request) != invocation(&asked.request);
            updates(core, ticket, client, asked.inline.clone(), joined)
        }
        ExecuteAnswer::Hit(finished) => {
            let (key, wanted) = (asked.key.clone(), asked.inline.clone());
            Box::pin(stream::once(async move {
                let blobs = core.parts.blobs.as_ref();
                let function = key.action.function;
                let response = inlined(blobs, function, &wanted, &finished.response).await;
                Ok(done(core.unqueued_name(&key.instance), &key, None, response))
            }))
        }
    }
}

/// First the notice that the cache is being checked, then the answer.
fn slowly_answered(
    core: Arc<Core>,
    asked: Arc<Asked>,
    client: Client,
    answer: impl Future<Output = Result<ExecuteAnswer, rpc::Status>> + Send + 'static,
) -> OperationStream {
    let name = core.unqueued_name(&asked.key.instance);
    let stage = execution_stage::Value::CacheCheck;
    let notice = pending(name.clone(), &asked.key, stage, None);
    let rest = async move {
        match answer.await {
            Ok(answer) => answered(core, &asked, client, answer),
            Err(status) => {
                let response = ExecuteResponse { status: Some(status), ..Default::default() };
                let operation = done(name, &asked.key, None, response.encode_to_vec());
                Box::pin(stream::iter([Ok(operation)]))
            }
        }
    };
    Box::pin(stream::iter([Ok(notice)]).chain(stream::once(rest).flatten()))
}

/// The operation now, then at every change and heartbeat, until it is done. `joined`: another
/// invocation asked for it first.
fn updates(
    core: Arc<Core>,
    ticket: Ticket,
    client: Client,
    inline: Inline,
    joined: bool,
) -> OperationStream {
    struct Watch {
        core: Arc<Core>,
        watched: Watched,
        inline: Inline,
        joined: bool,
        begun: bool,
    }
    let watched = Watched::new(core.presence.clone(), client, ticket);
    let watch = Watch { core, watched, inline, joined, begun: false };
    Box::pin(stream::unfold(Some(watch), |watch| async move {
        let mut watch = watch?;
        let heartbeat = watch.core.config.operation_heartbeat;
        let mut closed = false;
        let ticket = watch.watched.ticket()?;
        if watch.begun {
            tokio::select! {
                changed = ticket.updates.changed() => closed = changed.is_err(),
                () = tokio::time::sleep(heartbeat) => {}
            }
        }
        watch.begun = true;
        let state = ticket.state();
        match &state.stage {
            Stage::Done(finished) => {
                watch.watched.answered();
                let blobs = watch.core.parts.blobs.as_ref();
                let function = state.job.key.action.function;
                if watch.joined {
                    watch.core.completion.promise(&finished.result, function).await;
                }
                let response = inlined(blobs, function, &watch.inline, &finished.response).await;
                let operation = done(state.name, &state.job.key, Some(&state.streams), response);
                Some((Ok(operation), None))
            }
            _ if closed => {
                watch.watched.answered();
                let status = Status::unavailable("this server is shutting down; execute again");
                Some((Err(status), None))
            }
            _ => Some((Ok(message(state)), Some(watch))),
        }
    }))
}
