//! Builds as rows of a table.

use kiln_scheduler::journal::{BuildSummary, Counts, between};
use maud::{Markup, html};

use super::progress::{Progress, State};
use crate::web::design::chart;
use crate::web::design::text::{build_link, nanos, when};
use crate::web::format::{abbreviated, count, now, percent, short};

/// How a build goes, where there is something to say.
pub fn progress(progress: &Progress) -> Markup {
    html! {
        @match progress.state {
            State::Running => span.chip.running { (count(progress.open)) " open" },
            State::Cancelled => span.chip.cancelled { "cancelled" },
            State::Lost => span.chip.failed title="The server that knew them is gone." {
                (count(progress.lost)) " lost"
            },
            State::Idle => {},
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
            td.num { (count(counts.actions())) }
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
        State::Running => between(build.first_at, now()),
        _ => build.elapsed_ns(),
    }
}

/// The part of requests that the cache answered.
pub fn rate(counts: &Counts) -> Markup {
    html! {
        @match counts.hit_rate() {
            Some(rate) => (percent(rate)),
            None => span.dim { "–" },
        }
    }
}

/// Name and version of the build tool.
pub fn tool(build: &BuildSummary) -> Markup {
    let name = match build.tool_name.as_str() {
        "" => "unknown tool",
        name => name,
    };
    html! { (short(name, 24)) " " span.dim { (short(&build.tool_version, 24)) } }
}
