//! What is known of one action, from the store, the action cache and the journal.

use kiln_cas::counted::Counted;
use kiln_cas::{Digest, DigestFunction, StoreError};
use kiln_protos::events::execution::Origin;
use kiln_protos::reapi;
use kiln_scheduler::journal::{
    Class, Earlier, JournalEntry, Page, Query, action_of, has_failed, outputs_of,
};
use prost::Message;
use serde::Deserialize;

use crate::content::{MAX_MESSAGE, MAX_TEXT, digest, text_from};
use crate::error::WebError;
use crate::json::Running;
use crate::live;
use crate::state::WebState;

/// Runs that are listed.
const RUNS: usize = 12;

#[derive(Deserialize, Default, schemars::JsonSchema)]
pub struct Options {
    #[serde(default)]
    instance: String,
    /// Name of the operation; empty: the last run.
    #[serde(default)]
    operation: String,
    /// Name of the operation that the run is compared with; empty: the last one of its target.
    #[serde(default)]
    compare: String,
    /// Set: the page does not load itself again.
    pub hold: Option<String>,
}

const UNKNOWN_RUN: &str = "The run that was asked for is not known any more: this is the last one.";
const FLAKY: &str = "It failed first and succeeded when the same build ran it again: this is the \
                     run that failed.";

/// A part that cannot be read says why.
pub struct Loaded {
    pub digest: Digest,
    pub instance: String,
    pub action: Result<reapi::Action, StoreError>,
    pub command: Result<reapi::Command, StoreError>,
    pub input_root: Result<(Digest, reapi::Directory), StoreError>,
    /// The run that is shown; `None`: the journal knows none, or it has not ended.
    pub run: Option<JournalEntry>,
    /// The operation of the action that runs or waits; `None`: none does, or a run that has ended is shown.
    pub running: Option<Running>,
    /// Something to know about which run this is.
    pub remark: Option<&'static str>,
    pub result: Option<reapi::ActionResult>,
    pub is_cached: bool,
    pub runs: Vec<JournalEntry>,
    pub target_runs: Vec<JournalEntry>,
    /// The last run of the same target and mnemonic, where this one missed the cache, or the one
    /// that was chosen.
    pub compared: Option<JournalEntry>,
}

pub async fn load(state: &WebState, digest: Digest, options: Options) -> Result<Loaded, WebError> {
    let runs = state.journal.executions(&Query::Action(digest), Page::first(RUNS)).await?;
    let Chosen { run, running, remark } = choose(state, &digest, &options, &runs).await?;
    let instance = match (&run, &running) {
        (Some(run), _) if options.instance.is_empty() => run.execution.instance_name.clone(),
        (_, Some(running)) if options.instance.is_empty() => running.operation.instance.clone(),
        _ => options.instance.clone(),
    };
    let action: Result<reapi::Action, _> = state.message(&digest, MAX_MESSAGE).await;
    let (command, input_root) = match &action {
        Ok(action) => (
            message_at(state, action.command_digest.as_ref(), digest).await.map(|found| found.1),
            message_at(state, action.input_root_digest.as_ref(), digest).await,
        ),
        Err(error) => (Err(error.clone()), Err(error.clone())),
    };
    if action.is_err() && run.is_none() && running.is_none() {
        let hint = "Neither the store nor the journal has it: it was never executed here, or \
                    is older than what is kept.";
        return Err(WebError::not_found(format!("nothing is known of action {digest}"), hint));
    }
    let cached = state.cached(&instance, &digest).await;
    let is_cached = cached.is_some();
    let result = match running {
        Some(_) => None,
        None => run.as_ref().and_then(own_result).or(cached),
    };
    let (target_runs, mut compared) = related(state, run.as_ref(), &digest).await?;
    if !options.compare.is_empty() {
        compared = state.journal.execution(&options.compare).await?.or(compared);
    }
    Ok(Loaded {
        digest,
        instance,
        action,
        command,
        input_root,
        run,
        running,
        remark,
        result,
        is_cached,
        runs,
        target_runs,
        compared,
    })
}

#[derive(Default)]
struct Chosen {
    run: Option<JournalEntry>,
    running: Option<Running>,
    remark: Option<&'static str>,
}

/// Chooses which run of the action is shown. `runs`: all of them, newest first.
async fn choose(
    state: &WebState,
    digest: &Digest,
    options: &Options,
    runs: &[JournalEntry],
) -> Result<Chosen, WebError> {
    let operation = options.operation.as_str();
    if !operation.is_empty() {
        let ended = state.journal.execution(operation).await?;
        let is_of_it = |entry: &JournalEntry| action_of(&entry.execution).as_ref() == Some(digest);
        if let Some(run) = ended.filter(is_of_it) {
            return Ok(Chosen { run: Some(run), ..Chosen::default() });
        }
    }
    // A queue that cannot be asked is no reason to show nothing of what has ended.
    if let Ok(queue) = state.queue.snapshot().await {
        let running = match operation {
            "" => live::of_action(state, &queue, digest).await,
            operation => live::named(state, &queue, operation).await,
        };
        if running.is_some() {
            return Ok(Chosen { running, ..Chosen::default() });
        }
    }
    let (run, is_flaky) = telling(runs);
    let remark = match run {
        Some(_) if !operation.is_empty() => Some(UNKNOWN_RUN),
        _ => is_flaky.then_some(FLAKY),
    };
    Ok(Chosen { run: run.cloned(), running: None, remark })
}

/// The last run; of one that succeeded after it had failed in the same build, the failure.
fn telling(newest_first: &[JournalEntry]) -> (Option<&JournalEntry>, bool) {
    let Some(last) = newest_first.first() else { return (None, false) };
    let build = last.execution.invocation_id.as_str();
    let failed = newest_first.iter().find(|run| {
        let run = &run.execution;
        !build.is_empty() && run.invocation_id == build && has_failed(run)
    });
    match failed {
        Some(failed) if !has_failed(&last.execution) => (Some(failed), true),
        _ => (Some(last), false),
    }
}

fn own_result(run: &JournalEntry) -> Option<reapi::ActionResult> {
    let encoded = &run.execution.action_result;
    if encoded.is_empty() {
        return None;
    }
    reapi::ActionResult::decode(encoded.clone()).ok()
}

async fn message_at<M: Counted + 'static>(
    state: &WebState,
    wire: Option<&reapi::Digest>,
    action: Digest,
) -> Result<(Digest, M), StoreError> {
    let digest = digest(wire, action.function)
        .ok_or_else(|| StoreError::invalid("the action names it with no proper digest"))?;
    Ok((digest, state.message(&digest, MAX_MESSAGE).await?))
}

async fn related(
    state: &WebState,
    run: Option<&JournalEntry>,
    digest: &Digest,
) -> Result<(Vec<JournalEntry>, Option<JournalEntry>), WebError> {
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
    /// Whether the action failed at a worker and had no network there.
    pub fn ran_offline(&self) -> bool {
        let is_property = |name: &str, value: &str| name == "kiln-network" && value == "true";
        let asks = self.platform().iter().any(|it| is_property(&it.name, &it.value));
        let failed_there = |entry: &JournalEntry| {
            has_failed(&entry.execution) && Class::of(&entry.execution) == Class::Executed
        };
        !asks && self.run.as_ref().is_some_and(failed_there)
    }

    /// The action's own platform; older clients set it on the command only.
    #[allow(deprecated)]
    pub fn platform(&self) -> Vec<reapi::platform::Property> {
        let of_action = self.action.as_ref().ok().and_then(|action| action.platform.clone());
        let of_command = self.command.as_ref().ok().and_then(|command| command.platform.clone());
        of_action.or(of_command).unwrap_or_default().properties
    }
}

/// The end of stdout or stderr, at most [`MAX_TEXT`] bytes that begin with a line.
pub async fn log(
    state: &WebState,
    raw: &[u8],
    wire: Option<&reapi::Digest>,
    function: DigestFunction,
) -> Result<String, StoreError> {
    if !raw.is_empty() {
        let begin = raw.len().saturating_sub(MAX_TEXT as usize);
        return Ok(text_from(&raw[begin..], begin > 0));
    }
    match digest(wire, function) {
        Some(digest) => state.end_of_text(&digest).await,
        None => Ok(String::new()),
    }
}
