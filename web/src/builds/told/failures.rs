//! What failed, with the end of what it printed.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use kiln_cas::Digest;
use kiln_ci::events::{Facts, FileRef, Results};
use maud::{Markup, html};

use super::files;
use crate::ansi;
use crate::blobs::present::Present;
use crate::content::text_from;
use crate::design::text::{label, visible};
use crate::format::count;
use crate::state::WebState;

/// Failures shown, and those of them with the end of their logs.
pub const MAX_FAILURES: usize = 100;
const WITH_LOG: usize = 20;
/// Bytes of the end of a log.
const LOG_END: u64 = 6 << 10;

pub struct Failure {
    pub label: String,
    /// `CppCompile, exit code 1`, `test, attempt 2`
    pub what: String,
    pub logs: Vec<FileRef>,
}

impl Failure {
    /// Digests of the failure's logs, as far as they are here.
    fn present(&self, present: &Present) -> Vec<Digest> {
        let blobs = self.logs.iter().filter_map(|log| log.blob.as_ref());
        blobs.filter_map(|blob| present.digest(blob).copied()).collect()
    }
}

/// Actions first: a test that could not be built failed for their sake.
pub fn of(facts: &Facts, results: &Results) -> Vec<Failure> {
    let actions = facts.failed_actions.iter().map(|it| Failure {
        label: it.label.clone(),
        what: format!("{}, exit code {}", it.mnemonic, it.exit_code),
        logs: it.logs.clone(),
    });
    let is_bad =
        |status: &str| matches!(status, "failed" | "timeout" | "incomplete" | "remote_failure");
    let runs = results.runs.iter().filter(|(_, run)| is_bad(&run.status));
    let tests = runs.map(|(key, run)| Failure {
        label: key.label.clone(),
        what: format!(
            "test {}, shard {}, attempt {}",
            run.status.replace('_', " "),
            run.slot.shard,
            run.slot.attempt
        ),
        logs: files::named(run, "test.log").cloned().into_iter().collect(),
    });
    actions.chain(tests).chain(aborted(facts)).collect()
}

/// What ended before it was done, all that did so for one reason together. A build may abort a million targets:
/// they are among the targets.
fn aborted(facts: &Facts) -> impl Iterator<Item = Failure> {
    let mut reasons: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for it in facts.aborted.iter().filter(|it| it.label.is_none()) {
        *reasons.entry((&it.reason, it.description.trim())).or_default() += 1;
    }
    let failure = |((reason, description), parts): ((&str, &str), u64)| {
        let reason = match reason {
            "unknown" => "not finished".to_owned(),
            reason => reason.replace('_', " "),
        };
        let joint = if description.is_empty() { "" } else { ": " };
        let parts =
            if parts > 1 { format!(" ({parts} parts of the build)") } else { String::new() };
        let what = format!("{reason}{joint}{description}{parts}");
        Failure { label: String::new(), what, logs: Vec::new() }
    };
    reasons.into_iter().map(failure).collect::<Vec<_>>().into_iter()
}

pub async fn section(state: &WebState, failures: &[Failure], present: &Present) -> Markup {
    if failures.is_empty() {
        return html! {};
    }
    let logs: Vec<Vec<Digest>> =
        failures.iter().take(WITH_LOG).map(|it| it.present(present)).collect();
    let ends = join_all(logs.into_iter().map(|logs| ends(state, logs))).await;
    let none = Vec::new();
    html! {
        section.panel.alarm {
            header { h2 { "Failed" } span.dim { (count(failures.len() as u64)) } }
            @for (at, failure) in failures.iter().take(MAX_FAILURES).enumerate() {
                (one(failure, ends.get(at).unwrap_or(&none), present))
            }
            @if failures.len() > MAX_FAILURES {
                p.note { "and " (count((failures.len() - MAX_FAILURES) as u64)) " more" }
            }
        }
    }
}

fn one(failure: &Failure, ends: &[String], present: &Present) -> Markup {
    html! {
        div.failure {
            p { @if !failure.label.is_empty() { b.target { bdi { (label(&visible(&failure.label, 300))) } } " " }
                span.dim { (visible(&failure.what, 600)) } " "
                @for log in &failure.logs { (files::link(log, present)) " " } }
            @for end in ends { @if !end.trim().is_empty() { pre.log.tail { (ansi::markup(end.trim_end())) } } }
        }
    }
}

async fn ends(state: &WebState, logs: Vec<Digest>) -> Vec<String> {
    join_all(logs.into_iter().map(|log| end(state, log))).await
}

/// A log that cannot be read is none: the link beside it says why.
async fn end(state: &WebState, log: Digest) -> String {
    let from = log.size.saturating_sub(LOG_END);
    let Ok(blob) = state.blobs.read(&log, from, None).await else { return String::new() };
    blob.collect(LOG_END).await.map(|data| text_from(&data, from > 0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use kiln_ci::events::Aborted;

    use super::*;

    #[test]
    fn what_a_killed_build_left_open_is_one_line_a_reason() {
        let aborted = |reason: &str, description: &str| Aborted {
            reason: reason.to_owned(),
            description: description.to_owned(),
            label: None,
        };
        let aborted = vec![
            aborted("unknown", ""),
            aborted("user_interrupted", "Ctrl-C\n"),
            aborted("unknown", ""),
            Aborted { label: Some("//a:t".to_owned()), ..aborted("unknown", "") },
        ];
        let facts = Facts { aborted, ..Facts::default() };
        let said: Vec<_> = of(&facts, &Results::default()).into_iter().map(|it| it.what).collect();
        assert_eq!(said, ["not finished (2 parts of the build)", "user interrupted: Ctrl-C"]);
    }
}
