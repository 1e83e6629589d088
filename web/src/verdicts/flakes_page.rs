//! The page of flaky tests.

use axum::extract::{Query as Arguments, State};
use axum::response::Html;
use kiln_ci::model::Subject;
use kiln_ci::verdicts::Suspect;
use maud::{Markup, html};

use super::flakes::{Filter, JUDGED, STANDINGS, Shown, shown};
use crate::design::layout::{self, Place};
use crate::design::parts::tile;
use crate::design::rows::{self, Column, Line};
use crate::design::text::{visible, when};
use crate::error::WebError;
use crate::format::{abbreviated, count, counted, duration, percent, short};
use crate::json::{Flake, Judged, ShadowRun};
use crate::state::WebState;
use crate::suite::{Names, Tab, millis, tabs};

/// Rows of a page.
const PAGE: usize = 50;
/// Longest name of an owner that is shown, in characters.
const MAX_OWNER: usize = 60;

pub async fn page(
    State(state): State<WebState>,
    Arguments(filter): Arguments<Filter>,
) -> Result<Html<String>, WebError> {
    let shown = shown(&state, &filter, PAGE).await?;
    let judged = shown.judged.iter().map(|(it, _)| &it.case.fresh.subject.test);
    let names = Names::of(shown.all.suspects.iter().map(|it| &it.subject.test).chain(judged));
    let is_judging = state.verdicts.judging.is_some();
    let body = html! {
        div.title { h1 { "Flaky tests" }
            p.dim { (counted(shown.total as u64, "test")) " of " (count(shown.all.tests as u64)) " that are judged" } }
        (tabs(Some(Tab::Flakes)))
        @if !is_judging { p.note { "This server judges no failures (" code { "tests.judge" } "); what others have found is shown." } }
        (tiles(&shown))
        section.panel {
            header { h2 { "Evidence" } (form(&filter)) }
            @if shown.flakes.is_empty() { (nothing(&filter)) }
            @else { (rows::table("Flaky tests", &FLAKES, shown.flakes.iter().map(|it| flake(it, &names)))) }
            p.note { "Flaky: failed and passed with equal inputs twice, an hour apart, or four times. The rate is what is expected "
                "by the runs of 14 days; beside it is the probability that it is above 2 %." }
            @if shown.all.is_cut { p.note { "There are more than are looked through." } }
        }
        (pager(&filter, &shown))
        section.panel {
            header { h2 { "Failures under judgement" } span.dim { "the newest of each test" } }
            @if shown.judged.is_empty() { p.quiet { "No failure was judged within two weeks." } }
            @else { (rows::table("Failures under judgement", &CASES, shown.judged.iter().map(|(case, it)| judged_row(&case.case.fresh.subject, it, &names)))) }
            @if shown.all.judged.len() > JUDGED { p.note { "The newest " (JUDGED) " are listed." } }
        }
    };
    Ok(layout::page(Place::Tests, "Flaky tests", state.version, &body))
}

fn tiles(shown: &Shown) -> Markup {
    let flaky = shown.all.suspects.iter().filter(|it| it.is_flaky).count();
    let suspected = shown.all.suspects.len() - flaky;
    let is = |verdict: &str| shown.judged.iter().filter(|(_, it)| it.verdict == verdict).count();
    let (broken, open) = (is("broken"), is("undecided"));
    html! {
        dl.tiles {
            (tile("Flaky", &html! { @if flaky > 0 { span.flaky-ink { (count(flaky as u64)) } } @else { "0" } }, &html! { "by proof" }))
            (tile("Suspected", &html! { (count(suspected as u64)) }, &html! { "less evidence than that" }))
            (tile("Broken", &html! { @if broken > 0 { span.bad { (count(broken as u64)) } } @else { "0" } }, &html! { "of the failures below" }))
            (tile("Undecided", &html! { (count(open as u64)) }, &html! { "of the failures below" }))
            (tile("Shadow runs", &html! { (duration(millis(shown.all.spent.as_millis()))) }, &html! { "of worker time today" }))
        }
    }
}

fn nothing(filter: &Filter) -> Markup {
    let is_all = [&filter.q, &filter.standing, &filter.owner].into_iter().all(String::is_empty);
    html! {
        @if is_all { p.quiet { "No test has failed and passed with equal inputs. A failure is run again on idle workers, and appears here when it passes." } }
        @else { p.quiet { "No test is like that. " a href="/tests/flakes" { "Show all" } } }
    }
}

fn form(filter: &Filter) -> Markup {
    let field = |name: &str, words: &str, value: &str| {
        html! { label { span.sr { (words) }
        input.short type="search" name=(name) placeholder=(words) maxlength="200" value=(short(value, 200)); } }
    };
    html! {
        form.filter method="get" action="/tests/flakes" {
            (field("q", "part of the label", &filter.q))
            (field("owner", "owner", &filter.owner))
            label { span.sr { "Standing" }
                select name="standing" { @for (value, text) in STANDINGS {
                    option value=(value) selected[value == filter.standing] { (text) }
                } }
            }
            button type="submit" { "Show" }
        }
    }
}

const FLAKES: [Column; 8] = [
    Column("Test", "wide"),
    Column("Standing", ""),
    Column("Evidence", "many"),
    Column("Expected rate", "num"),
    Column("Runs, 14 days", "num"),
    Column("Last failure", "num"),
    Column("Shadow run", ""),
    Column("Owner", ""),
];

fn flake((it, known): &(Suspect, Flake), names: &Names<'_>) -> Line {
    let cells = vec![
        subject(&it.subject, names),
        standing(known),
        evidence(it, known),
        html! { (percent(known.rate)) br; span.dim title="probability that the rate is above 2 %" {
        (percent(known.above_2_percent)) " sure" } },
        html! { (count(u64::from(known.failures))) " of " (count(u64::from(known.failures) + u64::from(known.passes)))
        @if known.timeouts > 0 { br; span.dim { (counted(known.timeouts.into(), "timeout")) } }
        @if known.excused > 0 { br; span.dim title="The surroundings were at fault." { (known.excused) " excused" } } },
        html! { (when(known.last_failure_at)) br; span.dim { (counted(known.clean_runs.into(), "pass").replace("passs", "passes")) " since" } },
        shadow(known.shadow.as_ref()),
        owner(known.owner.as_deref()),
    ];
    cells.into()
}

/// The test, and the case below it.
pub fn subject(it: &Subject, names: &Names<'_>) -> Markup {
    html! {
        (names.link(&it.test))
        @if let Some(case) = &it.case {
            p.dim { @if !case.class.is_empty() { bdi { (visible(&case.class, 120)) } " " } bdi { (visible(&case.name, 160)) } }
        }
    }
}

fn standing(known: &Flake) -> Markup {
    let class = if known.standing == "flaky" { "executed" } else { "cancelled" };
    html! {
        span class={ "chip " (class) } { (known.standing) }
        @if known.is_quarantined { " " a.chip.running href="/tests/quarantine" { "quarantine" } }
    }
}

fn evidence(it: &Suspect, known: &Flake) -> Markup {
    let tier = match &*known.evidence {
        "proven" => "failed and passed, equal inputs",
        "across_seeds" => "with other seeds",
        "same_target" => "same content of the target",
        _ => "failed at several commits",
    };
    html! {
        (tier)
        @if it.flips > 0 { br; span.dim { (counted(it.flips as u64, "time")) " in " (counted(it.commits as u64, "commit")) } }
        @if let Some(newest) = known.newest.first() {
            " " span.dim { (when(newest.at))
                @if let Some(commit) = &newest.commit { " at " span.mono title=(visible(commit, 80)) { bdi { (visible(&abbreviated(commit), 12)) } } } }
        }
    }
}

fn shadow(run: Option<&ShadowRun>) -> Markup {
    html! {
        @match run {
            None => span.dim { "–" },
            Some(run) => {
                @let class = match &*run.outcome { "passed" => "hit", "failed" | "timed_out" => "failed", _ => "cancelled" };
                span class={ "chip " (class) } { (run.outcome.replace('_', " ")) } " "
                span.dim { (run.strategy.trim_start_matches("shadow-")) " " (when(run.at)) }
            },
        }
    }
}

pub fn owner(owner: Option<&str>) -> Markup {
    html! {
        @match owner { Some(owner) => bdi { (visible(owner, MAX_OWNER)) }, None => span.dim { "nobody" } }
    }
}

const CASES: [Column; 6] = [
    Column("Test", "wide"),
    Column("Verdict", ""),
    Column("P(broken)", "num"),
    Column("Tries", ""),
    Column("Failed", "num"),
    Column("Owner", ""),
];

fn judged_row(of: &Subject, it: &Judged, names: &Names<'_>) -> Line {
    let class = match &*it.verdict {
        "flaky" => "executed",
        "broken" => "failed",
        _ => "cancelled",
    };
    let cells = vec![
        subject(of, names),
        html! { span class={ "chip " (class) } { (it.verdict) }
        @if it.verdict == "undecided" { " " span.dim { @if it.is_settled { "given up" } @else { "going on" } } } },
        html! { (percent(it.broken)) },
        html! { (it.straight) " failed in a row, " (it.passes) " passed " span.dim { "(" (counted(it.shadow_runs.into(), "shadow run")) ")" } },
        html! { span.dim { (when(it.failed_at)) } },
        owner(it.owner.as_deref()),
    ];
    cells.into()
}

fn pager(filter: &Filter, shown: &Shown) -> Markup {
    html! {
        @if shown.pages > 1 {
            p.pager {
                @if shown.at > 0 { a.button href=(filter.link(shown.at - 1)) { "Previous" } }
                span.dim { "Page " (shown.at + 1) " of " (shown.pages) }
                @if shown.at + 1 < shown.pages { a.button href=(filter.link(shown.at + 1)) { "Next" } }
            }
        }
    }
}
