//! A build as its workers saw it: one row a slot, one bar an action.

use std::collections::BTreeMap;

use kiln_protos::events::execution::Origin;
use kiln_scheduler::journal::JournalEntry;
use maud::{Markup, html};

use crate::actions::rows::Ended;
use crate::design::chart::{WIDTH, num};
use crate::design::text::action_link;
use crate::format::{counted, duration, short};

/// Bars drawn; of more, the longest.
const MAX_BARS: usize = 1500;
/// Rows of bars that are drawn at most.
const MAX_ROWS: usize = 64;

struct Bar<'a> {
    entry: &'a JournalEntry,
    start: i64,
    end: i64,
}

struct Row<'a> {
    worker: &'a str,
    slot: usize,
    bars: Vec<Bar<'a>>,
}

/// `whole`: when the build began, and its end so far. `None`: nothing ran on a worker.
pub fn waterfall(entries: &[JournalEntry], whole: (i64, i64)) -> Option<Markup> {
    let mut bars: Vec<Bar<'_>> = entries.iter().filter_map(bar).collect();
    let left_out = bars.len().saturating_sub(MAX_BARS);
    if left_out > 0 {
        bars.sort_unstable_by_key(|bar| bar.start - bar.end);
        bars.truncate(MAX_BARS);
    }
    // A build that waited shows that nothing ran meanwhile.
    let start = bars.iter().map(|bar| bar.start).chain([whole.0]).filter(|at| *at > 0).min()?;
    let end = bars.iter().map(|bar| bar.end).chain([whole.1]).max()?;
    if bars.is_empty() {
        return None;
    }
    let rows = rows(bars);
    let more_rows = rows.len().saturating_sub(MAX_ROWS);
    let span = (end - start).max(1) as f64;
    let x = |at: i64| (at - start) as f64 / span * WIDTH;
    Some(html! {
        div.waterfall {
            @for row in rows.iter().take(MAX_ROWS) {
                div.lane {
                    span.name title=(row.worker) { (short(row.worker, 18)) span.dim { "/" (row.slot) } }
                    svg viewBox="0 0 1000 16" preserveAspectRatio="none" role="img"
                        aria-label=(counted(row.bars.len() as u64, "action")) {
                        rect.ground x="0" y="0" width="1000" height="16" {}
                        @for bar in &row.bars { (draw(bar, &x)) }
                    }
                }
            }
            div.lane.scale aria-hidden="true" {
                span.name {}
                div.axis {
                    span { "0" }
                    span { (duration((span / 2.0) as u64)) }
                    span { (duration(span as u64)) }
                }
            }
            @if left_out + more_rows > 0 {
                p.dim { "Left out: " (counted(left_out as u64, "short action")) ", " (counted(more_rows as u64, "slot")) "." }
            }
        }
    })
}

fn bar(entry: &JournalEntry) -> Option<Bar<'_>> {
    let t = entry.execution.timeline.as_ref()?;
    // The slot is free once the outputs are there; publishing the result comes after.
    let end = if t.upload_end > 0 { t.upload_end } else { t.finished.max(t.run_end) };
    // A merged request has the times of the run that it joined, which has its own bar.
    let ran_here = entry.execution.origin() == Origin::Executed;
    (ran_here && t.leased > 0 && end > t.leased && !entry.execution.worker.is_empty())
        .then_some(Bar { entry, start: t.leased, end })
}

/// Gives every bar the first slot of its worker that is free at its start.
fn rows(mut bars: Vec<Bar<'_>>) -> Vec<Row<'_>> {
    bars.sort_unstable_by_key(|bar| (bar.start, bar.end));
    let mut workers: BTreeMap<&str, Vec<Row<'_>>> = BTreeMap::new();
    for bar in bars {
        let worker = bar.entry.execution.worker.as_str();
        let rows = workers.entry(worker).or_default();
        let is_free = |row: &Row<'_>| row.bars.last().is_none_or(|last| last.end <= bar.start);
        match rows.iter().position(is_free) {
            Some(free) => rows[free].bars.push(bar),
            None => rows.push(Row { worker, slot: rows.len(), bars: vec![bar] }),
        }
    }
    workers.into_values().flatten().collect()
}

fn draw(bar: &Bar<'_>, x: &impl Fn(i64) -> f64) -> Markup {
    let run = &bar.entry.execution;
    let state = Ended::of(run);
    let (left, right) = (x(bar.start), x(bar.end));
    let words = format!(
        "{} {}: {}",
        short(&run.mnemonic, 40),
        short(&run.target_id, 120),
        duration((bar.end - bar.start) as u64)
    );
    html! {
        a href=[action_link(run)] {
            title { (words) }
            rect class={ "bar " (state.class()) } x=(num(left)) y="1" height="14"
                width=(num((right - left).max(1.0))) {}
        }
    }
}
