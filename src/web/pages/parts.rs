//! Small pieces that several pages show.

use kiln_protos::events::Execution;
use kiln_protos::events::execution::Origin;
use kiln_scheduler::journal::{
    BuildSummary, Counts, Entry, action_of, between, has_failed, queue_ns, run_ns,
};
use maud::{Markup, html};

use super::chart;
use crate::web::format::{
    abbreviated, ago, buck2_address, code_name, count, duration, encode, grpc_address, now,
    path_of, short, utc,
};
use crate::web::progress::{Progress, State as BuildState};

/// Longest string from outside that a table shows, in characters.
pub const MAX_CELL: usize = 160;

/// How an execution ended, as a colour and a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Failed,
    Cancelled,
    Hit,
    Merged,
    Executed,
}

impl State {
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
    let state = State::of(execution);
    let text = match (state, execution.status_code, execution.exit_code) {
        (State::Failed, 0, code) => format!("exit {code}"),
        (State::Failed, code, _) => code_name(code).to_owned(),
        (State::Cancelled, ..) => "cancelled".to_owned(),
        (State::Hit, ..) => "cache hit".to_owned(),
        (State::Merged, ..) => "merged".to_owned(),
        (State::Executed, ..) => "executed".to_owned(),
    };
    html! { span class={ "chip " (state.class()) } { (text) } }
}

/// The page of the execution's action; `None` where its digest is malformed.
pub fn action_link(execution: &Execution) -> Option<String> {
    let action = action_of(execution)?;
    Some(format!(
        "/actions/{}?instance={}&operation={}",
        path_of(&action),
        encode(&execution.instance_name, false),
        encode(&execution.id, false)
    ))
}

pub fn build_link(invocation: &str) -> String {
    format!("/builds/{}", encode(invocation, false))
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

/// A label whose package is dimmer than its name.
pub fn label(name: &str) -> Markup {
    let split = name.rfind(':').map_or(0, |colon| colon + 1);
    let (package, rest) = name.split_at(split);
    html! { @if !package.is_empty() { span.dim { (package) } } (rest) }
}

pub fn when(at: i64) -> Markup {
    if at <= 0 {
        return html! { span.dim { "–" } };
    }
    let utc = utc(at);
    html! { time datetime=(utc.replace(' ', "T")) title=(utc) { (ago(at, now())) } }
}

pub fn nanos(nanos: u64) -> Markup {
    html! { @if nanos == 0 { span.dim { "–" } } @else { (duration(nanos)) } }
}

/// Rows of executions; `with_build` adds a column that links to the build.
pub fn executions(entries: &[Entry], with_build: bool, caption: &str) -> Markup {
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

/// How a build goes, where there is something to say.
pub fn progress(progress: &Progress) -> Markup {
    html! {
        @match progress.state {
            BuildState::Running => span.chip.running { (count(progress.open)) " open" },
            BuildState::Cancelled => span.chip.cancelled { "cancelled" },
            BuildState::Lost => span.chip.failed title="The server that knew them is gone." {
                (count(progress.lost)) " lost"
            },
            BuildState::Idle => {},
        }
    }
}

/// Rows of builds.
pub fn builds(builds: &[(BuildSummary, Progress)]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Builds" {
            table.rows {
                thead { tr {
                    th { "Build" }
                    th { "Now" }
                    th { "Tool" }
                    th.num { "Targets" }
                    th.num { "Actions" }
                    th { "Cached" }
                    th.num { "Hit rate" }
                    th.num { "Failed" }
                    th.num { "Took" }
                    th.num { "When" }
                } }
                tbody { @for (build, progress) in builds { (build_row(build, progress)) } }
            }
        }
    }
}

fn build_row(build: &BuildSummary, how: &Progress) -> Markup {
    let counts = &build.counts;
    html! {
        tr {
            td { a.mono href=(build_link(&build.invocation_id)) { (abbreviated(&build.invocation_id)) } }
            td { (progress(how)) }
            td { (tool(build)) }
            td.num { (count(build.targets)) }
            td.num { (count(counts.total())) }
            td.bar { (chart::share_bar(counts)) }
            td.num { (rate(counts)) }
            td.num { @if counts.failed > 0 { span.bad { (count(counts.failed)) } } @else { span.dim { "0" } } }
            td.num { (nanos(elapsed(build, how))) }
            td.num.dim { (when(build.first_at)) }
        }
    }
}

/// Nanoseconds from the first request to the last answer, or to now.
pub fn elapsed(build: &BuildSummary, progress: &Progress) -> u64 {
    match progress.state {
        BuildState::Running => between(build.first_at, now()),
        _ => build.elapsed_ns(),
    }
}

pub fn rate(counts: &Counts) -> Markup {
    html! {
        @match counts.hit_rate() {
            Some(rate) => (crate::web::format::percent(rate)),
            None => span.dim { "–" },
        }
    }
}

pub fn tool(build: &BuildSummary) -> Markup {
    let name = match build.tool_name.as_str() {
        "" => "unknown tool",
        name => name,
    };
    html! { (short(name, 24)) " " span.dim { (short(&build.tool_version, 24)) } }
}

/// A figure with its name above and a remark below.
pub fn tile(name: &str, figure: &Markup, remark: &Markup) -> Markup {
    html! {
        div.tile {
            dt { (name) }
            dd.figure { (figure) }
            dd.remark { (remark) }
        }
    }
}

/// What to type so that a build comes here.
pub fn how_to_build(base_url: &str) -> Markup {
    let address = grpc_address(base_url);
    let (buck2, tls) = buck2_address(base_url);
    html! {
        div.howto {
            h3 { "Bazel" }
            pre { code { "bazel build --remote_executor=" (address) " //..." } }
            h3 { "Buck2, in " code { ".buckconfig" } }
            pre { code {
                "[buck2_re_client]\nengine_address = " (buck2)
                "\naction_cache_address = " (buck2)
                "\ncas_address = " (buck2)
                "\ntls = " (tls)
            } }
        }
    }
}
