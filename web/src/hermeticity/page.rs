//! What the hermeticity check found.

use axum::extract::State;
use axum::response::Html;
use maud::{Markup, html};

use crate::design::layout::{self, Place};
use crate::design::parts::{self, MAX_CELL};
use crate::design::text::{label, when};
use crate::error::WebError;
use crate::format::{count, counted, short};
use crate::json::{Checked, Difference};
use crate::state::WebState;

/// Results that are looked through, and findings and others shown of them.
const LOOKED_AT: usize = 1000;
const FINDINGS: usize = 200;
const OTHERS: usize = 100;

pub async fn page(State(state): State<WebState>) -> Result<Html<String>, WebError> {
    let found = state.hermeticity.newest(LOOKED_AT).await?;
    let checks: Vec<Checked> = found.iter().map(Checked::from).collect();
    let of = |verdict: &str| checks.iter().filter(|one| one.verdict == verdict).count() as u64;
    let (findings, others): (Vec<_>, Vec<_>) = checks.iter().partition(|one| one.differs());
    let body = html! {
        div.title { h1 { "Hermeticity" } }
        @if checks.is_empty() {
            section.panel.empty {
                h2 { "Nothing checked yet" }
                p { "The hermeticity check runs actions again under changed conditions and compares what they make." }
                pre { code { "kiln hermeticity --invocation INVOCATION" } }
                p { "With " code { "hermeticity.rate" } " in the configuration the server does it for some of all actions." }
            }
        } @else {
            dl.tiles {
                (parts::tile("Same", &html! { (count(of("same"))) }, &html! { "of the newest " (checks.len()) }))
                (parts::tile("Not hermetic", &html! { (count(of("not_hermetic"))) }, &html! { "depend on a condition" }))
                (parts::tile("Not deterministic", &html! { (count(of("not_deterministic"))) }, &html! { "time, randomness, races" }))
                (parts::tile("Not checked", &html! { (count(of("not_checked"))) }, &html! { "could not run again" }))
            }
            section.panel {
                header { h2 { "Findings" }
                    @if findings.len() > FINDINGS { span.dim { "the newest " (FINDINGS) " of " (findings.len()) } }
                }
                @if findings.is_empty() { p.quiet { "Nothing differed." } }
                @else { (table(&findings[..findings.len().min(FINDINGS)], "Findings")) }
            }
            @if !others.is_empty() {
                section.panel {
                    details {
                        summary { h2 { "The same, or not checked" } span.dim { (counted(others.len() as u64, "action")) } }
                        (table(&others[..others.len().min(OTHERS)], "The same, or not checked"))
                        @if others.len() > OTHERS { p.note { "The newest " (OTHERS) " are shown." } }
                    }
                }
            }
        }
    };
    Ok(layout::page(Place::Hermeticity, "Hermeticity", state.version, &body))
}

fn table(checks: &[&Checked], caption: &str) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(caption) {
            table.rows {
                thead { tr {
                    th { "Result" } th { "Target" } th { "Mnemonic" } th { "What differs" }
                    th { "Worker" } th.num { "Runs" } th.num { "When" }
                } }
                tbody { @for checked in checks { (row(checked)) } }
            }
        }
    }
}

fn row(checked: &Checked) -> Markup {
    let class = match checked.verdict.as_str() {
        "same" => "hit",
        "not_checked" => "merged",
        _ => "failed",
    };
    let worker = match checked.worker == checked.first_worker {
        true => format!("{} (the same)", checked.worker),
        false => checked.worker.clone(),
    };
    html! {
        tr {
            td { span class={ "chip " (class) } { (checked.verdict.replace('_', " ")) } }
            td.wide { (target(checked)) }
            td { (short(&checked.mnemonic, 40)) }
            td.many {
                (short(&checked.summary(), MAX_CELL))
                @for difference in &checked.differences { (details(difference)) }
                @if checked.more_differences > 0 { p.dim { "and " (checked.more_differences) " more" } }
            }
            td.dim { (short(&worker, 40)) }
            td.num { (checked.runs) }
            td.num.dim { (when(checked.at)) }
        }
    }
}

/// The target as a link to its action.
fn target(checked: &Checked) -> Markup {
    let name = if checked.target.is_empty() { "(no target)" } else { &checked.target };
    let name = label(&short(name, MAX_CELL));
    html! {
        @match &checked.action {
            Some(action) => a.target href={
                "/actions/" (checked.digest_function) "/" (action.hash) "/" (action.size_bytes)
            } { (name) },
            None => span.target { (name) },
        }
    }
}

fn details(difference: &Difference) -> Markup {
    html! {
        p {
            code { (short(&difference.path, MAX_CELL)) } " " span.dim { (difference.kind.replace('_', " ")) }
            @if let Some(offset) = difference.offset {
                " at byte " (offset)
                @if let Some(line) = difference.line { ", line " (line) }
            }
            @if !difference.first_text.is_empty() || !difference.again_text.is_empty() {
                br; code { (short(&difference.first_text, 120)) }
                br; code { (short(&difference.again_text, 120)) }
            }
            @for hint in &difference.hints { br; span.dim { (short(hint, MAX_CELL)) } }
        }
    }
}
