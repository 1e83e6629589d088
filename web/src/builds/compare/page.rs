//! Two builds side by side, as a page.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query as Arguments, State};
use axum::response::Html;
use kiln_ci::events::{BuildDifference, Changed};
use kiln_scheduler::journal::run_ns;
use maud::{Markup, html};

use super::{Compared, Miss, Misses, Side, Which, graph};
use crate::actions::rows::target;
use crate::actions::why;
use crate::builds::told_list;
use crate::design::layout::{self, Place};
use crate::design::rows::{self as table, Column, Line};
use crate::design::text::{build_link, label, nanos, visible, when};
use crate::error::WebError;
use crate::format::{abbreviated, count, counted, duration, encode};
use crate::json;
use crate::state::WebState;

/// Characters of one value.
const MAX_VALUE: usize = 300;

pub async fn page(
    State(state): State<WebState>,
    asked: Result<Arguments<Which>, QueryRejection>,
) -> Result<Html<String>, WebError> {
    let which = super::which(asked)?;
    let found = super::compare(&state, &which).await?;
    let body = html! {
        div.title {
            p.crumbs { a href="/builds" { "Builds" } " / "
                a.mono href=(build_link(&found.after.invocation)) { (abbreviated(&found.after.invocation)) } " / " }
            h1 { "Two builds" }
            p { (choice(&found.before.invocation, &found.after.invocation)) }
        }
        (sides(&found))
        @match &found.told {
            Some(told) => (told_sections(told)),
            None => section.panel.slim { p.quiet {
                "Only builds that told of themselves by build events can be compared in flags, targets and tests."
            } }
        }
        (misses(&found.misses))
    };
    Ok(layout::page(Place::Builds, "Two builds", state.version, &body))
}

/// The address of this page.
pub fn link(before: &str, after: &str) -> String {
    format!("/builds/compare?before={}&after={}", encode(before, false), encode(after, false))
}

/// The form in which a user says which two builds are compared, filled in with these.
pub fn choice(before: &str, after: &str) -> Markup {
    let field = |name: &str, text: &str, value: &str| {
        html! {
            label { span.sr { (text) }
                input type="search" name=(name) placeholder=(text) maxlength="200" size="24" required
                    value=(visible(value, 200)); }
        }
    };
    html! {
        form.filter method="get" action="/builds/compare" {
            (field("before", "earlier build", before))
            (field("after", "later build", after))
            button type="submit" { "Compare" }
        }
    }
}

const SIDES: [Column; 7] = [
    Column("", ""),
    Column("Build", ""),
    Column("Outcome", ""),
    Column("Took", "num"),
    Column("Executed", "num"),
    Column("Cached", "num"),
    Column("Work", "num"),
];

fn sides(found: &Compared) -> Markup {
    let line = |name: &str, side: &Side| -> Line {
        let summary = side.told.as_ref().map(|it| &it.noted.summary);
        let took = side.told.as_ref().and_then(|it| it.view.build.known().took());
        let took = took.map(|it| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX));
        let took = took.or(side.build.as_ref().map(|it| it.elapsed_ns()));
        let counts = side.build.as_ref().map(|it| &it.counts);
        let started = summary.and_then(|it| it.started).map(json::nanos);
        let at = started.or(side.build.as_ref().map(|it| it.first_at)).unwrap_or(0);
        vec![
            html! { b { (name) } " " span.dim { (when(at)) } },
            html! { a.mono href=(build_link(&side.invocation)) { (abbreviated(&side.invocation)) } },
            html! { @match summary {
                Some(summary) => (told_list::outcome(summary)),
                None => span.dim title="Only build events say how a build ended." { "–" },
            } },
            nanos(took.unwrap_or(0)),
            html! { (count(counts.map_or(0, |it| it.executed))) },
            html! { (count(counts.map_or(0, |it| it.hits))) },
            nanos(counts.map_or(0, |it| it.run_ns)),
        ]
        .into()
    };
    let lines = [line("Before", &found.before), line("After", &found.after)];
    html! { section.panel { (table::table("The two builds", &SIDES, lines)) } }
}

fn told_sections(told: &BuildDifference) -> Markup {
    let facts: Vec<_> = told.facts.iter().map(text_line).collect();
    let options: Vec<_> = told.options.iter().map(option_line).collect();
    let outcomes: Vec<_> = told.outcomes.iter().map(outcome_line).collect();
    let durations: Vec<_> = told.durations.iter().map(duration_line).collect();
    html! {
        (list("What differs", "Fact", facts, Some("Both are of one commit, command, tool and user.")))
        (list("Flags", "Flag", options, Some("The same flags.")))
        (list("Targets and tests with another outcome", "Label", outcomes, Some("None.")))
        (list("Tests that took another time", "Label", durations, None))
        @if told.left_out > 0 { p.note { (count(told.left_out)) " more are not listed." } }
    }
}

/// `empty`: what is said where nothing differs; nothing: the list is left out.
fn list(title: &str, name: &'static str, lines: Vec<Line>, empty: Option<&str>) -> Markup {
    let columns = [Column(name, "wide"), Column("Before", "many"), Column("After", "many")];
    html! {
        @if !lines.is_empty() || empty.is_some() {
            section.panel {
                header { h2 { (title) } }
                @if lines.is_empty() { p.quiet { (empty.unwrap_or_default()) } }
                @else { (table::table(title, &columns, lines)) }
            }
        }
    }
}

fn none() -> Markup {
    html! { span.dim { "–" } }
}

fn text_line(it: &Changed<String>) -> Line {
    let value = |text: &Option<String>| match text {
        Some(text) => html! { bdi { (visible(text, MAX_VALUE)) } },
        None => none(),
    };
    vec![html! { (it.name) }, value(&it.before), value(&it.after)].into()
}

fn option_line(it: &Changed<Vec<String>>) -> Line {
    let value = |values: &Option<Vec<String>>| match values.as_deref() {
        None => none(),
        // It has no value, but it is there.
        Some([only]) if only.is_empty() => html! { "given" },
        Some(values) => html! { code { (visible(&values.join(" "), MAX_VALUE)) } },
    };
    let name = html! { code { (visible(&it.name, MAX_VALUE)) } };
    vec![name, value(&it.before), value(&it.after)].into()
}

fn outcome_line(it: &Changed<String>) -> Line {
    let value = |word: &Option<String>| match word.as_deref() {
        None => none(),
        Some(word @ ("passed" | "built")) => html! { (word) },
        Some(word @ ("skipped" | "pending" | "no_status")) => {
            html! { span.dim { (visible(word, 40)) } }
        }
        Some(word) => html! { span.bad { (visible(word, 40)) } },
    };
    let name = html! { bdi { (label(&visible(&it.name, MAX_VALUE))) } };
    vec![name, value(&it.before), value(&it.after)].into()
}

fn duration_line(it: &Changed<std::time::Duration>) -> Line {
    let value = |took: &Option<std::time::Duration>| {
        let nanos = took.map_or(0, |it| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX));
        html! { (duration(nanos)) }
    };
    let name = html! { bdi { (label(&visible(&it.name, MAX_VALUE))) } };
    vec![name, value(&it.before), value(&it.after)].into()
}

fn misses(misses: &Misses) -> Markup {
    html! {
        section.panel {
            header { h2 { "Not cached" } }
            @if misses.executed == 0 { p.quiet { "The later build ran nothing here." } }
            @else {
                p.quiet {
                    (counted(misses.executed, "action")) " ran; the earlier build had "
                    (count(misses.known)) " of them as well. " (count(misses.compared)) " were compared."
                }
                (causes(misses))
                (graph::section(misses))
                ul.changes { @for miss in &misses.listed { li { (one(miss)) } } }
            }
            @if misses.executed > misses.listed.len() as u64 || misses.is_cut {
                p.note { "There are more than are listed: of each build the newest executions are looked through." }
            }
        }
    }
}

const CAUSES: [Column; 3] =
    [Column("What differs", "wide"), Column("How", ""), Column("Actions", "num")];

fn causes(misses: &Misses) -> Markup {
    let line = |it: &super::Cause| -> Line {
        vec![
            html! { span.dim { (it.kind) } " " code { (visible(&it.name, MAX_VALUE)) } },
            html! { (it.change) },
            html! { (count(it.actions)) },
        ]
        .into()
    };
    html! {
        @if !misses.causes.is_empty() {
            (table::table("What differs in most actions", &CAUSES, misses.causes.iter().map(line)))
        }
    }
}

fn one(miss: &Miss) -> Markup {
    let run = &miss.entry.execution;
    html! {
        (target(run)) " " span.dim { (visible(&run.mnemonic, 60)) " · "
            (duration(run_ns(&run.timeline.unwrap_or_default()))) }
        @if let Some(explanation) = &miss.explanation {
            @for reason in &explanation.reasons { div.dim { (reason) } }
            @match &explanation.comparison {
                Some(Ok(comparison)) if !comparison.differences.is_empty() => details {
                    summary { (counted(comparison.differences.len() as u64, "difference")) }
                    (why::list(comparison))
                },
                Some(Err(error)) => div.dim { "They cannot be compared: " (error) },
                Some(Ok(_)) | None => {}
            }
        }
    }
}
