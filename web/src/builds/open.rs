//! What of a build runs and waits.

use maud::{Markup, html};

use crate::ansi;
use crate::format::count;
use crate::json::Running;
use crate::state::WebState;
use crate::workers::page::{expected, operation_row};

/// What runs and waits now, with the end of what it has printed.
pub fn running(state: &WebState, listed: &[Running], open: u64) -> Markup {
    let others = open.saturating_sub(listed.len() as u64);
    html! {
        @if open > 0 {
            section.panel {
                header { h2 { "Running and waiting" }
                    @if others > 0 {
                        span.dim { "and " (count(others)) " that joined runs of other builds, or are about to end" }
                    }
                }
                @if !listed.is_empty() {
                    div.scroll tabindex="0" role="region" aria-label="Running and waiting" {
                        table.rows {
                            thead { tr {
                                th { "Target" } th { "Mnemonic" } th { "Build" } th { "Worker" }
                                th.num { "For" } th.num { "Expected" } th.num { "Try" } th.num { "Clients" }
                            } }
                            tbody { @for one in listed {
                                (operation_row(&one.operation, one.lacking.as_deref(), expected(state, &one.operation)))
                                @if !one.output.trim().is_empty() {
                                    tr.output { td colspan="8" { pre.log.tail { (ansi::markup(last_lines(&one.output))) } } }
                                }
                            } }
                        }
                    }
                }
            }
        }
    }
}

/// Lines shown of what an action in a list has printed.
const LINES: usize = 4;

fn last_lines(text: &str) -> &str {
    let text = text.trim_end();
    match text.rmatch_indices('\n').nth(LINES - 1) {
        Some((end, _)) => &text[end + 1..],
        None => text,
    }
}
