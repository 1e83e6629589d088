//! Executions as rows of a table, and how each ended.

use kiln_protos::events::Execution;
use kiln_protos::events::execution::Origin;
use kiln_scheduler::journal::{JournalEntry, has_failed, queue_ns, run_ns};
use maud::{Markup, html};

use crate::design::parts::MAX_CELL;
use crate::design::text::{action_link, build_link, label, nanos, when};
use crate::format::{abbreviated, code_name, short};

/// How an execution ended, as a colour and a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Failed,
    Cancelled,
    Hit,
    Merged,
    Executed,
}

impl Ended {
    pub fn of(execution: &Execution) -> Self {
        match execution.origin() {
            _ if execution.cancelled => Self::Cancelled,
            _ if has_failed(execution) => Self::Failed,
            Origin::CacheHit => Self::Hit,
            Origin::Merged => Self::Merged,
            Origin::Executed | Origin::Unspecified => Self::Executed,
        }
    }

    pub fn class(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Hit => "hit",
            Self::Merged => "merged",
            Self::Executed => "executed",
        }
    }
}

/// The state in words, with exit code or error.
pub fn chip(execution: &Execution) -> Markup {
    let state = Ended::of(execution);
    let text = match (state, execution.status_code, execution.exit_code) {
        (Ended::Failed, 0, code) => format!("exit {code}"),
        (Ended::Failed, code, _) => code_name(code).to_owned(),
        (Ended::Cancelled, ..) => "cancelled".to_owned(),
        (Ended::Hit, ..) => "cache hit".to_owned(),
        (Ended::Merged, ..) => "merged".to_owned(),
        (Ended::Executed, ..) => "executed".to_owned(),
    };
    html! { span class={ "chip " (state.class()) } { (text) } }
}

/// The target as a link to the action.
pub fn target(execution: &Execution) -> Markup {
    let name = match execution.target_id.as_str() {
        "" => "(no target)",
        target => target,
    };
    let name = short(name, MAX_CELL);
    html! {
        @match action_link(execution) {
            Some(link) => a.target href=(link) { (label(&name)) },
            None => span.target { (label(&name)) },
        }
    }
}

/// Rows of executions; `with_build` adds a column that links to the build.
pub fn executions(entries: &[JournalEntry], with_build: bool, caption: &str) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(caption) {
            table.rows {
                thead { tr {
                    th { "Result" }
                    th { "Target" }
                    th { "Mnemonic" }
                    th.num { "Queued" }
                    th.num { "Ran" }
                    th { "Worker" }
                    @if with_build { th { "Build" } }
                    th.num { "When" }
                } }
                tbody { @for entry in entries { (execution_row(&entry.execution, with_build)) } }
            }
        }
    }
}

fn execution_row(run: &Execution, with_build: bool) -> Markup {
    let timeline = run.timeline.unwrap_or_default();
    html! {
        tr {
            td { (chip(run)) }
            td.wide { (target(run)) }
            td { (short(&run.mnemonic, 40)) }
            td.num { (nanos(queue_ns(&timeline))) }
            td.num { (nanos(run_ns(&timeline))) }
            td.dim { (short(&run.worker, 32)) }
            @if with_build {
                td { @if !run.invocation_id.is_empty() {
                    a.mono href=(build_link(&run.invocation_id)) { (abbreviated(&run.invocation_id)) }
                } }
            }
            td.num.dim { (when(timeline.finished)) }
        }
    }
}
