//! What the hermeticity audit found.

use axum::extract::State;
use axum::response::Html;
use maud::{Markup, html};

use super::layout::{self, Place};
use super::parts::{self, MAX_CELL};
use crate::web::WebState;
use crate::web::error::WebError;
use crate::web::format::{count, short};
use crate::web::json::{Audited, Difference};

/// Audits on the page.
const SHOWN: usize = 100;

pub async fn page(State(state): State<WebState>) -> Result<Html<String>, WebError> {
    let found = state.auditor.newest(SHOWN).await?;
    let audits: Vec<Audited> = found.iter().map(Audited::from).collect();
    let of = |verdict: &str| audits.iter().filter(|one| one.verdict == verdict).count() as u64;
    let body = html! {
        div.title { h1 { "Hermeticity audit" } }
        @if audits.is_empty() {
            section.panel.empty {
                h2 { "Nothing audited yet" }
                p { "An audit runs actions again under changed conditions and compares what they make." }
                pre { code { "kiln audit hermeticity --invocation INVOCATION" } }
                p { "With " code { "audit.rate" } " in the configuration the server does it for some of all actions." }
            }
        } @else {
            dl.tiles {
                (parts::tile("Same", &html! { (count(of("same"))) }, &html! { "of the newest " (audits.len()) }))
                (parts::tile("Not hermetic", &html! { (count(of("not_hermetic"))) }, &html! { "depend on a condition" }))
                (parts::tile("Not deterministic", &html! { (count(of("not_deterministic"))) }, &html! { "time, randomness, races" }))
                (parts::tile("Not audited", &html! { (count(of("not_audited"))) }, &html! { "could not run again" }))
            }
            section.panel { (table(&audits)) }
        }
    };
    Ok(layout::page(Place::Audit, "Hermeticity audit", state.version, &body))
}

fn table(audits: &[Audited]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Audits" {
            table.rows {
                thead { tr {
                    th { "Result" } th { "Target" } th { "Mnemonic" } th { "What differs" }
                    th { "Worker" } th.num { "Runs" } th.num { "When" }
                } }
                tbody { @for audited in audits { (row(audited)) } }
            }
        }
    }
}

fn row(audited: &Audited) -> Markup {
    let class = match audited.verdict.as_str() {
        "same" => "hit",
        "not_audited" => "merged",
        _ => "failed",
    };
    let worker = match audited.worker == audited.first_worker {
        true => format!("{} (the same)", audited.worker),
        false => audited.worker.clone(),
    };
    html! {
        tr {
            td { span class={ "chip " (class) } { (audited.verdict.replace('_', " ")) } }
            td.wide { (parts::label(&short(&audited.target, MAX_CELL))) }
            td { (short(&audited.mnemonic, 40)) }
            td {
                (short(&audited.summary(), MAX_CELL))
                @for difference in &audited.differences { (details(difference)) }
                @if audited.more_differences > 0 { p.dim { "and " (audited.more_differences) " more" } }
            }
            td.dim { (short(&worker, 40)) }
            td.num { (audited.runs) }
            td.num.dim { (parts::when(audited.at)) }
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
