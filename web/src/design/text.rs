//! Links, labels and times as all pages write them.

use kiln_protos::events::Execution;
use kiln_scheduler::journal::action_of;
use maud::{Markup, html};

use crate::ansi;
use crate::format::{ago, duration, encode, now, path_of, short, utc};

/// The page of the execution's action; `None` where its digest is malformed.
pub fn action_link(execution: &Execution) -> Option<String> {
    let action = action_of(execution)?;
    Some(format!(
        "/actions/{}?instance={}&operation={}",
        path_of(&action),
        encode(&execution.instance_name, false),
        encode(&execution.id, false)
    ))
}

pub fn build_link(invocation: &str) -> String {
    format!("/builds/{}", encode(invocation, false))
}

/// At most `limit` characters of what a stranger wrote, without control characters and without those that turn
/// the direction of what stands behind them.
pub fn visible(text: &str, limit: usize) -> String {
    let turns = |c: &char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    // What is beyond is not looked at: names may be long.
    let text: String = ansi::plain(&short(text, 4 * limit)).chars().filter(|c| !turns(c)).collect();
    short(&text, limit)
}

/// A label whose package is dimmer than its name.
pub fn label(name: &str) -> Markup {
    let split = name.rfind(':').map_or(0, |colon| colon + 1);
    let (package, rest) = name.split_at(split);
    html! { @if !package.is_empty() { span.dim { (package) } } (rest) }
}

/// How long ago a time was, with the time itself as the title.
pub fn when(at: i64) -> Markup {
    if at <= 0 {
        return html! { span.dim { "–" } };
    }
    let utc = utc(at);
    html! { time datetime=(utc.replace(' ', "T")) title=(utc) { (ago(at, now())) } }
}

/// A duration; a dash where there is none.
pub fn nanos(nanos: u64) -> Markup {
    html! { @if nanos == 0 { span.dim { "–" } } @else { (duration(nanos)) } }
}
