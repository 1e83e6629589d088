//! The page of the quarantine: who is in it and why, what changed, and what gates let pass.

use axum::extract::State;
use axum::response::Html;
use kiln_ci::model::Subject;
use kiln_ci::quarantine::{Actor, QuarantinedTest};
use kiln_ci::verdicts::Masked;
use maud::{Markup, html};

use super::caps::Caps;
use super::flakes_page::{owner, subject};
use super::past::{self, Past};
use crate::design::layout::{self, Place};
use crate::design::parts::tile;
use crate::design::rows::{self, Column, Line};
use crate::design::text::{build_link, visible, when};
use crate::error::WebError;
use crate::format::{abbreviated, count, counted, now, percent, utc};
use crate::json::{AuditEntry, nanos};
use crate::state::WebState;
use crate::suite::{Names, Tab, tabs};

/// Entries and failures that are listed.
const MAX_LISTED: usize = 500;
const MAX_MASKED: usize = 50;
/// Longest reason that is shown, in characters.
const MAX_REASON: usize = 400;

pub async fn page(State(state): State<WebState>) -> Result<Html<String>, WebError> {
    let at = state.tests.clock.now();
    let quarantine = state.verdicts.book.open().await?.quarantine;
    let census = state.verdicts.answers.census().await?;
    let entries: Vec<_> = quarantine.entries(at).collect();
    let past = past::load(&state, |_| true).await?;
    let masked = past.masked.iter().map(|it| &it.subject.test);
    let names = Names::of(entries.iter().map(|(it, _)| &it.test).chain(masked));
    let Caps { tests, allowed, is_over: over } =
        Caps::of(entries.iter().map(|(it, _)| it.test.instance.as_str()), &quarantine, &census, at);
    let body = html! {
        div.title { h1 { "Quarantine" } p.dim { "tests that nobody has to wait for; they still run" } }
        (tabs(Some(Tab::Quarantine)))
        @if over { (alarm()) }
        dl.tiles {
            (tile("In quarantine", &html! { @if over { span.bad { (count(entries.len() as u64)) } } @else { (count(entries.len() as u64)) } },
                &html! { (limit(tests, allowed)) }))
            (tile("Without an owner", &html! { (entries.iter().filter(|(_, it)| it.owner.is_none()).count()) }, &html! { "nobody mends them" }))
            (tile("Masked", &html! { (past.masked.len()) }, &html! { "failures that gates let pass lately" }))
        }
        section.panel {
            header { h2 { "Now" } }
            @if entries.is_empty() { p.quiet { "No test is in quarantine." } }
            @else { (rows::table("Tests in quarantine", &NOW, entries.iter().take(MAX_LISTED).map(|(it, own)| entry(it, own, &names)))) }
            @if entries.len() > MAX_LISTED { p.note { "The first " (MAX_LISTED) " are listed." } }
            p.note { "A test enters on proof and leaves when it has become reliable or its time is up. People change it with "
                code { "kiln tests quarantine add" } " and " code { "remove" } "." }
        }
        (masked_section(&past, &names))
        section.panel {
            header { h2 { "History" } span.dim { "from the audit log" } }
            @if past.changes.is_empty() { p.quiet { "Nothing has changed yet." } }
            @else { (rows::table("Changes of the quarantine", &CHANGES, past.changes.iter().map(change))) }
        }
    };
    Ok(layout::page(Place::Tests, "Quarantine", state.version, &body))
}

/// How many of all tests may be in quarantine, in words. There may be fewer tests than may always be in it.
fn limit(tests: usize, allowed: usize) -> String {
    format!("of {}; up to {} may be", counted(tests as u64, "test"), count(allowed as u64))
}

fn alarm() -> Markup {
    html! {
        section.panel.alarm {
            header { h2 { "More tests are in quarantine than may be" } }
            p.quiet { "Gates mask none of them until there are fewer. Mend some, or take them out." }
        }
    }
}

const NOW: [Column; 6] = [
    Column("Test", "wide"),
    Column("Reason", "many"),
    Column("Owner", ""),
    Column("By", ""),
    Column("Entered", "num"),
    Column("Expires", "num"),
];

fn entry(of: &Subject, it: &QuarantinedTest, names: &Names<'_>) -> Line {
    let cells = vec![
        subject(of, names),
        html! { bdi { (visible(&it.reason, MAX_REASON)) }
        @if !of.test.configuration.is_empty() { p.dim { "in configuration " bdi { (visible(&of.test.configuration, 16)) } } }
        @if let Some(evidence) = &it.evidence { p.dim {
            (counted(evidence.flips as u64, "proven flip")) " in " (counted(evidence.commits as u64, "commit"))
            ", " (evidence.failures) " of " (u64::from(evidence.failures) + u64::from(evidence.passes)) " runs failed, about "
            (percent(evidence.rate)) " are expected to"
        } } },
        owner(it.owner.as_deref()),
        actor(&it.by),
        html! { span.dim { (when(nanos(it.since))) } },
        until(nanos(it.expires)),
    ];
    cells.into()
}

fn actor(by: &Actor) -> Markup {
    html! { @match by { Actor::Policy => span.dim { "policy" }, Actor::Person(name) => bdi { (visible(name, 60)) } } }
}

/// `in 3 d`, with the time itself as the title.
fn until(at: i64) -> Markup {
    let hours = at.saturating_sub(now()).max(0) / 3_600_000_000_000;
    let words = if hours < 48 { format!("in {hours} h") } else { format!("in {} d", hours / 24) };
    html! { time datetime=(utc(at).replace(' ', "T")) title=(utc(at)) { (words) } }
}

fn masked_section(past: &Past, names: &Names<'_>) -> Markup {
    html! {
        section.panel {
            header { h2 { "Masked last" } span.dim { "failures that a gate let pass, in quarantine or not" } }
            @if past.masked.is_empty() { p.quiet { "No gate has let a failure pass yet. " code { "kiln tests gate" } " and " code { "kiln ci run" } " ask for it." } }
            @else { (rows::table("Failures that gates let pass", &MASKED, past.masked.iter().take(MAX_MASKED).map(|it| masked(it, names)))) }
        }
    }
}

const MASKED: [Column; 4] =
    [Column("Test", "wide"), Column("Found", "many"), Column("Build", ""), Column("When", "num")];

fn masked(it: &Masked, names: &Names<'_>) -> Line {
    let cells = vec![
        subject(&it.subject, names),
        html! { bdi { (visible(&it.text, MAX_REASON)) }
        @if it.is_quarantined { " " span.chip.running { "quarantine" } } },
        html! { a.mono href=(build_link(&it.invocation)) { bdi { (visible(&abbreviated(&it.invocation), 12)) } } },
        html! { span.dim { (when(nanos(it.at))) } },
    ];
    cells.into()
}

const CHANGES: [Column; 6] = [
    Column("Test", "wide"),
    Column("Change", ""),
    Column("Reason", "many"),
    Column("Owner", ""),
    Column("By", ""),
    Column("When", "num"),
];

fn change(it: &AuditEntry) -> Line {
    let kind = it.action.rsplit('.').next().unwrap_or_default();
    let (class, word) = match kind {
        "enter" => ("executed", "entered"),
        "renew" => ("merged", "renewed"),
        "leave" => ("hit", "left"),
        "expire" => ("cancelled", "expired"),
        "refuse" => ("failed", "refused"),
        other => ("cancelled", other),
    };
    let text = |name: &str| it.details[name].as_str().unwrap_or_default().to_owned();
    let cells = vec![
        html! { span.target { bdi { (visible(&it.subject, 200)) } }
        @if !text("instance").is_empty() { " " span.tag title="instance" { bdi { (visible(&text("instance"), 40)) } } } },
        html! { span class={ "chip " (class) } { (visible(word, 20)) } },
        html! { bdi { (visible(&text("reason"), MAX_REASON)) } },
        owner(Some(text("owner")).filter(|it| !it.is_empty()).as_deref()),
        html! { bdi { (visible(&it.actor, 60)) } },
        html! { span.dim title={ "entry " (it.sequence) " of the audit log" } { (when(it.at)) } },
    ];
    cells.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_of_the_tests_may_be_in_quarantine_than_there_are() {
        assert_eq!(limit(3, 5), "of 3 tests; up to 5 may be");
        assert_eq!(limit(1, 5), "of 1 test; up to 5 may be");
        assert_eq!(limit(500, 10), "of 500 tests; up to 10 may be");
    }
}
