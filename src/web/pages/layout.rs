//! What every page has around its content.

use axum::response::{Html, IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::web::format::short;

const STYLE: &str = include_str!("style.css");
const ICON: &str = include_str!("icon.svg");
/// Longest title in characters.
const MAX_TITLE: usize = 120;

/// Where in the site a page belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Overview,
    Builds,
    Queue,
    Audit,
    Elsewhere,
}

const PLACES: [(Place, &str, &str); 4] = [
    (Place::Overview, "/", "Overview"),
    (Place::Builds, "/builds", "Builds"),
    (Place::Queue, "/queue", "Queue & workers"),
    (Place::Audit, "/audit", "Audit"),
];

pub fn page(place: Place, title: &str, version: &str, body: &Markup) -> Html<String> {
    Html(document(place, title, version, None, body).into_string())
}

/// A page that loads itself again after `seconds`.
pub fn live(
    place: Place,
    title: &str,
    version: &str,
    seconds: Option<u32>,
    body: &Markup,
) -> Html<String> {
    Html(document(place, title, version, seconds, body).into_string())
}

pub fn error(status: StatusCode, message: &str, hint: &str) -> Markup {
    let reason = status.canonical_reason().unwrap_or("Error");
    let body = html! {
        section.panel.empty {
            p.code { (status.as_u16()) " " (reason) }
            h1 { (short(message, 600)) }
            p { (short(hint, 600)) }
            p { a.button href="/" { "Overview" } " " a.button href="/builds" { "Builds" } }
        }
    };
    document(Place::Elsewhere, reason, "", None, &body)
}

fn document(
    place: Place,
    title: &str,
    version: &str,
    refresh: Option<u32>,
    body: &Markup,
) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if let Some(seconds) = refresh {
                    meta http-equiv="refresh" content=(seconds);
                }
                title { (short(title, MAX_TITLE)) " · Kiln" }
                link rel="icon" href="/favicon.svg" type="image/svg+xml";
                link rel="stylesheet" href={ "/style.css?v=" (version) };
            }
            body {
                a.skip href="#content" { "Skip to content" }
                header.top {
                    a.brand href="/" { (PreEscaped(ICON)) span { "Kiln" } }
                    nav aria-label="Pages" {
                        @for (here, href, name) in PLACES {
                            a href=(href) aria-current=[(here == place).then_some("page")] { (name) }
                        }
                    }
                    span.grow {}
                    @if !version.is_empty() { span.version { "v" (version) } }
                }
                main id="content" { (body) }
            }
        }
    }
}

pub async fn stylesheet() -> Response {
    ([(CONTENT_TYPE, "text/css; charset=utf-8"), (CACHE_CONTROL, "max-age=300")], STYLE)
        .into_response()
}

pub async fn favicon() -> Response {
    ([(CONTENT_TYPE, "image/svg+xml"), (CACHE_CONTROL, "max-age=86400")], ICON).into_response()
}
