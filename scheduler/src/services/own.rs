//! Actions that the server itself asks for, such as those of pipelines. Each is like one of a client: answered from the
//! cache, published, part of the journal, and counted for whoever began what it belongs to.

use std::sync::Arc;

use bytes::Bytes;
use kiln_cas::{ActionKey, Digest};
use kiln_protos::reapi;
use prost::Message;

use super::execution::{ExecuteAnswer, answer};
use crate::again::{NotRun, not_run};
use crate::api::{OperationState, Stage, StreamNames, Ticket, Unavailable, end_of};
use crate::completion::page;
use crate::job::{Finished, Request, unix_nanos};
use crate::request::{Asked, Inline};
use crate::scheduler::Scheduler;
use crate::shared::Core;

/// Operations of one action that are ended together.
const MAX_CANCELLED: usize = 100;

/// An action that the server itself wants executed, and the names under which it is recorded.
#[derive(Debug, Clone)]
pub struct OwnAction<'a> {
    pub instance: &'a str,
    pub action: Digest,
    /// The id of the invocation; this field and those up to `tool` are what a client's request
    /// metadata would say.
    pub invocation: &'a str,
    pub correlated: &'a str,
    pub target: &'a str,
    pub mnemonic: &'a str,
    pub tool: &'a str,
    /// The account that the action runs for.
    pub owner: &'a str,
}

/// How an action ended, be it without a result.
#[derive(Debug, Clone, Default)]
pub struct OwnEnd {
    /// The end's `google.rpc.Code`.
    pub code: i32,
    pub message: String,
    pub exit_code: i32,
    pub cancelled: bool,
    /// Encoded `ActionResult`; empty: there is none.
    pub result: Bytes,
}

/// An action that the server asked for: it has ended already, or goes on.
pub enum OwnRun {
    Ended(OwnEnd),
    Goes(Box<Going>),
}

/// An action that waits or runs. Dropping this counts as a client that may come back.
pub struct Going {
    ticket: Ticket,
}

/// Clones share one scheduler.
#[derive(Clone)]
pub struct OwnActions {
    core: Arc<Core>,
}

impl OwnActions {
    pub fn new(scheduler: &Scheduler) -> Self {
        Self { core: scheduler.core().clone() }
    }

    /// Finds the result of an action, joins it where it waits or runs, or adds it to the queue.
    pub async fn submit(&self, wanted: &OwnAction<'_>) -> Result<OwnRun, NotRun> {
        let asked = Asked {
            key: ActionKey { instance: wanted.instance.into(), action: wanted.action },
            priority: 0,
            request: Arc::new(request(wanted)),
            inline: Inline::default(),
        };
        let answered = answer(self.core.clone(), Arc::new(asked)).await;
        match answered.map_err(|status| not_run(status.code, status.message))? {
            ExecuteAnswer::Hit(finished) => Ok(OwnRun::Ended((&finished).into())),
            ExecuteAnswer::Queued(ticket) => Ok(OwnRun::Goes(Box::new(Going { ticket }))),
        }
    }

    /// Ends an action wherever it waits or runs. `false`: it does neither.
    pub async fn cancel(&self, instance: &str, action: &Digest) -> Result<bool, Unavailable> {
        let (instance, action) = (instance.to_owned(), *action);
        let is_it = move |state: &OperationState| {
            let key = &state.job.key;
            let goes = !matches!(state.stage, Stage::Done(_));
            goes && key.action == action && *key.instance == *instance
        };
        let found = self.core.queue.list(None, MAX_CANCELLED, &is_it).await?;
        for state in &found {
            self.core.queue.cancel(&state.name).await?;
        }
        Ok(!found.is_empty())
    }

    /// The path of an action's page, to be put behind the server's address.
    pub fn page(&self, instance: &str, action: &Digest) -> String {
        page(&ActionKey { instance: instance.into(), action: *action }, None)
    }
}

impl Going {
    /// Names of the logs in which the action's output can be read while it grows.
    pub fn streams(&self) -> StreamNames {
        self.ticket.streams.clone()
    }

    /// Waits for its end; `executes`: it runs. `None`: the server ends before.
    pub async fn end(&self, executes: impl FnMut()) -> Option<OwnEnd> {
        let (updates, request) = (self.ticket.updates.clone(), self.ticket.id.request);
        end_of(updates, request, executes).await.map(|finished| (&*finished).into())
    }
}

impl From<&Finished> for OwnEnd {
    fn from(finished: &Finished) -> Self {
        Self {
            code: finished.code,
            message: finished.message.clone(),
            exit_code: finished.exit_code,
            cancelled: finished.cancelled,
            result: finished.result.clone(),
        }
    }
}

fn request(wanted: &OwnAction<'_>) -> Request {
    let tool = reapi::ToolDetails { tool_name: wanted.tool.to_owned(), ..Default::default() };
    let metadata = reapi::RequestMetadata {
        tool_details: Some(tool),
        tool_invocation_id: wanted.invocation.to_owned(),
        correlated_invocations_id: wanted.correlated.to_owned(),
        target_id: wanted.target.to_owned(),
        action_mnemonic: wanted.mnemonic.to_owned(),
        ..Default::default()
    };
    Request {
        metadata_bytes: metadata.encode_to_vec().into(),
        metadata,
        received_at: unix_nanos(),
        skip_cache_lookup: false,
        owner: Some(wanted.owner.into()).filter(|it: &Arc<str>| !it.is_empty()),
        tools: None,
        account: wanted.owner.into(),
        base_url: None,
        rerun: None,
        shard: None,
    }
}
