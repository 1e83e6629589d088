//! What every page has around its content.

use axum::response::{Html, IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::format::short;

const STYLE: &str = include_str!("style.css");
const ICON: &str = include_str!("icon.svg");
/// Longest title in characters.
const MAX_TITLE: usize = 120;

/// The part of the site that a page belongs to, which the navigation marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Overview,
    Builds,
    Tests,
    Releases,
    Environments,
    Rollouts,
    Pipelines,
    Fleet,
    MergeQueues,
    Queue,
    Hermeticity,
    Elsewhere,
}

const PLACES: [(Place, &str, &str); 11] = [
    (Place::Overview, "/", "Overview"),
    (Place::Builds, "/builds", "Builds"),
    (Place::Tests, "/tests", "Tests"),
    (Place::Releases, "/releases", "Releases"),
    (Place::Environments, "/environments", "Environments"),
    (Place::Rollouts, "/rollouts", "Rollouts"),
    (Place::Pipelines, "/pipelines", "Pipelines"),
    (Place::Fleet, "/fleet", "Fleet"),
    (Place::MergeQueues, "/merge-queues", "Merge queues"),
    (Place::Queue, "/queue", "Queue & workers"),
    (Place::Hermeticity, "/hermeticity", "Hermeticity"),
];

pub fn page(place: Place, title: &str, version: &str, body: &Markup) -> Html<String> {
    Html(document(place, title, version, None, body).into_string())
}

/// Seconds between two looks at a page on which something runs.
const REFRESH_SECONDS: u32 = 4;

/// Whether a page loads itself again: where something runs, unless its reader said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    No,
    Yes,
    /// Something runs, and the reader wants to read in peace.
    Held,
}

impl Live {
    /// `hold`: the argument of that name is in the page's address.
    pub fn of(is_lively: bool, hold: bool) -> Self {
        match (is_lively, hold) {
            (false, _) => Self::No,
            (true, false) => Self::Yes,
            (true, true) => Self::Held,
        }
    }
}

/// What to click to stop or to go on. `address`: of the page, without that it is held.
pub fn hold(live: Live, address: &str) -> Markup {
    let joint = if address.contains('?') { "&" } else { "?" };
    html! {
        @match live {
            Live::No => {},
            Live::Yes => a.button href={ (address) (joint) "hold=1" } { "Stop refreshing" },
            Live::Held => a.button href=(address) { "Refresh every " (REFRESH_SECONDS) " s" },
        }
    }
}

/// A page that loads itself again while something on it runs.
pub fn live(place: Place, title: &str, version: &str, live: Live, body: &Markup) -> Html<String> {
    let seconds = (live == Live::Yes).then_some(REFRESH_SECONDS);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The colours of `:root`, light and dark.
    fn colours(scheme: usize) -> std::collections::HashMap<&'static str, &'static str> {
        let root = STYLE.split(":root {").nth(scheme + 1).expect("two schemes");
        let root = root.split('}').next().expect("its end");
        let variables = root.split(';').filter_map(|line| line.trim().strip_prefix("--"));
        let pairs = variables.filter_map(|variable| variable.split_once(": #"));
        pairs.collect()
    }

    /// Relative luminance as WCAG 2 defines it.
    fn luminance(hex: &str) -> f64 {
        let part = |at: usize| {
            let value = u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits");
            let value = f64::from(value) / 255.0;
            if value <= 0.03928 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(0) + 0.7152 * part(2) + 0.0722 * part(4)
    }

    /// WCAG 2 asks for 4.5 to 1 between text and what is behind it (level AA).
    #[test]
    fn text_can_be_read_on_every_ground() {
        const INKS: [&str; 5] = ["text", "dim", "link", "violet-ink", "cyan-ink"];
        const CHIPS: [&str; 4] = ["hit", "merged", "executed", "failed"];
        for scheme in [0, 1] {
            let colours = colours(scheme);
            let check = |ink: &str, ground: &str| {
                let (ink_is, ground_is) = (luminance(colours[ink]), luminance(colours[ground]));
                let (dark, bright) = (ink_is.min(ground_is), ink_is.max(ground_is));
                let contrast = (bright + 0.05) / (dark + 0.05);
                assert!(contrast >= 4.5, "{ink} on {ground}: {contrast:.2} to 1");
            };
            for ground in ["ground", "panel", "soft", "edge"] {
                INKS.iter().for_each(|ink| check(ink, ground));
                CHIPS.iter().for_each(|chip| check(&format!("{chip}-ink"), ground));
            }
            CHIPS.iter().for_each(|chip| check(&format!("{chip}-ink"), &format!("{chip}-soft")));
            check("bar-text", "bar");
        }
    }
}
