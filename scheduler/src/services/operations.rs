//! The gRPC service `google.longrunning.Operations`.

use std::sync::Arc;
use std::time::Duration;

use kiln_cas::access::Right;
use kiln_protos::longrunning::operations_server::Operations;
use kiln_protos::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest,
    ListOperationsResponse, Operation, WaitOperationRequest,
};
use kiln_protos::protobuf::Empty;
use tonic::{Extensions, Request, Response, Status};

use crate::api::{OperationState, Stage};
use crate::queue::{OperationId, TaskId};
use crate::shared::Core;

use super::execution::{unavailable, unknown_operation};
use super::message;

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
/// How long `WaitOperation` waits at most; it may answer early by its definition.
const MAX_WAIT: Duration = Duration::from_secs(3600);

#[derive(Clone)]
pub struct OperationsService {
    pub(crate) core: Arc<Core>,
}

impl OperationsService {
    async fn find(&self, name: &str) -> Result<OperationState, Status> {
        let state = self.core.queue.find(name).await.map_err(unavailable)?;
        state.ok_or_else(|| unknown_operation(name))
    }

    /// Refuses callers who may not end the operation: everybody may end their own, administrators
    /// those of others.
    fn check_may_end(&self, caller: &Extensions, state: &OperationState) -> Result<(), Status> {
        let name = self.core.parts.access.name(caller);
        let right = match name.is_some() && name == state.owner {
            true => Right::Execute,
            false => Right::Administer,
        };
        self.core.guard().check(caller, right, &state.job.key.instance)
    }
}

#[tonic::async_trait]
impl Operations for OperationsService {
    async fn list_operations(
        &self,
        request: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        let (_, caller, request) = request.into_parts();
        let filter = Filter::parse(&request.name, &request.filter)?;
        let after = parse_token(&request.page_token)?;
        let limit = match usize::try_from(request.page_size) {
            Ok(0) => DEFAULT_PAGE,
            Ok(size) => size.min(MAX_PAGE),
            Err(_) => return Err(Status::invalid_argument("page_size is negative")),
        };
        let access = self.core.parts.access.clone();
        let visible = move |state: &OperationState| {
            filter.matches(state) && access.allows(&caller, Right::Read, &state.job.key.instance)
        };
        let found = self.core.queue.list(after, limit, &visible).await;
        let found = found.map_err(unavailable)?;
        let full = found.len() == limit;
        let last = found.last().filter(|_| full);
        let next_page_token =
            last.map(|last| format!("{}.{}", last.id.task.0, last.id.request)).unwrap_or_default();
        Ok(Response::new(ListOperationsResponse {
            operations: found.into_iter().map(message).collect(),
            next_page_token,
            unreachable: Vec::new(),
        }))
    }

    async fn get_operation(
        &self,
        request: Request<GetOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        let (_, caller, GetOperationRequest { name }) = request.into_parts();
        let state = self.find(&name).await?;
        self.core.guard().check(&caller, Right::Read, &state.job.key.instance)?;
        Ok(Response::new(message(state)))
    }

    async fn delete_operation(
        &self,
        request: Request<DeleteOperationRequest>,
    ) -> Result<Response<Empty>, Status> {
        let (_, caller, DeleteOperationRequest { name }) = request.into_parts();
        self.check_may_end(&caller, &self.find(&name).await?)?;
        let known = self.core.queue.forget(&name).await.map_err(unavailable)?;
        if known { Ok(Response::new(Empty {})) } else { Err(unknown_operation(&name)) }
    }

    async fn cancel_operation(
        &self,
        request: Request<CancelOperationRequest>,
    ) -> Result<Response<Empty>, Status> {
        let (_, caller, CancelOperationRequest { name }) = request.into_parts();
        self.check_may_end(&caller, &self.find(&name).await?)?;
        let known = self.core.queue.cancel(&name).await.map_err(unavailable)?;
        if known { Ok(Response::new(Empty {})) } else { Err(unknown_operation(&name)) }
    }

    async fn wait_operation(
        &self,
        request: Request<WaitOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        let (_, caller, WaitOperationRequest { name, timeout }) = request.into_parts();
        let ticket = self.core.queue.attach(&name).await.map_err(unavailable)?;
        let mut ticket = ticket.ok_or_else(|| unknown_operation(&name))?;
        self.core.guard().check(&caller, Right::Read, &ticket.job.key.instance)?;
        let timeout = timeout.map_or(MAX_WAIT, |timeout| {
            let seconds = u64::try_from(timeout.seconds).unwrap_or(0);
            let nanos = u32::try_from(timeout.nanos).unwrap_or(0).min(999_999_999);
            Duration::new(seconds, nanos).min(MAX_WAIT)
        });
        let request = ticket.id.request;
        let is_done =
            |update: &crate::api::Update| matches!(update.stage_of(request), Stage::Done(_));
        // At the timeout, or when the server shuts down, the latest state is the answer.
        let _ = tokio::time::timeout(timeout, ticket.updates.wait_for(is_done)).await;
        Ok(Response::new(message(ticket.state())))
    }
}

fn parse_token(token: &str) -> Result<Option<OperationId>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let parts = token.split_once('.');
    let id = parts.and_then(|(task, request)| Some((task.parse().ok()?, request.parse().ok()?)));
    let (task, request) =
        id.ok_or_else(|| Status::invalid_argument("page_token is not one that was given out"))?;
    Ok(Some(OperationId { task: TaskId(task), request }))
}

/// `field=value` terms joined by `AND`; all must hold.
#[derive(Default)]
struct Filter {
    instance: Option<String>,
    stage: Option<String>,
    done: Option<bool>,
    target: Option<String>,
    mnemonic: Option<String>,
    invocation: Option<String>,
}

const FIELDS: &str = "instance, stage, done, target, mnemonic and invocation";

impl Filter {
    /// `parent`: `{instance}/operations`, or nothing for all instances.
    fn parse(parent: &str, text: &str) -> Result<Self, Status> {
        let mut filter = Self::default();
        if let Some(front) = parent.strip_suffix("operations") {
            filter.instance = Some(front.trim_end_matches('/').to_owned());
        } else if !parent.is_empty() {
            return Err(Status::invalid_argument(format!(
                "name {parent:?} is neither empty nor of the form [{{instance}}/]operations"
            )));
        }
        let terms = text.split(" AND ").map(str::trim).filter(|term| !term.is_empty());
        for term in terms {
            let (field, value) = term.split_once('=').ok_or_else(|| unknown_term(term))?;
            filter
                .set(field.trim(), value.trim().trim_matches('"'))
                .ok_or_else(|| unknown_term(term))?;
        }
        Ok(filter)
    }

    fn set(&mut self, field: &str, value: &str) -> Option<()> {
        let text = match field {
            "done" => {
                self.done = Some(value.parse().ok()?);
                return Some(());
            }
            "instance" => &mut self.instance,
            "stage" => &mut self.stage,
            "target" => &mut self.target,
            "mnemonic" => &mut self.mnemonic,
            "invocation" => &mut self.invocation,
            _ => return None,
        };
        *text = Some(value.to_owned());
        Some(())
    }

    fn matches(&self, state: &OperationState) -> bool {
        let holds = |wanted: &Option<String>, actual: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == actual)
        };
        let metadata = &state.job.request.metadata;
        let (stage, done) = match state.stage {
            Stage::Queued => ("QUEUED", false),
            Stage::Executing => ("EXECUTING", false),
            Stage::Done(_) => ("COMPLETED", true),
        };
        holds(&self.instance, &state.job.key.instance)
            && holds(&self.stage, stage)
            && self.done.is_none_or(|wanted| wanted == done)
            && holds(&self.target, &metadata.target_id)
            && holds(&self.mnemonic, &metadata.action_mnemonic)
            && holds(&self.invocation, &metadata.tool_invocation_id)
    }
}

fn unknown_term(term: &str) -> Status {
    Status::invalid_argument(format!(
        "filter: {term:?} is not of the form field=value with a field among {FIELDS}; \
         join several with AND"
    ))
}
