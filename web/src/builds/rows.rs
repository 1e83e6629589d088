//! Builds as rows of a table.

use kiln_ci::events::Summary;
use kiln_scheduler::journal::{BuildSummary, Counts, between};
use maud::{Markup, html};

use super::told_list;
use crate::design::chart;
use crate::design::rows::{self as table, Column, Line};
use crate::design::text::{build_link, nanos, when};
use crate::format::{abbreviated, count, now, percent, short};
use crate::progress::{BuildPhase, Progress};

/// How a build goes, where there is something to say.
pub fn progress(progress: &Progress) -> Markup {
    html! {
        @match progress.state {
            BuildPhase::Running => span.chip.running { (count(progress.open)) " open" },
            BuildPhase::Cancelled => span.chip.cancelled { "cancelled" },
            BuildPhase::Lost => span.chip.failed title="The server that knew them is gone." {
                (count(progress.lost)) " lost"
            },
            BuildPhase::Idle => {},
        }
    }
}

/// A build with how it goes, and what it told of its end.
pub struct Row {
    pub build: BuildSummary,
    pub progress: Progress,
    pub told: Option<Summary>,
}

const COLUMNS: [Column; 10] = [
    Column("Build", ""),
    Column("Outcome", ""),
    Column("Tool", ""),
    Column("Targets", "num"),
    Column("Actions", "num"),
    Column("Cached", "bar"),
    Column("Hit rate", "num"),
    Column("Failed", "num"),
    Column("Took", "num"),
    Column("When", "num"),
];

/// A table of builds, one row for each.
pub fn builds(builds: &[Row]) -> Markup {
    table::table("Builds", &COLUMNS, builds.iter().map(build_row))
}

fn build_row(row: &Row) -> Line {
    let Row { build, progress: how, .. } = row;
    let counts = &build.counts;
    let cells = vec![
        html! { a.mono href=(build_link(&build.invocation_id)) { (abbreviated(&build.invocation_id)) } },
        outcome(row),
        tool(build),
        html! { (count(build.targets)) },
        html! { (count(counts.actions())) },
        chart::share_bar(counts),
        rate(counts),
        html! { @if counts.failed > 0 { span.bad { (count(counts.failed)) } } @else { span.dim { "0" } } },
        nanos(elapsed(build, how)),
        html! { span.dim { (when(build.first_at)) } },
    ];
    cells.into()
}

/// How the build goes, else how it ended. Only build events say that.
fn outcome(row: &Row) -> Markup {
    let told = row.told.as_ref().filter(|it| it.exit_code.is_some());
    html! {
        @match (told, row.progress.state) {
            (Some(told), _) => (told_list::outcome(told)),
            (None, BuildPhase::Idle) => span.dim title="Only build events say how a build ended." { "–" },
            (None, _) => (progress(&row.progress)),
        }
    }
}

/// Nanoseconds from the build's first request to its last answer, or to now.
pub fn elapsed(build: &BuildSummary, progress: &Progress) -> u64 {
    match progress.state {
        BuildPhase::Running => between(build.first_at, now()),
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
