//! One more execution of an action under other conditions, and what of these came about.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use kiln_cas::Digest;
use kiln_protos::events::Execution;
use kiln_protos::hermeticity::{Applied, Condition, Conditions, NotChanged};
use kiln_protos::reapi;
use prost::Message;

use crate::again::{Again, NotRun, again};
use crate::shared::Core;

/// All runs of checks share the workers as one build.
const INVOCATION: &str = "hermeticity-check";
const APPLIED: &str = "type.googleapis.com/kiln.hermeticity.v1.Applied";

/// The conditions that can be changed when an action runs again.
pub const CONDITIONS: [Condition; 8] = [
    Condition::HostName,
    Condition::ProcessIds,
    Condition::Directory,
    Condition::Clock,
    Condition::Cpus,
    Condition::FileOrder,
    Condition::ModificationTimes,
    Condition::User,
];

/// A run that came to an end.
#[derive(Debug)]
pub struct Ran {
    pub result: reapi::ActionResult,
    pub worker: Arc<str>,
    pub not_changed: Vec<NotChanged>,
}

/// Runs the action of `execution` again with `changed` conditions. Errors: in words, why it did
/// not run to an end.
pub async fn rerun(
    core: &Core,
    execution: &Execution,
    action: Digest,
    changed: &[Condition],
) -> Result<Ran, String> {
    let changed = Conditions { changed: changed.iter().map(|one| *one as i32).collect() };
    let wanted = Again {
        instance: &execution.instance_name,
        action,
        target: &execution.target_id,
        mnemonic: &execution.mnemonic,
        conditions: changed.encode_to_vec().into(),
        avoid: &execution.worker,
    };
    let ended = again(core, &wanted, INVOCATION, &AtomicUsize::default()).await;
    let finished = ended.map_err(NotRun::message)?.finished;
    if finished.code != 0 {
        return Err(finished.message.clone());
    }
    let result = reapi::ActionResult::decode(finished.result.clone())
        .map_err(|error| format!("the worker's result is not valid: {error}"))?;
    let applied = applied(&result).ok_or_else(|| {
        format!(
            "worker {} is older than the hermeticity check and changed nothing",
            finished.worker
        )
    })?;
    Ok(Ran { result, worker: finished.worker.clone(), not_changed: applied.not_changed })
}

fn applied(result: &reapi::ActionResult) -> Option<Applied> {
    let metadata = result.execution_metadata.as_ref()?;
    let any = metadata.auxiliary_metadata.iter().find(|any| any.type_url == APPLIED)?;
    Applied::decode(any.value.as_slice()).ok()
}
