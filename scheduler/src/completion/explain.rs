//! What helps people to find out why an action failed: a link to its page, and a log.

use std::fmt::Write;

use kiln_cas::ActionKey;
use kiln_net::urls::path;
use kiln_protos::reapi;
use tonic::Code;

use super::timeline::timeline;
use crate::job::Run;
use crate::journal::STAGES;

/// The address of an action's page; empty without base.
pub(crate) fn link(base_url: &str, key: &ActionKey, operation: Option<&str>) -> String {
    match base_url.is_empty() {
        true => String::new(),
        false => format!("{base_url}{}", page(key, operation)),
    }
}

/// `/actions/{function}/{hash}/{size}?instance=…&operation=…`
pub(crate) fn page(key: &ActionKey, operation: Option<&str>) -> String {
    let action = &key.action;
    let mut url = format!(
        "/actions/{}/{}/{}?instance={}",
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

pub(super) fn append_link(message: &mut String, link: &str) {
    if !message.is_empty() && !link.is_empty() {
        message.push('\n');
    }
    message.push_str(link);
}

/// What people want to know about a failed action, as plain text.
pub(super) fn describe(run: &Run, response: &reapi::ExecuteResponse) -> String {
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
