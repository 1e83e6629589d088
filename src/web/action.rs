//! What is known of one action, from the store, the action cache and the journal.

use kiln_cas::{Digest, DigestFunction, StoreError};
use kiln_protos::events::execution::Origin;
use kiln_protos::reapi;
use kiln_scheduler::journal::{Earlier, Entry, Page, Query, outputs_of};
use prost::Message;
use serde::Deserialize;

use super::WebState;
use super::content::{MAX_MESSAGE, MAX_TEXT, digest};
use super::error::WebError;

/// Runs that are listed.
const RUNS: usize = 12;

#[derive(Deserialize, Default)]
pub struct Options {
    #[serde(default)]
    instance: String,
    /// Name of the operation; empty: the last run.
    #[serde(default)]
    operation: String,
}

/// A part that cannot be read says why.
pub struct Loaded {
    pub digest: Digest,
    pub instance: String,
    pub action: Result<reapi::Action, StoreError>,
    pub command: Result<reapi::Command, StoreError>,
    pub input_root: Result<(Digest, reapi::Directory), StoreError>,
    /// The run that is shown; `None`: the journal knows none.
    pub run: Option<Entry>,
    pub result: Option<reapi::ActionResult>,
    pub is_cached: bool,
    pub runs: Vec<Entry>,
    pub target_runs: Vec<Entry>,
    /// The last run of the same target and mnemonic, where this one missed the cache.
    pub compared: Option<Entry>,
}

pub async fn load(state: &WebState, digest: Digest, options: Options) -> Result<Loaded, WebError> {
    let runs = state.journal.executions(&Query::Action(digest), Page::first(RUNS)).await?;
    let named = match options.operation.as_str() {
        "" => None,
        operation => state.journal.execution(operation).await?,
    };
    let run = named.or_else(|| runs.first().cloned());
    let instance = match &run {
        Some(run) if options.instance.is_empty() => run.execution.instance_name.clone(),
        _ => options.instance,
    };
    let action: Result<reapi::Action, _> = state.message(&digest, MAX_MESSAGE).await;
    let (command, input_root) = match &action {
        Ok(action) => (
            message_at(state, action.command_digest.as_ref(), digest).await.map(|found| found.1),
            message_at(state, action.input_root_digest.as_ref(), digest).await,
        ),
        Err(error) => (Err(error.clone()), Err(error.clone())),
    };
    if action.is_err() && run.is_none() {
        let hint = "Neither the store nor the journal has it: it was never executed here, or \
                    is older than what is kept.";
        return Err(WebError::not_found(format!("nothing is known of action {digest}"), hint));
    }
    let cached = state.cached(&instance, &digest).await;
    let is_cached = cached.is_some();
    let result = run.as_ref().and_then(own_result).or(cached);
    let (target_runs, compared) = related(state, run.as_ref(), &digest).await?;
    Ok(Loaded {
        digest,
        instance,
        action,
        command,
        input_root,
        run,
        result,
        is_cached,
        runs,
        target_runs,
        compared,
    })
}

fn own_result(run: &Entry) -> Option<reapi::ActionResult> {
    let encoded = &run.execution.action_result;
    if encoded.is_empty() {
        return None;
    }
    reapi::ActionResult::decode(encoded.clone()).ok()
}

async fn message_at<M: Message + Default>(
    state: &WebState,
    wire: Option<&reapi::Digest>,
    action: Digest,
) -> Result<(Digest, M), StoreError> {
    let digest = digest(wire, action.function)
        .ok_or_else(|| StoreError::Invalid("the action names it with no proper digest".into()))?;
    Ok((digest, state.message(&digest, MAX_MESSAGE).await?))
}

async fn related(
    state: &WebState,
    run: Option<&Entry>,
    digest: &Digest,
) -> Result<(Vec<Entry>, Option<Entry>), WebError> {
    let Some(entry) = run.filter(|entry| !entry.execution.target_id.is_empty()) else {
        return Ok((Vec::new(), None));
    };
    let run = &entry.execution;
    let query =
        Query::Target { target: run.target_id.clone(), mnemonic: Some(run.mnemonic.clone()) };
    let runs = state.journal.executions(&query, Page::first(RUNS)).await?;
    if run.origin() != Origin::Executed {
        return Ok((runs, None));
    }
    let configuration = run.configuration_id.as_str();
    let outputs = outputs_of(run);
    let earlier = Earlier {
        target: &run.target_id,
        mnemonic: &run.mnemonic,
        configuration: Some(configuration).filter(|c| !c.is_empty()),
        not_action: Some(digest),
        before: Some(entry.seq),
        // A failed action may have made nothing: then any run will do.
        outputs: Some(&outputs).filter(|outputs| !outputs.is_empty()),
    };
    Ok((runs, state.journal.last_run_before(earlier).await?))
}

impl Loaded {
    /// The action's own platform; older clients set it on the command only.
    #[allow(deprecated)]
    pub fn platform(&self) -> Vec<reapi::platform::Property> {
        let of_action = self.action.as_ref().ok().and_then(|action| action.platform.clone());
        let of_command = self.command.as_ref().ok().and_then(|command| command.platform.clone());
        of_action.or(of_command).unwrap_or_default().properties
    }
}

/// The beginning of stdout or stderr: at most [`MAX_TEXT`] bytes.
pub async fn log(
    state: &WebState,
    raw: &[u8],
    wire: Option<&reapi::Digest>,
    function: DigestFunction,
) -> Result<String, StoreError> {
    if !raw.is_empty() {
        let end = raw.len().min(MAX_TEXT as usize);
        return Ok(String::from_utf8_lossy(&raw[..end]).into_owned());
    }
    match digest(wire, function) {
        Some(digest) => state.text(&digest).await,
        None => Ok(String::new()),
    }
}
