//! One build: what was cached, what ran where and when, what failed, what was slow.

use std::cmp::Reverse;

use axum::extract::{Path, Query as Arguments, State};
use axum::response::Html;
use kiln_scheduler::journal::{
    BuildSummary, JournalEntry, MAX_PAGE, Page, Query, queue_ns, run_ns,
};
use maud::{Markup, html};
use serde::Deserialize;

use super::compare;
use super::open::running;
use super::rows;
use super::told::{self, Told};
use super::unknown::no_build;
use super::waterfall::waterfall;
use crate::actions::rows::{Ended, executions, target};
use crate::design::layout::{self, Live, Place};
use crate::design::text::{build_link, nanos, when};
use crate::design::{chart, parts};
use crate::error::WebError;
use crate::format::{abbreviated, count, counted, duration, encode, now, short};
use crate::json::{cursor, parse_cursor};
use crate::progress::{BuildPhase, Progress};
use crate::state::WebState;
use crate::{find, live};

/// Rows of the list of actions.
const ROWS: usize = 300;
const SLOWEST: usize = 8;
const MAX_FAILED: usize = 20;

#[derive(Deserialize, Default)]
pub struct Filter {
    /// Part of the target or the mnemonic of actions that are listed.
    #[serde(default)]
    q: String,
    /// A class of [`Ended`], or empty.
    #[serde(default)]
    show: String,
    /// `slowest`, `queued`, or by time.
    #[serde(default)]
    sort: String,
    /// Page of the list, from 0.
    #[serde(default)]
    page: usize,
    /// Only what ended before this place in the journal: a build may have more actions than are
    /// read at once.
    #[serde(default)]
    before: String,
    /// Set: the page does not load itself again.
    hold: Option<String>,
}

const SHOW: [(&str, &str); 6] = [
    ("", "everything"),
    ("executed", "executed"),
    ("hit", "cache hits"),
    ("merged", "merged"),
    ("failed", "failed"),
    ("cancelled", "cancelled"),
];
const SORT: [(&str, &str); 3] =
    [("", "newest first"), ("slowest", "slowest first"), ("queued", "longest queued first")];

pub async fn page(
    State(state): State<WebState>,
    Path(invocation): Path<String>,
    Arguments(filter): Arguments<Filter>,
) -> Result<Html<String>, WebError> {
    let queue = state.queue.snapshot().await?;
    let invocation = find::invocation(&state, &queue, &invocation).await?;
    let open = live::of_build(&state, &queue, &invocation).await;
    let told = told::load(&state, &invocation).await?;
    let known = state.journal.build(&invocation).await?;
    let has_asked = known.is_some() || !open.is_empty();
    let build = match known {
        Some(build) => build,
        None if open.is_empty() && told.is_none() => return Err(no_build(&invocation)),
        // It has begun in this moment, or asks for nothing here.
        None => BuildSummary { invocation_id: invocation.clone(), ..BuildSummary::default() },
    };
    let progress = Progress::of(&state.journal, &build, &queue, now());
    let query = Query::Invocation(invocation.clone());
    let page = Page { before: parse_cursor(&filter.before), limit: MAX_PAGE };
    let entries = state.journal.executions(&query, page).await?;
    let title = format!("Build {}", abbreviated(&invocation));
    let address = build_link(&invocation);
    // Who filters or leafs through the list reads it.
    let reads = filter.hold.is_some() || filter.is_used();
    let is_lively = progress.is_lively || told.as_ref().is_some_and(Told::is_lively);
    let live = Live::of(is_lively, reads);
    let (above, below) = told::sections(&state, told.as_ref()).await?;
    let previous = match live {
        // It looks through many builds, and this page loads itself again and again.
        Live::Yes => None,
        Live::No | Live::Held => {
            compare::previous(&state, &build, told.as_ref().map(|it| &it.noted)).await
        }
    };
    let body = html! {
        div.title {
            p.crumbs { a href="/builds" { "Builds" } " / " }
            h1 { "Build " span.mono { (short(&invocation, 80)) } }
            p.dim { (rows::progress(&progress))
                @if has_asked { " " (rows::tool(&build)) " · " (when(build.first_at)) }
                @if !build.instance_name.is_empty() { " · instance " (short(&build.instance_name, 60)) } }
            p { (layout::hold(live, &address))
                @if let Some(previous) = &previous {
                    " " a.button href=(compare::page::link(previous, &invocation)) { "Compare with the one before" }
                } }
        }
        (ending(&progress))
        (above)
        @if has_asked {
            (tiles(&build, &progress))
            (running(&state, &open, progress.open))
            (by_worker(&build, &progress, &entries))
        }
        (below)
        @if has_asked {
            div.columns {
                div.main { (by_mnemonic(&build)) (failed(&entries)) }
                div.side { (slowest(&entries)) }
            }
            (actions(&build, &entries, &filter))
        }
    };
    Ok(layout::live(Place::Builds, &title, state.version, live, &body))
}

/// What a reader must know of a build that did not end as builds do.
fn ending(progress: &Progress) -> Markup {
    html! {
        @match progress.state {
            BuildPhase::Lost => section.panel.alarm {
                header { h2 { (counted(progress.lost, "action")) " of it will never end" } }
                p.quiet { "The server that ran it was stopped, or its queue was lost. What had ended before is below; build again for the rest." }
            },
            BuildPhase::Cancelled => section.panel.slim {
                p.quiet { "The last of its actions was stopped: the build was cancelled, or its client went away." }
            },
            BuildPhase::Running | BuildPhase::Idle => {},
        }
    }
}

fn tiles(build: &BuildSummary, progress: &Progress) -> Markup {
    let counts = &build.counts;
    let (run_ns, queue_ns) = (counts.run_ns + progress.run_ns, counts.queue_ns + progress.queue_ns);
    let elapsed = rows::elapsed(build, progress);
    let speed_up = run_ns as f64 / elapsed.max(1) as f64;
    let runs = progress.state == BuildPhase::Running;
    html! {
        dl.tiles {
            (parts::tile("Cache hit rate", &rows::rate(counts), &html! {
                (counted(counts.hits, "hit")) ", " (count(counts.merged)) " merged"
            }))
            (parts::tile("Executed", &html! { (count(counts.executed)) }, &html! {
                "of " (counted(counts.actions(), "action"))
                @if counts.refused > 0 { ", " (count(counts.refused)) " refused" }
                @if counts.ran_at_client() > 0 { ", " (count(counts.ran_at_client())) " run by the client" }
                @if counts.cancelled > 0 { ", " (count(counts.cancelled)) " cancelled" }
            }))
            (parts::tile("Failed", &html! {
                @if counts.failed > 0 { span.bad { (count(counts.failed)) } } @else { "0" }
            }, &html! { (counted(build.targets, "target")) }))
            (parts::tile("Took", &html! { (duration(elapsed)) }, &html! {
                @if runs { "since the first request" } @else { "first request to last answer" }
            }))
            (parts::tile("Work", &html! { (duration(run_ns)) }, &html! {
                (format!("{speed_up:.1}")) " actions at a time"
            }))
            (parts::tile("Waited", &html! { (duration(queue_ns)) }, &html! {
                "mean " (duration(queue_ns.checked_div(counts.executed + counts.refused + progress.open).unwrap_or(0)))
            }))
        }
    }
}

fn by_worker(build: &BuildSummary, progress: &Progress, entries: &[JournalEntry]) -> Markup {
    let whole =
        (build.first_at, build.first_at.saturating_add_unsigned(rows::elapsed(build, progress)));
    html! {
        @if let Some(chart) = waterfall(entries, whole) {
            section.panel {
                header {
                    h2 { "By worker slot" }
                    p.legend { span.executed { "executed" } span.failed { "failed" } }
                }
                (chart)
            }
        }
    }
}

fn by_mnemonic(build: &BuildSummary) -> Markup {
    if build.mnemonics.is_empty() {
        return html! {};
    }
    let mut mnemonics: Vec<_> = build.mnemonics.iter().collect();
    mnemonics.sort_by_key(|m| Reverse((m.counts.run_ns, m.counts.actions())));
    html! {
        section.panel {
            header { h2 { "By mnemonic" } }
            div.scroll tabindex="0" role="region" aria-label="By mnemonic" {
                table.rows {
                    thead { tr {
                        th { "Mnemonic" } th.num { "Actions" } th { "Cached" } th.num { "Hit rate" }
                        th.num { "Failed" } th.num { "Ran" } th.num { "Mean" }
                    } }
                    tbody { @for m in mnemonics {
                        @let mean = m.counts.run_ns.checked_div(m.counts.executed).unwrap_or(0);
                        tr {
                            td { @if m.mnemonic.is_empty() { span.dim { "(none)" } } @else { (short(&m.mnemonic, 48)) } }
                            td.num { (count(m.counts.actions())) }
                            td.bar { (chart::share_bar(&m.counts)) }
                            td.num { (rows::rate(&m.counts)) }
                            td.num { @if m.counts.failed > 0 { span.bad { (m.counts.failed) } } @else { span.dim { "0" } } }
                            td.num { (nanos(m.counts.run_ns)) }
                            td.num { (nanos(mean)) }
                        }
                    } }
                }
            }
        }
    }
}

fn failed(entries: &[JournalEntry]) -> Markup {
    let failed: Vec<_> = entries
        .iter()
        .filter(|entry| Ended::of(&entry.execution) == Ended::Failed)
        .take(MAX_FAILED)
        .cloned()
        .collect();
    html! {
        @if !failed.is_empty() {
            section.panel {
                header { h2 { "Failed" } }
                (executions(&failed, false, "Failed actions"))
            }
        }
    }
}

fn slowest(entries: &[JournalEntry]) -> Markup {
    if entries.is_empty() {
        return html! {};
    }
    let run = |entry: &JournalEntry| run_ns(&entry.execution.timeline.unwrap_or_default());
    let is_own = |entry: &&JournalEntry| {
        !matches!(Ended::of(&entry.execution), Ended::Hit | Ended::Merged | Ended::Cancelled)
            && run(entry) > 0
    };
    let mut slowest: Vec<_> = entries.iter().filter(is_own).collect();
    slowest.sort_by_key(|entry| Reverse(run(entry)));
    let longest = slowest.first().map_or(1, |entry| run(entry)).max(1) as f64;
    let is_cached = entries.iter().all(|entry| Ended::of(&entry.execution) == Ended::Hit);
    html! {
        section.panel {
            header { h2 { "Slowest" } }
            @if slowest.is_empty() && is_cached { p.quiet { "Nothing had to run: all of it was cached." } }
            @else if slowest.is_empty() { p.quiet { "None of its actions ran for it alone." } }
            ul.ranking {
                @for entry in slowest.into_iter().take(SLOWEST) {
                    li {
                        (target(&entry.execution))
                        span.right { (duration(run(entry))) }
                        svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true" {
                            rect.ground x="0" y="0" width="100" height="4" {}
                            rect class=(Ended::of(&entry.execution).class()) x="0" y="0" height="4"
                                width=(chart::num(run(entry) as f64 / longest * 100.0)) {}
                        }
                    }
                }
            }
        }
    }
}

fn actions(build: &BuildSummary, entries: &[JournalEntry], filter: &Filter) -> Markup {
    let wanted = filter.q.to_lowercase();
    let matches = |entry: &&JournalEntry| {
        let run = &entry.execution;
        let named = wanted.is_empty()
            || run.target_id.to_lowercase().contains(&wanted)
            || run.mnemonic.to_lowercase().contains(&wanted);
        named && (filter.show.is_empty() || Ended::of(run).class() == filter.show)
    };
    let mut found: Vec<JournalEntry> = entries.iter().filter(matches).cloned().collect();
    let timeline = |entry: &JournalEntry| entry.execution.timeline.unwrap_or_default();
    match filter.sort.as_str() {
        "slowest" => found.sort_by_key(|entry| Reverse(run_ns(&timeline(entry)))),
        "queued" => found.sort_by_key(|entry| Reverse(queue_ns(&timeline(entry)))),
        _ => {}
    }
    let matching = found.len();
    let pages = matching.div_ceil(ROWS).max(1);
    let at = filter.page.min(pages - 1);
    let shown: Vec<JournalEntry> = found.into_iter().skip(at * ROWS).take(ROWS).collect();
    let older = entries.last().filter(|_| entries.len() == MAX_PAGE).map(|last| last.seq);
    let first = at * ROWS + 1;
    html! {
        section.panel #actions {
            header { h2 { "Actions" } (filter_form(filter)) }
            @if entries.is_empty() { p.quiet { "No action of it has ended yet." } }
            @else if shown.is_empty() { p.quiet { "No action matches. " a href="?" { "Show all" } } }
            @else {
                (executions(&shown, false, "Actions of this build"))
                p.note {
                    (count(first as u64)) " to " (count((first + shown.len() - 1) as u64)) " of "
                    (count(matching as u64)) ". "
                    @if (entries.len() as u64) < build.counts.total() {
                        "The build made " (counted(build.counts.total(), "request")) ", of which "
                        (count(entries.len() as u64)) " are searched here: of cache hits only the "
                        "first are kept one by one, and the list is read in parts. The counts above are exact."
                    }
                }
            }
            p.pager {
                @if at > 0 { a.button href=(filter.link(at - 1, &filter.before)) { "Previous" } }
                @if at + 1 < pages { a.button href=(filter.link(at + 1, &filter.before)) { "Next" } }
                @else if let Some(older) = older { a.button href=(filter.link(0, &cursor(older))) { "Earlier actions" } }
                @if !filter.before.is_empty() { a.button href=(filter.link(0, "")) { "Newest" } }
            }
        }
    }
}

impl Filter {
    fn is_used(&self) -> bool {
        let texts = [&self.q, &self.show, &self.sort, &self.before];
        self.page > 0 || texts.into_iter().any(|text| !text.is_empty())
    }

    /// The address of another page of the same list.
    fn link(&self, page: usize, before: &str) -> String {
        let fields =
            [("q", &*self.q), ("show", &*self.show), ("sort", &*self.sort), ("before", before)];
        let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
        let mut link = format!("?page={page}");
        for (name, value) in given {
            link.push_str(&format!("&{name}={}", encode(&short(value, 200), false)));
        }
        link + "#actions"
    }
}

fn filter_form(filter: &Filter) -> Markup {
    let choice = |name: &str, label: &str, options: &[(&str, &str)], chosen: &str| {
        html! {
            label { span.sr { (label) }
                select name=(name) {
                    @for (value, text) in options {
                        option value=(value) selected[*value == chosen] { (text) }
                    }
                }
            }
        }
    };
    html! {
        form.filter method="get" action="#actions" {
            label { span.sr { "Target or mnemonic" }
                input type="search" name="q" placeholder="target or mnemonic" maxlength="200"
                    value=(short(&filter.q, 200)); }
            (choice("show", "Show", &SHOW, &filter.show))
            (choice("sort", "Order", &SORT, &filter.sort))
            button type="submit" { "Filter" }
        }
    }
}
