//! What was loaded of an action, as the JSON API says it.

use kiln_protos::reapi;

use super::load::Loaded;
use super::{compare, explain};
use crate::content::digest;
use crate::format::path_of;
use crate::json::{
    Action, ActionResult, Command, Digest, Execution, Explanation, InputDifference, Log, Property,
    Running,
};

pub fn action(
    loaded: &Loaded,
    base_url: &str,
    logs: [Option<Log>; 2],
    running: Option<Running>,
    why: Explanation,
) -> Action {
    let action = loaded.action.as_ref().ok();
    let function = loaded.digest.function;
    let [stdout, stderr] = logs;
    let digest_of = |wire: Option<&reapi::Digest>| digest(wire, function).map(|d| (&d).into());
    let seconds = |d: &kiln_protos::protobuf::Duration| d.seconds as f64 + f64::from(d.nanos) / 1e9;
    Action {
        digest_function: function.to_string(),
        digest: (&loaded.digest).into(),
        instance_name: loaded.instance.clone(),
        page: format!("{base_url}/actions/{}", path_of(&loaded.digest)),
        is_cached: loaded.is_cached,
        timeout_seconds: action.and_then(|action| action.timeout.as_ref()).map(seconds),
        do_not_cache: action.is_some_and(|action| action.do_not_cache),
        ran_offline: loaded.ran_offline(),
        platform: loaded.platform().iter().map(Property::from).collect(),
        command: loaded.command.as_ref().ok().map(Command::from),
        command_digest: action.and_then(|action| digest_of(action.command_digest.as_ref())),
        input_root: action.and_then(|action| digest_of(action.input_root_digest.as_ref())),
        unreadable: unreadable(loaded),
        execution: loaded.run.as_ref().map(Execution::from),
        running,
        remark: loaded.remark.map(str::to_owned),
        result: loaded.result.as_ref().map(ActionResult::from),
        stdout,
        stderr,
        explanation: why,
        runs: loaded.runs.iter().map(Execution::from).collect(),
    }
}

/// A message that is gone is named once, not again by what hangs from it.
fn unreadable(loaded: &Loaded) -> Vec<String> {
    if let Err(error) = &loaded.action {
        return vec![format!("the action: {error}")];
    }
    let command = loaded.command.as_ref().err().map(|error| format!("the command: {error}"));
    let inputs = loaded.input_root.as_ref().err().map(|error| format!("the input root: {error}"));
    command.into_iter().chain(inputs).collect()
}

/// Why the run was not answered from the cache, as it was found.
pub fn explanation(
    found: &explain::Explanation,
    before: Option<&kiln_cas::Digest>,
    after: &kiln_cas::Digest,
) -> Explanation {
    let mut reasons: Vec<_> = found.reasons.iter().map(|&reason| reason.to_owned()).collect();
    if let Some(Err(error)) = &found.comparison {
        reasons.push(format!("They cannot be compared: {error}"));
    }
    let comparison = found.comparison.as_ref().and_then(|comparison| comparison.as_ref().ok());
    Explanation {
        reasons,
        before: before.map(Digest::from),
        after: after.into(),
        before_execution: found.earlier.as_ref().map(Execution::from),
        differences: found.differences().iter().map(difference).collect(),
        is_cut: comparison.is_some_and(|comparison| comparison.is_cut),
    }
}

fn difference(difference: &compare::Difference) -> InputDifference {
    InputDifference {
        kind: difference.kind.into(),
        change: difference.change().into(),
        name: difference.name.clone(),
        before: difference.before.clone(),
        after: difference.after.clone(),
        text: difference.text.clone(),
    }
}
